//! S81-S88: which pod an address belongs to, and what is being deleted.

use cellwall_oracle::api::Namespace;

use crate::world::{Edit, check, world};

/// A pod of namespace y with the address 10.2.0.9, or another that `status` says.
fn pod(name: &str, metadata: &str, status: &str) -> String {
    format!(
        "{{metadata: {{namespace: y, name: {name}, labels: {{pod: {name}}}{metadata}}},
          spec: {{nodeName: n2, containers: []}}, status: {{podIP: 10.2.0.9, {status}}}}}"
    )
}

fn from(name: &str) -> String {
    format!(
        "{{ingress: [{{from: [{{namespaceSelector: {{}}, podSelector: {{matchLabels: {{pod: {name}}}}}}}]}}]}}"
    )
}

const FLOW: &str = "x/a <- 10.2.0.9 TCP 80";

/// Both orders of two claimants: the first one owns the address.
fn owner_is(winner: &str, loser: &str) {
    for pods in [[winner, loser], [loser, winner]] {
        let world = pods.iter().fold(world(), |world, pod| world.pod(pod));
        check(&world.clone().policy(&from("winner")), &[FLOW], &[]);
        check(&world.policy(&from("loser")), &[], &[FLOW]);
    }
}

#[test]
fn s81_ended_pods_have_no_address() {
    for phase in ["Succeeded", "Failed"] {
        let world = world().pod(&pod("ended", "", &format!("phase: {phase}"))).policy(&from("ended"));
        check(&world, &[], &[FLOW]);
        let ended = pod("loser", "", &format!("phase: {phase}"));
        owner_is(&pod("winner", "", "phase: Running"), &ended);
    }
}

#[test]
fn s81_an_ended_pod_is_no_subject() {
    let mut world = world().policy("{}");
    check(&world, &[], &["x/a <- y/a TCP 80"]);
    world.pods[0].status.as_mut().expect("x/a has a status").phase = Some("Failed".into());
    check(&world, &["x/a <- y/a TCP 80"], &[]);
}

#[test]
fn s82_the_address_is_the_new_owners() {
    const OLD: &str = ", creationTimestamp: '2026-01-01T00:00:00Z'";
    const NEW: &str = ", creationTimestamp: '2026-01-02T00:00:00Z'";
    const DELETING: &str =
        ", creationTimestamp: '2026-01-03T00:00:00Z', deletionTimestamp: '2026-01-03T00:00:00Z'";
    owner_is(&pod("winner", NEW, "phase: Running"), &pod("loser", OLD, "phase: Running"));
    owner_is(&pod("winner", OLD, "phase: Running"), &pod("loser", NEW, "phase: Pending"));
    owner_is(&pod("winner", OLD, "phase: Pending"), &pod("loser", DELETING, "phase: Running"));
    owner_is(&pod("winner", OLD, "phase: Running"), &pod("loser", "", "phase: Running"));
}

#[test]
fn s82_two_equal_claims_are_an_unknown_pod() {
    let world = world().pod(&pod("one", "", "phase: Running")).pod(&pod("two", "", "phase: Running"));
    check(&world.clone().policy(&from("one")), &[], &[FLOW]);
    check(&world.clone().policy(&from("two")), &[], &[FLOW]);
    check(&world.clone().policy("{ingress: [{from: [{ipBlock: {cidr: 10.2.0.0/24}}]}]}"), &[], &[FLOW]);
    check(&world.policy("{ingress: [{}]}"), &[FLOW], &[]);
}

#[test]
fn s82_the_subject_is_the_local_owner() {
    // The new owner of the address is on another node; what comes through the old one's interface is the old one's.
    let moved = pod("moved", ", creationTimestamp: '2026-01-02T00:00:00Z'", "phase: Running");
    let world = world().pod(&moved.replace("10.2.0.9", "10.1.0.1")).policy("{}");
    check(&world, &[], &["x/a <- y/b TCP 80"]);
}

#[test]
fn s83_a_pod_being_deleted_keeps_its_identity() {
    let deleting = pod("leaving", ", deletionTimestamp: '2026-01-03T00:00:00Z'", "phase: Running");
    check(&world().pod(&deleting).policy(&from("leaving")), &[FLOW], &["x/a <- y/a TCP 80"]);
    let local = deleting.replace("namespace: y", "namespace: x").replace("nodeName: n2", "nodeName: n1");
    check(&world().pod(&local).policy("{}"), &[], &["10.2.0.9 <- y/a TCP 80"]);
}

#[test]
fn s84_an_unknown_pod_is_nobodys_peer() {
    let address = "x/a <- 10.2.0.77 TCP 80";
    for peer in [
        "ipBlock: {cidr: 0.0.0.0/0}",
        "ipBlock: {cidr: 10.2.0.77/32}",
        "namespaceSelector: {}",
        "podSelector: {}",
    ] {
        check(&world().policy(&format!("{{ingress: [{{from: [{{{peer}}}]}}]}}")), &[], &[address]);
    }
    // No peer is asked for, or none isolates.
    check(&world().policy("{ingress: [{ports: [{port: 80}]}]}"), &[address], &[]);
    check(&world(), &[address], &[]);
}

#[test]
fn s84_ranges_come_from_the_settings_too_and_nodes_are_known() {
    let mut world = world().policy("{ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}");
    let flows = ["x/a <- 192.0.2.1 TCP 80", "x/a <- 10.1.0.254 TCP 80", "x/a <- 192.168.0.1 TCP 80"];
    check(&world, &flows, &[]);
    world.pod_cidrs = vec!["192.0.0.0/8".parse().expect("a range")];
    check(&world, &flows[1..], &flows[..1]);
}

#[test]
fn s84_the_network_address_of_a_range_is_its_nodes() {
    let blocks = world().policy("{ingress: [{from: [{ipBlock: {cidr: 10.2.0.0/16}}]}]}");
    check(&blocks, &["x/a <- 10.2.0.0 TCP 80"], &["x/a <- 10.2.0.77 TCP 80", "x/a <- 10.2.0.255 TCP 80"]);
    let pods = world().policy("{ingress: [{from: [{namespaceSelector: {}}]}]}");
    check(&pods, &[], &["x/a <- 10.2.0.0 TCP 80"]);
    let first = "{metadata: {namespace: y, name: first}, spec: {nodeName: n2, containers: []},
        status: {phase: Running, podIP: 10.2.0.0}}";
    check(&pods.pod(first), &["x/a <- 10.2.0.0 TCP 80"], &[]);
}

#[test]
fn s84_a_pod_becomes_a_peer_with_its_address() {
    let world = world().policy("{ingress: [{from: [{podSelector: {matchLabels: {pod: new}}}]}]}");
    check(&world, &[], &["x/a <- 10.1.0.8 TCP 80"]);
    let new =
        "{metadata: {namespace: x, name: new, labels: {pod: new}}, spec: {nodeName: n1, containers: []},
        status: {phase: Pending, podIP: 10.1.0.8}}";
    check(&world.pod(new), &["x/a <- x/new TCP 80"], &[]);
}

#[test]
fn s85_all_addresses_are_the_pods() {
    let world =
        world().policy("{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {}}]}]}");
    check(
        &world,
        &["x/a <- x/b TCP 80", "x/a6 <- x/b6 TCP 80"],
        &["x/a <- y/a TCP 80", "x/a6 <- y/a6 TCP 80"],
    );
}

#[test]
fn s86_the_old_address_is_no_longer_the_pods() {
    let mut world = world().policy("{ingress: [{from: [{podSelector: {}}]}]}");
    check(&world, &["x/a <- 10.1.0.2 TCP 80"], &[]);
    let status = world.pods[1].status.as_mut().expect("x/b has a status");
    (status.pod_ip, status.pod_ips) = (Some("10.1.0.5".into()), None);
    check(&world, &["x/a <- 10.1.0.5 TCP 80"], &["x/a <- 10.1.0.2 TCP 80"]);
}

#[test]
fn s82_the_address_of_a_deleted_pod_is_nobodys() {
    check(
        &world().no_pod("y/a").policy("{ingress: [{from: [{namespaceSelector: {}}]}]}"),
        &[],
        &["x/a <- 10.2.0.1 TCP 80"],
    );
}

#[test]
fn s88_a_namespace_that_is_being_deleted_keeps_its_policies() {
    let mut world = world().policy("{ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}]}]}");
    let deleted = "{metadata: {name: m, deletionTimestamp: '2026-01-03T00:00:00Z'}}";
    let stamp: Namespace = serde_saphyr::from_str(deleted).expect("the namespace parses");
    for namespace in &mut world.namespaces {
        namespace.metadata.deletion_timestamp.clone_from(&stamp.metadata.deletion_timestamp);
    }
    check(&world, &["x/a <- y/a TCP 80"], &["x/a <- z/a TCP 80"]);
}
