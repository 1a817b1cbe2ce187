//! What a node's object says, of what its agent says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use cellwall_api::v1alpha1::{NodeStatus, Problem, Source};
use cellwall_kube::k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use cellwall_kube::k8s_openapi::jiff::Timestamp;
use cellwall_kube::node_object::{CellwallNodeStatus, EnforcedVersion};
use cellwall_policy::model::Kind;

/// How many problems are written out.
const PROBLEMS: usize = 20;
/// How many policies with problems are named.
const NOT_AS_WRITTEN: usize = 200;
/// Bytes of one text: etcd takes 1.5 MiB of an object, and this one is read often.
const TEXT: usize = 1024;

/// What is written. Times of conditions that have not changed are those of `before`.
pub(super) fn status(node: &NodeStatus, before: &CellwallNodeStatus, now: SystemTime) -> CellwallNodeStatus {
    let enforced = |source: &Source| {
        let (kind, resource_version) = (source.kind.clone(), source.enforced_resource_version.clone());
        (!resource_version.is_empty()).then_some(EnforcedVersion { kind, resource_version })
    };
    CellwallNodeStatus {
        agent_version: node.agent_version.clone(),
        mode: if node.audit { "audit" } else { "enforce" }.to_owned(),
        revision: i64::try_from(node.revision).unwrap_or(i64::MAX),
        endpoints: number(node.endpoint_count),
        policies: number(node.policy_count),
        unplaced_pods: i32::try_from(node.unplaced_pods.len()).unwrap_or(i32::MAX),
        problem_count: number(node.problem_count),
        problems: node.problems.iter().take(PROBLEMS).map(text).collect(),
        not_as_written: not_as_written(node),
        enforced: node.sources.iter().filter_map(enforced).collect(),
        conditions: conditions(node, before, now),
    }
}

fn number(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn not_as_written(node: &NodeStatus) -> Option<Vec<String>> {
    if node.problem_count as usize > node.problems.len() {
        return None;
    }
    let objects = node.problems.iter().filter_map(|problem| problem.object.as_ref());
    let policies = objects.filter(|object| object.kind == Kind::NetworkPolicy.name());
    let names: BTreeSet<String> =
        policies.map(|policy| format!("{}/{}", policy.namespace, policy.name)).collect();
    (names.len() <= NOT_AS_WRITTEN).then(|| names.into_iter().collect())
}

/// The object, the field, and what is wrong.
fn text(problem: &Problem) -> String {
    let object = problem.object.clone().unwrap_or_default();
    let at = [object.namespace.as_str(), object.name.as_str()];
    let name = at.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    let field = if problem.field.is_empty() { String::new() } else { format!(" {}", problem.field) };
    short(&format!("{} {name}{field}: {}", object.kind, problem.message))
}

/// Cut where it is too long.
fn short(text: &str) -> String {
    if text.len() <= TEXT {
        return text.to_owned();
    }
    format!("{}...", &text[..text.floor_char_boundary(TEXT - 3)])
}

/// `Ready` first, then all that it is made of.
fn conditions(node: &NodeStatus, before: &CellwallNodeStatus, now: SystemTime) -> Vec<Condition> {
    let since: BTreeMap<&str, (&str, &Time)> = before
        .conditions
        .iter()
        .map(|old| (old.type_.as_str(), (old.status.as_str(), &old.last_transition_time)))
        .collect();
    let condition = |type_: &str, ok: bool, reason: &str, message: &str| {
        let status = if ok { "True" } else { "False" };
        let unchanged = since.get(type_).filter(|(old, _)| *old == status);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: short(message),
            last_transition_time: unchanged.map_or_else(|| time(now), |(_, time)| (*time).clone()),
            observed_generation: None,
        }
    };
    let wrong = node.conditions.iter().find(|part| part.required && !part.ok);
    let (reason, message) = wrong.map_or(("Enforcing", ""), |part| (&part.reason, &part.message));
    let parts =
        node.conditions.iter().map(|part| condition(&part.r#type, part.ok, &part.reason, &part.message));
    std::iter::once(condition("Ready", node.ready, reason, message)).chain(parts).collect()
}

/// Whole seconds, as the API has them.
fn time(now: SystemTime) -> Time {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Time(i64::try_from(seconds).ok().and_then(|s| Timestamp::from_second(s).ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cellwall_api::v1alpha1 as api;

    use super::*;

    #[test]
    fn a_condition_has_the_time_of_its_last_change() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let part = |ok| api::Condition {
            r#type: "Attached".to_owned(),
            ok,
            reason: "NotAttached".to_owned(),
            message: "no programs on veth1".to_owned(),
            required: true,
        };
        let of = |ok, before: &CellwallNodeStatus, seconds| {
            let node = NodeStatus { ready: ok, conditions: vec![part(ok)], ..NodeStatus::default() };
            status(&node, before, at(seconds))
        };
        let first = of(true, &CellwallNodeStatus::default(), 100);
        let same = of(true, &first, 200);
        assert_eq!(first, same);
        let other = of(false, &same, 300);
        let ready = &other.conditions[0];
        assert_eq!(
            (ready.type_.as_str(), ready.status.as_str(), ready.reason.as_str()),
            ("Ready", "False", "NotAttached")
        );
        assert_eq!(ready.message, "no programs on veth1");
        assert_eq!(ready.last_transition_time, time(at(300)));
    }

    #[test]
    fn policies_with_problems_are_named_once_or_not_at_all() {
        let problem = |kind: &str, name: &str| {
            let (kind, namespace, name) = (kind.to_owned(), "shop".to_owned(), name.to_owned());
            let object = Some(api::ObjectReference { kind, namespace, name });
            Problem { object, ..Problem::default() }
        };
        let named = |problems: Vec<Problem>, count: usize| {
            let problem_count = u32::try_from(count).expect("few");
            not_as_written(&NodeStatus { problem_count, problems, ..NodeStatus::default() })
        };
        let three = [("NetworkPolicy", "b"), ("Pod", "a"), ("NetworkPolicy", "b")];
        let three: Vec<Problem> = three.map(|(kind, name)| problem(kind, name)).into();
        assert_eq!(named(three.clone(), 3), Some(vec!["shop/b".to_owned()]));
        assert_eq!(named(three, 4), None, "one is not told");
        let many: Vec<Problem> =
            (0..=NOT_AS_WRITTEN).map(|n| problem("NetworkPolicy", &n.to_string())).collect();
        assert_eq!(named(many, NOT_AS_WRITTEN + 1), None);
    }

    #[test]
    fn texts_are_bounded_and_name_the_object() {
        let problem = Problem {
            object: Some(api::ObjectReference {
                kind: "NetworkPolicy".to_owned(),
                namespace: "shop".to_owned(),
                name: "db".to_owned(),
            }),
            field: "spec.ingress[0]".to_owned(),
            message: "ä".repeat(TEXT),
        };
        let told = text(&problem);
        assert!(told.starts_with("NetworkPolicy shop/db spec.ingress[0]: ä"), "{told}");
        assert!(told.len() <= TEXT && told.ends_with("..."));
    }
}
