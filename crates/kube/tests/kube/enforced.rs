//! Who enforces a policy, from what the nodes say.

use std::collections::{BTreeMap, BTreeSet};

use cellwall_kube::enforced::Target;
use cellwall_kube::k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use cellwall_kube::k8s_openapi::jiff::Timestamp;
use cellwall_kube::node_object::{CellwallNodeStatus, EnforcedVersion};

/// Unix time.
const NOW: i64 = 1_800_000_000;

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
        policies_with_problems: Some(Vec::new()),
        pods_not_enforced: Some(Vec::new()),
        heartbeat: Some(at(NOW - 600)),
        // That of another kind says nothing.
        enforced: vec![of("ClusterNetworkPolicy", "999"), of("NetworkPolicy", version)],
        conditions: vec![ready],
        ..CellwallNodeStatus::default()
    }
}

/// Who is waited for when these nodes say that, and they and those of `selected` are all nodes.
fn waiting(selected: &[&str], nodes: &[(&str, CellwallNodeStatus)]) -> Vec<(String, bool, String)> {
    let pods = |node: &&str| ((*node).to_owned(), BTreeSet::from([format!("shop/pod-of-{node}")]));
    let target = Target {
        nodes: nodes.iter().map(|(name, _)| (*name).to_owned()).collect(),
        selected: selected.iter().map(pods).collect(),
        ..target("100")
    };
    let nodes: BTreeMap<_, _> =
        nodes.iter().map(|(name, status)| ((*name).to_owned(), status.clone())).collect();
    let progress = target.progress(&nodes, NOW);
    assert_eq!(progress.is_enforced(), progress.waiting.is_empty() && progress.nodes > 0);
    progress.waiting.into_iter().map(|(name, waiting)| (name, waiting.selects, waiting.reason)).collect()
}

fn target(resource_version: &str) -> Target {
    Target {
        policy: "shop/db".to_owned(),
        generation: 3,
        resource_version: resource_version.to_owned(),
        nodes: BTreeSet::new(),
        selected: BTreeMap::new(),
    }
}

fn at(seconds: i64) -> Time {
    Time(Timestamp::from_second(seconds).expect("a time"))
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
        let policies_with_problems = policies.map(|name| vec![name.to_owned()]);
        CellwallNodeStatus { policies_with_problems, ..node("100", true) }
    };
    let nodes = [("a", with(Some("shop/db"))), ("b", with(Some("shop/db-2"))), ("c", with(None))];
    let many = "it has problems with more policies, or does not enforce more pods, than it can name";
    assert_eq!(
        waiting(&[], &nodes),
        [
            row("a", false, "it has a problem with this policy, which `cellwall policies` names there"),
            row("c", false, many),
        ]
    );
}

#[test]
fn a_selected_pod_that_is_audited_or_not_found_is_not_enforced() {
    let with = |pod: &str| {
        let pods_not_enforced = Some(vec![format!("shop/{pod}"), "other/pod-of-b".to_owned()]);
        CellwallNodeStatus { pods_not_enforced, ..node("100", true) }
    };
    let nodes = [("a", with("pod-of-a")), ("b", with("pod-of-a"))];
    let wanted = "its pod shop/pod-of-a is audited, or its interface is not known";
    assert_eq!(waiting(&["a", "b"], &nodes), [row("a", true, wanted)]);
    assert_eq!(waiting(&["b"], &nodes), []);
}

#[test]
fn an_agent_that_is_silent_may_be_gone() {
    let silent = CellwallNodeStatus { heartbeat: Some(at(NOW - 661)), ..node("100", true) };
    let never = CellwallNodeStatus { heartbeat: None, ..node("100", true) };
    let wanted = "its agent has said nothing for more than 11 minutes";
    assert_eq!(
        waiting(&["a"], &[("a", silent), ("b", never)]),
        [row("a", true, wanted), row("b", false, wanted)]
    );
}

#[test]
fn where_no_node_counts_nothing_is_enforced() {
    assert!(!target("1").progress(&BTreeMap::new(), NOW).is_enforced());
    let gone = [("gone".to_owned(), node("100", true))];
    assert!(!target("1").progress(&gone.into(), NOW).is_enforced(), "what a node said that has gone");
}

#[test]
fn versions_are_numbers_and_others_are_equal_or_not() {
    let enforced = |seen: &str, wanted: &str| {
        let target = Target { nodes: ["a".to_owned()].into(), ..target(wanted) };
        target.progress(&[("a".to_owned(), node(seen, true))].into(), NOW).is_enforced()
    };
    assert!(enforced("a1", "a1") && !enforced("a2", "a1") && !enforced("", "1") && !enforced("", ""));
    assert!(enforced("10", "9") && !enforced("9", "10"));
}
