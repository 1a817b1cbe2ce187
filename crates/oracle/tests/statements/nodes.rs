//! S59-S64: the node, its network, and the pod itself.

use cellwall_policy::flow::Decision::{Allow, Deny};

use crate::world::{Edit, check, check_policy, decision, world};

const DENY_ALL: &str = "{policyTypes: [Ingress, Egress]}";

#[test]
fn s59_the_own_node_always_comes_in() {
    let from_node =
        ["x/a <- 192.168.0.1 TCP 80 node", "x/a <- 192.0.2.1 UDP 1 node", "x/a6 <- fe80::1 TCP 80 node"];
    // The address alone makes nothing the node's, and another node is not this one.
    check_policy(DENY_ALL, &from_node, &["x/a <- 192.168.0.1 TCP 80", "x/a <- 192.168.0.2 TCP 80"]);
}

#[test]
fn s60_host_network_pods_are_not_peers() {
    let selectors = "{ingress: [{from: [{namespaceSelector: {}}]}]}";
    check_policy(selectors, &["x/a <- z/a TCP 80"], &["x/a <- z/host TCP 80"]);
    check_policy("{ingress: [{from: [{ipBlock: {cidr: 192.168.0.2/32}}]}]}", &["x/a <- z/host TCP 80"], &[]);
    check_policy("{policyTypes: [Egress], egress: [{ports: [{port: web}]}]}", &[], &["x/a -> z/host TCP 80"]);
}

#[test]
fn s60_host_network_pods_are_not_subjects() {
    let host = "{metadata: {namespace: x, name: h}, spec: {nodeName: n1, hostNetwork: true, containers: []},
        status: {phase: Running, podIP: 192.168.0.1}}";
    check(
        &world().pod(host).policy(DENY_ALL),
        &["x/h <- y/a TCP 80", "x/h -> y/a TCP 80"],
        &["x/a -> x/h TCP 80"],
    );
}

#[test]
fn s61_a_selected_host_network_pod_does_not_open_its_node() {
    let world = world()
        .policy("{ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {pod: a}}}]}]}");
    check(&world, &["x/b <- y/a TCP 80"], &["x/b <- 192.168.0.2 TCP 80"]);
}

#[test]
fn s61_a_host_network_pod_in_a_pod_range_is_no_unknown_pod() {
    let host = "{metadata: {namespace: x, name: h}, spec: {nodeName: n2, hostNetwork: true, containers: []},
        status: {phase: Running, podIP: 10.2.0.77}}";
    let world = world().policy("{ingress: [{from: [{ipBlock: {cidr: 10.2.0.0/24}}]}]}");
    assert_eq!(decision(&world, "x/a <- 10.2.0.77 TCP 80"), Deny);
    assert_eq!(decision(&world.pod(host), "x/a <- 10.2.0.77 TCP 80"), Allow);
}

#[test]
fn s62_out_to_the_own_node_needs_a_rule() {
    check_policy(DENY_ALL, &[], &["x/a -> 192.168.0.1 TCP 80", "x/a -> 10.1.0.254 TCP 80"]);
    let spec = "{policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.168.0.1/32}}]}]}";
    check_policy(spec, &["x/a -> 192.168.0.1 TCP 80"], &["x/a -> 192.168.0.2 TCP 80"]);
}

#[test]
fn s64_a_pod_always_reaches_itself() {
    check_policy(
        DENY_ALL,
        &["x/a -> x/a TCP 80", "x/a <- x/a UDP 53", "x/a6 -> x/a6 ICMP 0"],
        &["x/a -> x/b TCP 80"],
    );
}
