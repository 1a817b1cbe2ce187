//! Who enforces a policy, from what the nodes say.

use std::collections::{BTreeMap, BTreeSet};

use cellwall_kube::enforced::Target;
use cellwall_kube::k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use cellwall_kube::k8s_openapi::jiff::Timestamp;
use cellwall_kube::node_object::{CellwallNodeStatus, EnforcedVersion};

fn node(version: &str, ready: bool) -> CellwallNodeStatus {
    let ready = Condition {
        type_: "Ready".to_owned(),
        status: if ready { "True" } else { "False" }.to_owned(),
        reason: "NotAttached".to_owned(),
        message: "no programs on veth1".to_owned(),
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        observed_generation: None,
    };
    let of = |kind: &str, version: &str| EnforcedVersion {
        kind: kind.to_owned(),
        resource_version: version.to_owned(),
    };
    CellwallNodeStatus {
        mode: "enforce".to_owned(),
        not_as_written: Some(Vec::new()),
        // That of another kind says nothing.
        enforced: vec![of("ClusterNetworkPolicy", "999"), of("NetworkPolicy", version)],
        conditions: vec![ready],
        ..CellwallNodeStatus::default()
    }
}

fn waiting(selected: &[&str], nodes: &[(&str, CellwallNodeStatus)]) -> Vec<(String, bool, String)> {
    let target = Target {
        policy: "shop/db".to_owned(),
        generation: 3,
        resource_version: "100".to_owned(),
        selected: selected.iter().map(|&name| name.to_owned()).collect(),
    };
    let nodes = nodes.iter().map(|(name, status)| ((*name).to_owned(), status.clone())).collect();
    let progress = target.progress(&nodes);
    assert_eq!(progress.is_enforced(), progress.waiting.is_empty() && progress.nodes > 0);
    progress.waiting.into_iter().map(|(name, waiting)| (name, waiting.selects, waiting.reason)).collect()
}

fn row(node: &str, selects: bool, reason: &str) -> (String, bool, String) {
    (node.to_owned(), selects, reason.to_owned())
}

#[test]
fn a_node_without_selected_pods_counts_and_one_without_an_agent_too() {
    let nodes = [("a", node("100", true)), ("b", node("99", true))];
    assert_eq!(
        waiting(&["a", "c"], &nodes),
        [
            row("b", false, "it enforces resourceVersion 99, and the policy has 100"),
            row("c", true, "no agent has written its CellwallNode"),
        ]
    );
    assert_eq!(waiting(&["a"], &nodes[..1]), []);
    assert_eq!(waiting(&["a"], &[("a", node("1000", true))]), [], "numbers, not texts");
}

#[test]
fn who_audits_or_is_not_ready_does_not_enforce() {
    let audits = CellwallNodeStatus { mode: "audit".to_owned(), ..node("100", true) };
    let silent = CellwallNodeStatus { conditions: Vec::new(), ..node("100", true) };
    let new = CellwallNodeStatus { enforced: Vec::new(), ..node("", true) };
    assert_eq!(
        waiting(&[], &[("a", audits), ("b", node("100", false)), ("c", silent), ("d", new)]),
        [
            row("a", false, "it is in audit mode: what policies deny passes"),
            row("b", false, "it is not ready: NotAttached: no programs on veth1"),
            row("c", false, "it has not said that it is ready"),
            row("d", false, "it enforces resourceVersion none, and the policy has 100"),
        ]
    );
}

#[test]
fn a_policy_with_a_problem_is_not_in_force_as_it_is_written() {
    let with = |policies: Option<&str>| {
        let policies = policies.map(|name| vec![name.to_owned()]);
        CellwallNodeStatus { not_as_written: policies, ..node("100", true) }
    };
    assert_eq!(
        waiting(&[], &[("a", with(Some("shop/db"))), ("b", with(Some("shop/db-2"))), ("c", with(None)),]),
        [
            row("a", false, "it has a problem with this policy, which `cellwall policies` names there"),
            row("c", false, "it has problems with more policies than it can name"),
        ]
    );
}

#[test]
fn where_no_node_counts_nothing_is_enforced() {
    let target = Target {
        policy: "shop/db".to_owned(),
        generation: 1,
        resource_version: "1".to_owned(),
        selected: BTreeSet::new(),
    };
    assert!(!target.progress(&BTreeMap::new()).is_enforced());
}

#[test]
fn versions_are_numbers_and_others_are_equal_or_not() {
    let enforced = |seen: &str, target: &str| {
        let target = Target {
            policy: "shop/db".to_owned(),
            generation: 1,
            resource_version: target.to_owned(),
            selected: BTreeSet::new(),
        };
        target.progress(&[("a".to_owned(), node(seen, true))].into()).is_enforced()
    };
    assert!(enforced("a1", "a1") && !enforced("a2", "a1") && !enforced("", "1"));
    assert!(enforced("10", "9") && !enforced("9", "10"));
}
