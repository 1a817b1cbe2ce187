//! S35-S50: ports and protocols.

use crate::world::{Edit, check, check_policy, world};

fn ingress(ports: &str) -> String {
    format!("{{ingress: [{{ports: {ports}}}]}}")
}

fn egress(ports: &str) -> String {
    format!("{{policyTypes: [Egress], egress: [{{ports: {ports}}}]}}")
}

#[test]
fn s35_no_protocol_is_tcp() {
    check_policy(
        &ingress("[{port: 80}]"),
        &["x/a <- y/a TCP 80"],
        &["x/a <- y/a UDP 80", "x/a <- y/a SCTP 80"],
    );
}

#[test]
fn s36_an_empty_port_is_all_of_tcp() {
    let denied = ["x/a <- y/a UDP 1", "x/a <- y/a SCTP 1", "x/a <- y/a ICMP 0"];
    check_policy(&ingress("[{}]"), &["x/a <- y/a TCP 1", "x/a <- y/a TCP 65535"], &denied);
}

#[test]
fn s37_protocol_alone_is_all_its_ports() {
    for (protocol, other) in [("TCP", "UDP"), ("UDP", "SCTP"), ("SCTP", "TCP")] {
        let spec = ingress(&format!("[{{protocol: {protocol}}}]"));
        check_policy(&spec, &[&format!("x/a <- y/a {protocol} 7")], &[&format!("x/a <- y/a {other} 7")]);
    }
}

#[test]
fn s38_an_unknown_protocol_matches_nothing() {
    for protocol in ["ICMP", "tcp", "''", "'6'"] {
        let denied = ["x/a <- y/a TCP 80", "x/a <- y/a UDP 80", "x/a <- y/a ICMP 0"];
        check_policy(&ingress(&format!("[{{protocol: {protocol}}}]")), &[], &denied);
        let others = ingress(&format!("[{{protocol: {protocol}, port: 80}}, {{port: 81}}]"));
        check_policy(&others, &["x/a <- y/a TCP 81"], &denied);
    }
}

#[test]
fn s39_ports_are_1_to_65535() {
    check_policy(&ingress("[{port: 65535}, {port: 1}]"), &["x/a <- y/a TCP 65535", "x/a <- y/a TCP 1"], &[]);
    for port in ["0", "65536", "-1", "65616"] {
        check_policy(
            &ingress(&format!("[{{port: {port}}}]")),
            &[],
            &["x/a <- y/a TCP 80", "x/a <- y/a TCP 0"],
        );
    }
}

#[test]
fn s40_end_port_is_inclusive() {
    let spec = ingress("[{port: 80, endPort: 82}]");
    check_policy(
        &spec,
        &["x/a <- y/a TCP 80", "x/a <- y/a TCP 81", "x/a <- y/a TCP 82"],
        &["x/a <- y/a TCP 79", "x/a <- y/a TCP 83", "x/a <- y/a UDP 81"],
    );
    check_policy(&ingress("[{port: 80, endPort: 80}]"), &["x/a <- y/a TCP 80"], &["x/a <- y/a TCP 81"]);
    check_policy(&ingress("[{port: 1, endPort: 65535}]"), &["x/a <- y/a TCP 1", "x/a <- y/a TCP 65535"], &[]);
}

#[test]
fn s40_a_bad_range_matches_nothing() {
    let bad = [
        "{port: 80, endPort: 79}",
        "{endPort: 80}",
        "{port: web, endPort: 90}",
        "{port: 80, endPort: 65536}",
    ];
    for entry in bad {
        check_policy(&ingress(&format!("[{entry}]")), &[], &["x/a <- y/a TCP 80", "x/a <- y/a TCP 79"]);
        check_policy(
            &ingress(&format!("[{entry}, {{port: 81}}]")),
            &["x/a <- y/a TCP 81"],
            &["x/a <- y/a TCP 80"],
        );
    }
}

#[test]
fn s41_a_protocol_never_opens_another() {
    check_policy(&ingress("[{protocol: UDP, port: 80}]"), &["x/a <- y/a UDP 80"], &["x/a <- y/a TCP 80"]);
    check_policy(&ingress("[{protocol: SCTP, port: 80}]"), &["x/a <- y/a SCTP 80"], &["x/a <- y/a TCP 80"]);
}

#[test]
fn s42_an_unknown_name_allows_nothing() {
    for name in ["nobody", "WEB", "''", "'80'"] {
        check_policy(
            &ingress(&format!("[{{port: {name}}}]")),
            &[],
            &["x/a <- y/a TCP 80", "x/a <- y/a TCP 1"],
        );
        check_policy(
            &egress(&format!("[{{port: {name}}}]")),
            &[],
            &["x/a -> y/a TCP 81", "x/a -> y/b TCP 80"],
        );
    }
}

#[test]
fn s43_a_name_is_the_destinations() {
    check_policy(
        &ingress("[{port: web}]"),
        &["x/a <- y/a TCP 80", "x/b <- y/a TCP 8080"],
        &["x/a <- y/a TCP 81", "x/a <- y/a TCP 8080", "x/b <- y/a TCP 80"],
    );
    check_policy(
        &egress("[{port: web}]"),
        &["x/a -> y/a TCP 81", "x/a -> x/b TCP 8080"],
        &["x/a -> y/a TCP 80", "x/a -> x/b TCP 80", "x/a -> y/b TCP 80"],
    );
}

#[test]
fn s44_a_name_is_of_one_protocol() {
    check_policy(&ingress("[{port: dns, protocol: UDP}]"), &["x/a <- y/a UDP 53"], &["x/a <- y/a TCP 53"]);
    check_policy(&ingress("[{port: dns}]"), &[], &["x/a <- y/a UDP 53", "x/a <- y/a TCP 53"]);
}

#[test]
fn s45_a_name_without_to_is_of_every_namespace() {
    check_policy(
        &egress("[{port: web}]"),
        &["x/a -> y/a TCP 81", "x/a -> z/a TCP 80"],
        &["x/a -> z/a TCP 81"],
    );
}

#[test]
fn s46_a_name_is_of_no_address_outside() {
    let denied =
        ["192.0.2.1", "192.168.0.2", "192.168.0.1", "10.2.0.77"].map(|to| format!("x/a -> {to} TCP 80"));
    check_policy(&egress("[{port: web}]"), &[], &denied.each_ref().map(String::as_str));
    let block =
        "{policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: web}]}]}";
    check_policy(block, &["x/a -> y/a TCP 81"], &["x/a -> 192.0.2.1 TCP 80", "x/a -> 192.0.2.1 TCP 81"]);
}

/// x/s with `web` 81 in a plain init container, 82 in a sidecar, and what its containers say.
fn sidecars(containers: &str) -> String {
    format!(
        "{{metadata: {{namespace: x, name: s}}, spec: {{nodeName: n1, containers: [{containers}], initContainers: [
            {{name: i, ports: [{{name: web, containerPort: 81}}]}},
            {{name: s, restartPolicy: Always, ports: [{{name: web, containerPort: 82}}]}}]}},
          status: {{phase: Running, podIP: 10.1.0.9}}}}"
    )
}

#[test]
fn s47_sidecars_count_and_init_containers_do_not() {
    let world = world().pod(&sidecars("{name: c}")).policy(&ingress("[{port: web}]"));
    check(&world, &["x/s <- y/a TCP 82"], &["x/s <- y/a TCP 81"]);
}

#[test]
fn s47_the_first_container_gives_the_number() {
    let containers = "{name: u, ports: [{name: web, containerPort: 84, protocol: UDP}]},
        {name: c, ports: [{name: web, containerPort: 83}]}, {name: d, ports: [{name: web, containerPort: 84}]}";
    let world = world().pod(&sidecars(containers)).policy(&ingress("[{port: web}]"));
    check(&world, &["x/s <- y/a TCP 83"], &["x/s <- y/a TCP 82", "x/s <- y/a TCP 84", "x/s <- y/a UDP 84"]);
}

#[test]
fn s49_a_number_need_not_be_declared() {
    check_policy(&ingress("[{port: 4711}]"), &["x/a <- y/a TCP 4711"], &["x/a <- y/a TCP 80"]);
}

#[test]
fn s73_ports_are_of_no_other_protocol() {
    check_policy(&ingress("[{}, {protocol: UDP}]"), &["x/a <- y/a TCP 1"], &["x/a <- y/a ICMP 0"]);
    check_policy("{ingress: [{}]}", &["x/a <- y/a ICMP 0"], &[]);
}
