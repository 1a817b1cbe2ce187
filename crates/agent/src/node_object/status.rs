//! What a node's object says, of what its agent says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use cellwall_api::Snapshot;
use cellwall_api::v1alpha1::{
    Endpoint, NodeStatus, ObjectReference, Policy, Problem, Source, UnplacedPod, UnplacedReason,
};
use cellwall_kube::node_object::{CellwallNodeStatus, Condition, EnforcedVersion, Time, time};
use cellwall_policy::model::Kind;

/// How many problems are written out.
const PROBLEMS: usize = 10;
/// How many policies, or pods, are named.
const NAMES: usize = 200;
/// Bytes of one text: who waits for a policy reads the objects of all nodes.
const TEXT: usize = 512;

/// What is written. Times of conditions that have not changed are those of `before`, which is empty when the agent starts.
pub(super) fn status(
    snapshot: &Snapshot,
    before: &CellwallNodeStatus,
    now: SystemTime,
) -> CellwallNodeStatus {
    let node = &snapshot.status;
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
        policies_with_problems: names(policies_with_problems(&snapshot.policies)),
        pods_not_enforced: names(pods_not_enforced(snapshot)),
        remote: None,
        heartbeat: None,
        enforced: node.sources.iter().filter_map(enforced).collect(),
        conditions: conditions(node, before, now),
    }
}

fn number(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn policies_with_problems(policies: &[Policy]) -> impl Iterator<Item = &ObjectReference> {
    let wrong = policies.iter().filter(|policy| !policy.problems.is_empty());
    let references = wrong.filter_map(|policy| policy.policy.as_ref());
    references.filter(|policy| policy.kind == Kind::NetworkPolicy.name())
}

/// Pods that wait for their address or are in the node's network are not among them. Where all are audited, `mode` says so.
fn pods_not_enforced(snapshot: &Snapshot) -> impl Iterator<Item = &ObjectReference> {
    let one = |endpoint: &&Endpoint| endpoint.audit && !snapshot.status.audit;
    let audited = snapshot.endpoints.iter().filter(one).filter_map(|endpoint| endpoint.pod.as_ref());
    let is_lost = |pod: &&UnplacedPod| {
        matches!(pod.reason(), UnplacedReason::NoInterface | UnplacedReason::AddressTaken)
    };
    let lost = snapshot.status.unplaced_pods.iter().filter(is_lost).filter_map(|pod| pod.pod.as_ref());
    audited.chain(lost)
}

/// `namespace/name` of each, once; none where they are too many.
fn names<'a>(objects: impl Iterator<Item = &'a ObjectReference>) -> Option<Vec<String>> {
    let names: BTreeSet<String> =
        objects.map(|object| format!("{}/{}", object.namespace, object.name)).collect();
    (names.len() <= NAMES).then(|| names.into_iter().collect())
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use cellwall_api::v1alpha1 as api;

    use super::*;

    fn snapshot(status: NodeStatus) -> Snapshot {
        let taken = std::time::Instant::now();
        Snapshot { taken, status, endpoints: Arc::default(), policies: Arc::default() }
    }

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
            status(&snapshot(node), before, at(seconds))
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

    fn reference(kind: &str, name: &str) -> ObjectReference {
        let (kind, namespace, name) = (kind.to_owned(), "shop".to_owned(), name.to_owned());
        ObjectReference { kind, namespace, name }
    }

    #[test]
    fn policies_with_problems_are_named_once_or_not_at_all() {
        let policy = |kind: &str, name: &str, problems: usize| Policy {
            policy: Some(reference(kind, name)),
            problems: vec![Problem::default(); problems],
            ..Policy::default()
        };
        let said = |policies: Vec<Policy>| {
            let snapshot = Snapshot { policies: policies.into(), ..snapshot(NodeStatus::default()) };
            status(&snapshot, &CellwallNodeStatus::default(), UNIX_EPOCH).policies_with_problems
        };
        let some = [("NetworkPolicy", "b", 2), ("NetworkPolicy", "a", 0), ("ClusterNetworkPolicy", "c", 1)];
        let some = some.map(|(kind, name, problems)| policy(kind, name, problems));
        assert_eq!(said(some.into()), Some(vec!["shop/b".to_owned()]));
        let many = |count| (0..count).map(|n| policy("NetworkPolicy", &n.to_string(), 1)).collect();
        assert_eq!(said(many(NAMES)).map(|names| names.len()), Some(NAMES));
        assert_eq!(said(many(NAMES + 1)), None);
    }

    #[test]
    fn pods_that_are_audited_or_lost_are_named() {
        let unplaced = |name: &str, reason: UnplacedReason| UnplacedPod {
            pod: Some(reference("Pod", name)),
            reason: reason.into(),
            ..UnplacedPod::default()
        };
        let unplaced_pods = vec![
            unplaced("new", UnplacedReason::NoAddress),
            unplaced("node", UnplacedReason::HostNetwork),
            unplaced("macvlan", UnplacedReason::NoInterface),
            unplaced("twin", UnplacedReason::AddressTaken),
        ];
        let endpoint = |name: &str, audit: bool| Endpoint {
            pod: Some(reference("Pod", name)),
            audit,
            ..Endpoint::default()
        };
        let endpoints = vec![endpoint("audited", true), endpoint("enforced", false)];
        let said = |audit: bool| {
            let node = NodeStatus { audit, unplaced_pods: unplaced_pods.clone(), ..NodeStatus::default() };
            let snapshot = Snapshot { endpoints: endpoints.clone().into(), ..snapshot(node) };
            status(&snapshot, &CellwallNodeStatus::default(), UNIX_EPOCH).pods_not_enforced.expect("few")
        };
        assert_eq!(said(false), ["shop/audited", "shop/macvlan", "shop/twin"]);
        assert_eq!(said(true), ["shop/macvlan", "shop/twin"]);
    }

    #[test]
    fn texts_are_bounded_and_name_the_object() {
        let problem = Problem {
            object: Some(ObjectReference {
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
