//! S51-S58: ipBlock.

use crate::world::{Edit, check, check_policy, world};

fn ingress(block: &str) -> String {
    format!("{{ingress: [{{from: [{{ipBlock: {block}}}]}}]}}")
}

fn from(address: &str) -> String {
    format!("x/a <- {address} TCP 80")
}

fn from6(address: &str) -> String {
    format!("x/a6 <- {address} TCP 80")
}

#[test]
fn s51_except_is_not_included() {
    let spec = ingress("{cidr: 192.0.2.0/24, except: [192.0.2.64/26, 192.0.2.96/27, 192.0.2.200/32]}");
    let allowed =
        ["192.0.2.0", "192.0.2.63", "192.0.2.128", "192.0.2.199", "192.0.2.201", "192.0.2.255"].map(from);
    let denied = ["192.0.1.255", "192.0.2.64", "192.0.2.127", "192.0.2.200", "192.0.3.0"].map(from);
    check_policy(&spec, &allowed.each_ref().map(String::as_str), &denied.each_ref().map(String::as_str));
}

#[test]
fn s51_another_peer_or_policy_may_allow_what_is_excepted() {
    let peers = "{ingress: [{from: [
        {ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.64/26]}}, {ipBlock: {cidr: 192.0.2.64/32}}]}]}";
    check_policy(peers, &[&from("192.0.2.64")], &[&from("192.0.2.65")]);
    let world = world()
        .policy(&ingress("{cidr: 192.0.2.0/24, except: [192.0.2.64/26]}"))
        .policy(&ingress("{cidr: 192.0.2.64/32}"));
    check(&world, &[&from("192.0.2.64")], &[&from("192.0.2.65")]);
}

#[test]
fn s52_except_elsewhere_is_ignored_and_one_that_covers_leaves_nothing() {
    for except in ["198.51.100.0/24", "'fd99::/64'", "'::/0'"] {
        check_policy(
            &ingress(&format!("{{cidr: 192.0.2.0/24, except: [{except}]}}")),
            &[&from("192.0.2.1")],
            &[],
        );
    }
    for except in ["192.0.2.0/24", "192.0.0.0/16"] {
        check_policy(
            &ingress(&format!("{{cidr: 192.0.2.0/24, except: [{except}]}}")),
            &[],
            &[&from("192.0.2.1")],
        );
    }
}

#[test]
fn s52_an_except_that_does_not_parse_leaves_nothing() {
    for except in ["192.0.2.300/32", "192.0.2.1", "''", "192.0.2.0/33"] {
        let spec = ingress(&format!("{{cidr: 192.0.2.0/24, except: [192.0.2.64/26, {except}]}}"));
        check_policy(&spec, &[], &[&from("192.0.2.1"), &from("192.0.2.64")]);
    }
}

#[test]
fn s53_a_block_covers_pods() {
    check_policy(&ingress("{cidr: 10.2.0.1/32}"), &["x/a <- y/a TCP 80"], &["x/a <- y/b TCP 80"]);
    let out =
        "{policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.2.0.0/24, except: [10.2.0.2/32]}}]}]}";
    check_policy(out, &["x/a -> y/a TCP 80"], &["x/a -> y/b TCP 80"]);
}

#[test]
fn s56_a_block_is_of_one_family() {
    check_policy(&ingress("{cidr: 0.0.0.0/0}"), &[&from("192.0.2.1")], &[&from6("fd99::1")]);
    check_policy(&ingress("{cidr: '::/0'}"), &[&from6("fd99::1")], &[&from("192.0.2.1")]);
}

#[test]
fn s57_old_spellings_are_read() {
    let same =
        ["192.0.2.0/24", "192.000.002.000/24", "192.0.2.7/24", "192.0.2.0/024", "'::ffff:192.0.2.0/120'"];
    for cidr in same {
        let spec = ingress(&format!("{{cidr: {cidr}}}"));
        check_policy(&spec, &[&from("192.0.2.255")], &[&from("192.0.3.0"), &from("128.0.2.1")]);
    }
    // Leading zeros are decimal: 010 is ten.
    check_policy(&ingress("{cidr: 192.0.010.0/24}"), &[&from("192.0.10.1")], &[&from("192.0.8.1")]);
    check_policy(&ingress("{cidr: 'fd99::7/64'}"), &[&from6("fd99::1")], &[&from6("fd99:0:0:1::1")]);
    // Also in an except.
    let except = ingress("{cidr: 192.0.2.0/24, except: [192.0.2.067/26]}");
    check_policy(&except, &[&from("192.0.2.1")], &[&from("192.0.2.64"), &from("192.0.2.127")]);
}

#[test]
fn s57_what_is_no_block_matches_nothing() {
    for cidr in [
        "192.0.2.0",
        "192.0.2.0/33",
        "192.0.2/24",
        "192.0.2.0/-1",
        "' 192.0.2.0/24'",
        "''",
        "any",
        "0x0.0.0.0/0",
    ] {
        check_policy(&ingress(&format!("{{cidr: {cidr}}}")), &[], &[&from("192.0.2.1")]);
    }
    check_policy(&ingress("{cidr: '::/129'}"), &[], &[&from6("fd99::1")]);
}

#[test]
fn s58_the_longest_and_the_shortest() {
    check_policy(
        &ingress("{cidr: 192.0.2.1/32}"),
        &[&from("192.0.2.1")],
        &[&from("192.0.2.0"), &from("192.0.2.2")],
    );
    check_policy(
        &ingress("{cidr: 'fd99::1/128'}"),
        &[&from6("fd99::1")],
        &[&from6("fd99::"), &from6("fd99::2")],
    );
    check_policy(&ingress("{cidr: 0.0.0.0/0}"), &[&from("192.0.2.1"), "x/a <- y/a UDP 7"], &[]);
}
