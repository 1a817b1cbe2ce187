//! S30-S34: rules, nil and empty.

use crate::world::{Edit, check, check_policy, world};

#[test]
fn s30_no_rule_allows_nothing_and_an_empty_rule_everything() {
    let flows =
        ["x/a <- y/a TCP 80", "x/a <- 192.0.2.1 ICMP 0", "x/a6 <- fd99::1 SCTP 9", "x/a <- 10.2.0.77 UDP 53"];
    check_policy("{policyTypes: [Ingress], ingress: []}", &[], &flows);
    check_policy("{policyTypes: [Ingress]}", &[], &flows);
    check_policy("{policyTypes: [Ingress], ingress: [{}]}", &flows, &[]);
}

#[test]
fn s31_from_missing_is_any_source() {
    for from in ["", "from: [], "] {
        let spec = format!("{{ingress: [{{{from}ports: [{{port: 80}}]}}]}}");
        let any = ["y/a", "x/b", "192.0.2.1", "192.168.0.2", "10.2.0.77"]
            .map(|peer| format!("x/a <- {peer} TCP 80"));
        check_policy(&spec, &any.each_ref().map(String::as_str), &["x/a <- y/a TCP 81"]);
    }
    check_policy(
        "{ingress: [{from: [{podSelector: {}}]}]}",
        &["x/a <- x/b TCP 80"],
        &["x/a <- 192.0.2.1 TCP 80"],
    );
}

#[test]
fn s31_to_missing_is_any_destination() {
    for to in ["", "to: [], "] {
        let spec = format!("{{policyTypes: [Egress], egress: [{{{to}ports: [{{port: 80}}]}}]}}");
        check_policy(&spec, &["x/a -> y/a TCP 80", "x/a -> 192.0.2.1 TCP 80"], &["x/a -> y/a TCP 81"]);
    }
}

#[test]
fn s32_ports_missing_is_any_port_of_any_protocol() {
    for ports in ["", ", ports: []"] {
        let spec = format!("{{ingress: [{{from: [{{podSelector: {{}}}}]{ports}}}]}}");
        let allowed = ["x/a <- x/b TCP 1", "x/a <- x/b UDP 65535", "x/a <- x/b SCTP 9", "x/a <- x/b ICMP 0"];
        check_policy(&spec, &allowed, &["x/a <- y/a TCP 1", "x/a <- y/a ICMP 0"]);
    }
}

#[test]
fn s33_peer_and_port_of_one_rule() {
    let spec = "{ingress: [
        {from: [{podSelector: {}}], ports: [{port: 80}]},
        {from: [{namespaceSelector: {matchLabels: {ns: y}}}], ports: [{port: 81}]}]}";
    check_policy(
        spec,
        &["x/a <- x/b TCP 80", "x/a <- y/a TCP 81"],
        &["x/a <- x/b TCP 81", "x/a <- y/a TCP 80", "x/a <- z/a TCP 80"],
    );
}

#[test]
fn s34_a_peer_of_nothing_or_of_two_things_matches_nothing() {
    check_policy("{ingress: [{from: [{}]}]}", &[], &["x/a <- x/b TCP 80", "x/a <- 192.0.2.1 TCP 80"]);
    for selector in ["podSelector", "namespaceSelector"] {
        let spec = format!("{{ingress: [{{from: [{{ipBlock: {{cidr: 0.0.0.0/0}}, {selector}: {{}}}}]}}]}}");
        check_policy(&spec, &[], &["x/a <- x/b TCP 80", "x/a <- 192.0.2.1 TCP 80"]);
    }
    // The other peers of the rule still count.
    let world = world().policy("{ingress: [{from: [{}, {podSelector: {}}]}]}");
    check(&world, &["x/a <- x/b TCP 80"], &["x/a <- y/a TCP 80"]);
}
