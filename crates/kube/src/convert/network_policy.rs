//! NetworkPolicy, with the defaults that the API server would set (S15).

use cellwall_policy::{
    flow::Direction,
    model::{
        Action, Kind, NamespaceMatch, ObjectKey, Policy, PolicyKind, Problem, Rule, Selector, Subject, Tier,
    },
};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use serde_json::Value;

use super::{
    entries::{peer, port},
    meta, raw,
    report::Report,
    selector::selector,
};

/// Converts a NetworkPolicy.
#[must_use]
pub fn network_policy(object: &NetworkPolicy) -> (Policy, Vec<Problem>) {
    let key = meta::key_from(Kind::NetworkPolicy, &object.metadata);
    let mut report = Report::new(key.clone());
    let policy = policy(key, object, &mut report);
    (policy, report.finish())
}

/// Reads and converts a NetworkPolicy entry by entry, so that an unknown or broken field costs only what it is in.
pub(super) fn from_value(key: &ObjectKey, value: Value) -> (Policy, Vec<Problem>) {
    let understood = raw::network_policy(key, value);
    let (policy, mut found) = network_policy(&understood.object);
    // What stands in for an entry that was not understood is itself invalid: that says nothing new.
    found.retain(|p| !understood.replaced.iter().any(|at| p.field.starts_with(at.as_str())));
    let mut problems = understood.problems;
    problems.append(&mut found);
    (policy, problems)
}

fn policy(key: ObjectKey, object: &NetworkPolicy, report: &mut Report) -> Policy {
    let empty = NetworkPolicySpec::default();
    let spec = object.spec.as_ref().unwrap_or(&empty);
    let isolates = policy_types(spec, report);
    let (pods, complete) = spec
        .pod_selector
        .as_ref()
        .map_or((Selector::everything(), true), |s| selector(s, "spec.podSelector", report));
    let mut rules = [ingress(spec, &key, report), egress(spec, &key, report)];
    for (list, isolated) in rules.iter_mut().zip(isolates) {
        // A list whose direction is not in policyTypes is inert (S11, S12).
        if !isolated {
            list.clear();
        }
    }
    if !complete {
        report.add(
            "spec.podSelector",
            "cannot be read in full; the pods it may mean are isolated, no rule applies",
        );
        rules = [Vec::new(), Vec::new()];
    }
    Policy {
        kind: PolicyKind::NetworkPolicy,
        uid: object.metadata.uid.clone().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or(0),
        tier: Tier::NetworkPolicy,
        priority: 0,
        subject: Subject { namespaces: NamespaceMatch::Named(key.namespace.clone()), pods },
        isolates,
        rules,
        key,
    }
}

/// Which directions are isolated: what `policyTypes` says, both where it has a word that nobody knows, else Ingress, and
/// Egress where there is an egress rule (S8 to S14).
fn policy_types(spec: &NetworkPolicySpec, report: &mut Report) -> [bool; 2] {
    let mut isolates = [false; 2];
    for (i, name) in spec.policy_types.iter().flatten().enumerate() {
        match name.as_str() {
            "Ingress" => isolates[Direction::Ingress as usize] = true,
            "Egress" => isolates[Direction::Egress as usize] = true,
            _ => {
                report.add(
                    format_args!("spec.policyTypes[{i}]"),
                    format_args!("`{name}` is neither Ingress nor Egress; both directions are isolated"),
                );
                isolates = [true; 2];
            }
        }
    }
    if isolates == [false; 2] && !cellwall_policy::planted("no-default-policy-types") {
        isolates[Direction::Ingress as usize] = true;
        isolates[Direction::Egress as usize] = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
    }
    isolates
}

fn ingress(spec: &NetworkPolicySpec, key: &ObjectKey, report: &mut Report) -> Vec<Rule> {
    let rules = spec.ingress.iter().flatten().enumerate();
    rules
        .map(|(i, r)| {
            let field = format!("spec.ingress[{i}]");
            rule(i, key, (r.from.as_deref(), "from"), r.ports.as_deref(), &field, report)
        })
        .collect()
}

fn egress(spec: &NetworkPolicySpec, key: &ObjectKey, report: &mut Report) -> Vec<Rule> {
    let rules = spec.egress.iter().flatten().enumerate();
    rules
        .map(|(i, r)| {
            let field = format!("spec.egress[{i}]");
            rule(i, key, (r.to.as_deref(), "to"), r.ports.as_deref(), &field, report)
        })
        .collect()
}

fn rule(
    index: usize,
    key: &ObjectKey,
    (peers, list): (Option<&[NetworkPolicyPeer]>, &str),
    ports: Option<&[NetworkPolicyPort]>,
    field: &str,
    report: &mut Report,
) -> Rule {
    // Missing and empty are the same here: everything (S31, S32). An entry that is wrong still counts as one.
    let all = |entries: &&[NetworkPolicyPeer]| {
        entries.is_empty() && !cellwall_policy::planted("nil-and-empty-peers-swapped")
    };
    let peers = peers.filter(|entries| !all(entries)).map(|entries| {
        let entries = entries.iter().enumerate();
        entries.map(|(i, p)| peer(p, &key.namespace, &format!("{field}.{list}[{i}]"), report)).collect()
    });
    let ports = ports.filter(|entries| !entries.is_empty()).map(|entries| {
        let entries = entries.iter().enumerate();
        entries.filter_map(|(i, p)| port(p, &format!("{field}.ports[{i}]"), report)).collect()
    });
    let index = u32::try_from(index).expect("an object of 4,000,000,000 rules does not fit a request");
    Rule { peers, ports, action: Action::Accept, index }
}
