//! S1-S7, S65, S68, S74: isolation, union, direction.

use crate::world::{Edit, check, check_policy, rule, world};

#[test]
fn s1_no_policy_allows_all() {
    check(
        &world(),
        &["x/a <- y/a TCP 80", "x/a -> y/a UDP 1", "x/a6 <- fd99::1 SCTP 9", "x/a <- 192.0.2.1 ICMP 0"],
        &[],
    );
}

#[test]
fn s2_a_selecting_policy_isolates() {
    let spec = "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]}";
    check_policy(
        spec,
        &["x/b <- y/a TCP 80"],
        &["x/a <- y/a TCP 80", "x/a6 <- y/a6 TCP 80", "x/a <- x/b ICMP 0"],
    );
}

#[test]
fn s3_directions_are_independent() {
    check_policy("{policyTypes: [Egress]}", &["x/a <- y/a TCP 80"], &["x/a -> y/a TCP 80"]);
    check_policy("{policyTypes: [Ingress]}", &["x/a -> y/a TCP 80"], &["x/a <- y/a TCP 80"]);
}

#[test]
fn s4_policies_are_a_union() {
    let specs = ["{ingress: [{ports: [{port: 80}]}]}", "{ingress: [{ports: [{port: 81}]}]}", "{}"];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let world = order.iter().fold(world(), |world, &i| world.policy(specs[i]));
        check(&world, &["x/a <- y/a TCP 80", "x/a <- y/a TCP 81"], &["x/a <- y/a TCP 82"]);
    }
}

#[test]
fn s4_the_ruling_names_policies_and_rules() {
    let world = world()
        .policy("{ingress: [{ports: [{port: 81}]}, {ports: [{port: 80}]}]}")
        .policy("{}")
        .policy("{ingress: [{}]}");
    let ruling = rule(&world, "x/a <- y/a TCP 80");
    assert_eq!(ruling.isolated_by, [("x", "p0"), ("x", "p1"), ("x", "p2")]);
    assert_eq!(ruling.allowed_by, [("x", "p0", 1), ("x", "p2", 0)]);
    assert_eq!(ruling.decided_by, Some(("x", "p0", 1)));
    // Whoever stands first in the list of objects: names are in order.
    let mut turned = world.clone();
    turned.policies.reverse();
    assert_eq!(rule(&turned, "x/a <- y/a TCP 80").decided_by, Some(("x", "p0", 1)));
    // Nobody decides what no policy can forbid, nor what no rule allows.
    assert_eq!(rule(&world, "x/a <- x/a TCP 80").decided_by, None);
    let denied = crate::world::world().policy("{ingress: [{ports: [{port: 81}]}]}");
    assert_eq!(rule(&denied, "x/a <- y/a TCP 80").decided_by, None);
}

#[test]
fn s5_both_ends_must_allow() {
    let world = world().policy("{policyTypes: [Egress]}").policy_in("z", "{ingress: [{}]}");
    check(&world, &["z/a <- x/a TCP 80"], &["x/a -> z/a TCP 80"]);
}

#[test]
fn s6_subjects_are_of_the_policy_namespace() {
    check(&world().policy("{podSelector: {}}"), &["z/a <- x/a TCP 80"], &["x/a <- z/a TCP 80"]);
}

#[test]
fn s7_without_the_policy_all_is_allowed_again() {
    let mut world = world().policy("{}");
    check(&world, &[], &["x/a <- y/a TCP 80"]);
    world.policies.clear();
    check(&world, &["x/a <- y/a TCP 80"], &[]);
}

#[test]
fn s65_a_flow_without_a_pod_is_nobodys() {
    // y/a is on another node: its flows are not this node's to judge.
    check(&world().policy_in("y", "{}"), &["y/a <- x/a TCP 80", "192.0.2.9 <- x/a TCP 80"], &[]);
}

#[test]
fn s68_what_may_go_out_may_not_therefore_come_in() {
    let spec = "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress],
        egress: [{to: [{namespaceSelector: {matchLabels: {ns: z}}}]}]}";
    check_policy(spec, &["x/a -> z/a TCP 80", "z/a <- x/a TCP 80"], &["x/a <- z/a TCP 80"]);
}

#[test]
fn s74_nothing_is_nothing_of_every_protocol() {
    for protocol in ["TCP", "UDP", "SCTP"] {
        for flow in ["x/a <- y/a", "x/a -> y/a", "x/a6 <- fd99::1", "x/a -> 192.0.2.1"] {
            check_policy("{policyTypes: [Ingress, Egress]}", &[], &[&format!("{flow} {protocol} 80")]);
        }
    }
}
