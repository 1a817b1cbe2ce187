//! S8-S16: policyTypes and what is filled in.

use crate::world::{Edit, check, check_policy, world};

const IN: &str = "x/a <- y/a TCP 80";
const OUT: &str = "x/a -> y/a TCP 80";

#[test]
fn s8_egress_rules_make_it_an_egress_policy_too() {
    for types in ["", "policyTypes: [], "] {
        check_policy(&format!("{{{types}egress: [{{ports: [{{port: 81}}]}}]}}"), &[], &[IN, OUT]);
        check_policy(&format!("{{{types}ingress: [{{}}]}}"), &[IN, OUT], &[]);
    }
}

#[test]
fn s9_an_empty_egress_section_does_not_isolate() {
    check_policy("{egress: []}", &[OUT], &[IN]);
}

#[test]
fn s10_no_ingress_section_denies_ingress() {
    check_policy("{egress: [{}]}", &[OUT], &[IN]);
    check_policy("{podSelector: {}}", &[OUT], &[IN]);
}

#[test]
fn s11_ingress_section_of_an_egress_policy_is_inert() {
    check_policy("{policyTypes: [Egress], ingress: [{ports: [{port: 81}]}]}", &[IN], &[OUT]);
}

#[test]
fn s12_egress_section_of_an_ingress_policy_is_inert() {
    check_policy("{policyTypes: [Ingress], egress: [{ports: [{port: 81}]}]}", &[OUT], &[IN]);
}

#[test]
fn s13_both_types_and_no_section_deny_all() {
    check_policy(
        "{policyTypes: [Ingress, Egress]}",
        &[],
        &[IN, OUT, "x/a6 -> y/a6 UDP 1", "x/a <- 192.0.2.1 TCP 80"],
    );
}

#[test]
fn s14_types_are_a_set() {
    check_policy("{policyTypes: [Ingress, Ingress]}", &[OUT], &[IN]);
    // A word that nobody knows may mean either: the policy isolates no less.
    check_policy("{policyTypes: [Egress, Both]}", &[], &[IN, OUT]);
    check_policy("{policyTypes: [ingress]}", &[], &[IN, OUT]);
}

#[test]
fn s15_manifests_are_defaulted() {
    let mut world = world().policy("{ingress: [{ports: [{port: 80}]}]}");
    check(&world, &[IN, OUT], &["x/a <- y/a UDP 80"]);
    // Served objects carry the same values and mean the same.
    world.policies.clear();
    let served = world.policy("{policyTypes: [Ingress], ingress: [{ports: [{port: 80, protocol: TCP}]}]}");
    check(&served, &[IN, OUT], &["x/a <- y/a UDP 80"]);
}

#[test]
fn s15_no_namespace_is_default() {
    let mut world = world().policy_in("default", "{}");
    world.pods[0].metadata.namespace = None;
    world.policies[0].metadata.namespace = None;
    check(&world, &[], &["10.1.0.1 <- y/a TCP 80"]);
}

#[test]
fn s16_empty_or_missing_pod_selector_selects_all() {
    for spec in ["{podSelector: {}}", "{policyTypes: [Ingress]}", "{}", "null"] {
        check_policy(spec, &["z/a <- y/a TCP 80"], &[IN, "x/b <- y/a TCP 80"]);
    }
}
