//! What an object is that is left out because there is no room: nothing is open because of it.

use std::net::IpAddr;

use cellwall_abi::{SERVICE_TOO_MANY, SERVICE_TUNNEL};
use cellwall_policy::compile::{Compiled, Compiler, LeftOut};
use cellwall_policy::flow::{Direction, Protocol};
use cellwall_policy::model::{
    Action, Change, Cluster, EndpointSlice, HostPort, ObjectKey, Peer, Pod, Policy, PolicyKind, Rule,
    Service, ServicePort, Tier, Touched,
};
use cellwall_policy::model::{BackendPort, Kind, Node};
use cellwall_policy::plan::{Capacities, Refusal, plan};
use cellwall_policy::wanted::Observed;
use cellwall_testkit::frame::Frame;
use cellwall_testkit::memory::{Memory, after};

use crate::world::{NAMESPACE, allow, block, cluster, pod, pods, policy, tell};

const NODE: &str = "192.168.0.1";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn without(cluster: &Cluster, keys: &[ObjectKey]) -> Compiled {
    let left_out: LeftOut = keys.iter().map(|key| (key.clone(), "there is no room".to_owned())).collect();
    Compiler::new([1, 2]).compile_without(cluster, &Touched::default(), &left_out)
}

fn policy_key(name: &str) -> ObjectKey {
    ObjectKey::namespaced(Kind::NetworkPolicy, NAMESPACE, name)
}

/// What becomes of the first packet of a connection of pod0 with `remote`.
fn passes(compiled: &Compiled, direction: Direction, remote: &str, port: u16) -> bool {
    let ops = plan(&compiled.wanted, &Observed::default(), &Capacities::default(), 1).expect("there is room");
    let memory = Memory::new(after(&Observed::default(), &ops));
    let flow = cellwall_policy::flow::Flow {
        local: ip("10.1.0.1"),
        direction,
        remote: ip(remote),
        from_own_node: false,
        protocol: Protocol::TCP,
        port,
    };
    cellwall_verdict::process(&Frame::opening(&flow, 1), &memory, direction).passes()
}

/// Isolates egress, but for these rules.
fn egress(name: &str, rules: Vec<Rule>) -> Change {
    let Change::Policy(policy, _) = policy(name, Some("pod0"), rules) else { unreachable!("it is one") };
    let Policy { rules: [rules, _], .. } = policy.clone();
    Change::Policy(Policy { isolates: [false, true], rules: [Vec::new(), rules], ..policy }, Vec::new())
}

#[test]
fn of_a_policy_the_rules_are_left_out_and_not_what_it_isolates() {
    let mut cluster = cluster(2);
    tell(
        &mut cluster,
        policy("large", Some("pod0"), vec![allow(Some(vec![block("192.0.2.0/24", &[])]), &[])]),
    );
    let large = policy_key("large");
    assert!(passes(&without(&cluster, &[]), Direction::Ingress, "192.0.2.1", 80));
    let closed = without(&cluster, std::slice::from_ref(&large));
    assert!(!passes(&closed, Direction::Ingress, "192.0.2.1", 80));
    assert!(passes(&closed, Direction::Egress, "192.0.2.1", 80), "it does not isolate this direction");
    let problem = closed.problems.iter().find(|problem| problem.object == large).expect("it is said");
    assert!(problem.message.contains("there is no room"), "{problem}");
    tell(&mut cluster, policy("other", Some("pod0"), vec![allow(Some(vec![pods("pod1")]), &[])]));
    assert!(passes(&without(&cluster, &[large]), Direction::Ingress, "10.1.0.2", 80), "others still allow");
}

#[test]
fn what_denies_in_part_denies_whole() {
    for action in [Action::Deny, Action::Pass, Action::Accept] {
        let mut cluster = cluster(1);
        let block = |cidr| Some(vec![block(cidr, &[])]);
        let rules = vec![
            Rule { action, ..allow(block("198.51.100.0/24"), &[]) },
            Rule { index: 1, ..allow(block("192.0.2.0/24"), &[]) },
        ];
        let Change::Policy(policy, _) = policy("admin", None, rules) else { unreachable!("it is one") };
        let kind = PolicyKind::ClusterNetworkPolicy;
        let policy = Policy { kind, tier: Tier::Admin, isolates: [false; 2], ..policy };
        let key = policy.key.clone();
        tell(&mut cluster, Change::Policy(policy, Vec::new()));
        assert!(passes(&without(&cluster, &[]), Direction::Ingress, "192.0.2.1", 80));
        let is_open = passes(&without(&cluster, &[key]), Direction::Ingress, "192.0.2.1", 80);
        assert_eq!(is_open, action == Action::Accept, "{action:?}");
    }
}

fn service() -> Service {
    let port = |number: u16| ServicePort {
        name: format!("p{number}"),
        protocol: Protocol::UDP,
        number,
        node_port: (number == 81).then_some(30081),
    };
    Service {
        namespace: NAMESPACE.to_owned(),
        name: "wide".to_owned(),
        cluster_addresses: vec![ip("10.96.0.1")],
        external_addresses: vec![ip("192.0.2.7")],
        ports: vec![port(80), port(81)],
        other_proxy: false,
    }
}

fn slice(port: &str, address: &str, number: u16) -> Change {
    Change::EndpointSlice(EndpointSlice {
        namespace: NAMESPACE.to_owned(),
        name: port.to_owned(),
        service: "wide".to_owned(),
        addresses: vec![ip(address)],
        ports: vec![BackendPort { name: port.to_owned(), protocol: Protocol::UDP, number }],
    })
}

/// pod0, isolated but for two blocks, and pod1, whom nothing isolates; a Service on this node.
fn with_service() -> Cluster {
    let mut cluster = cluster(2);
    let node =
        Node { name: "here".to_owned(), labels: [].into(), addresses: vec![ip(NODE)], pod_cidrs: Vec::new() };
    tell(&mut cluster, Change::Node(node));
    tell(&mut cluster, Change::NodeAddresses(vec![ip(NODE), ip("127.0.0.1")]));
    let blocks = ["10.96.0.0/16", "192.0.0.0/8"].map(|cidr| block(cidr, &[]));
    tell(&mut cluster, egress("some", vec![allow(Some(blocks.into()), &[])]));
    tell(&mut cluster, Change::Service(service()));
    tell(&mut cluster, slice("p80", "10.2.0.3", 8080));
    tell(&mut cluster, slice("p81", "10.2.0.3", 8080));
    cluster
}

/// Backends that nobody has judged are behind its addresses, whatever policy says of those.
#[test]
fn nothing_is_reached_at_the_addresses_of_a_service_that_is_left_out() {
    let cluster = with_service();
    let compiled = without(&cluster, &[service().key()]);
    assert!(compiled.wanted.services.is_empty());
    for address in ["10.96.0.1", "192.0.2.7", NODE] {
        assert!(
            passes(&without(&cluster, &[]), Direction::Egress, address, 80),
            "{address}: deferred, or allowed"
        );
        assert!(!passes(&compiled, Direction::Egress, address, 80), "{address}");
    }
    for address in ["10.96.0.2", "192.0.2.8"] {
        assert!(passes(&compiled, Direction::Egress, address, 80), "{address} is another's");
    }
    assert_eq!(compiled.endpoints[&2].isolated, [false, false], "who is not isolated is not");
    assert!(
        compiled.problems.iter().any(|problem| problem.object == service().key()),
        "{:?}",
        compiled.problems
    );
}

#[test]
fn what_another_service_says_of_the_same_address_is_not_all() {
    let mut cluster = with_service();
    let other = Service { name: "a-small-one".to_owned(), external_addresses: Vec::new(), ..service() };
    tell(&mut cluster, Change::Service(other));
    let services = without(&cluster, &[service().key()]).wanted.services;
    assert!(!services.is_empty());
    assert!(services.values().all(|record| record.flags & SERVICE_TOO_MANY != 0), "{services:?}");
}

/// A tunnel is kept from pods that nothing isolates, too.
#[test]
fn where_a_service_leads_to_a_tunnel_stays_known() {
    let mut cluster = with_service();
    tell(&mut cluster, slice("p80", NODE, 8472));
    let services = without(&cluster, &[service().key()]).wanted.services;
    let ports: Vec<u16> = services.keys().map(|key| key.port).collect();
    assert_eq!(ports, [80, 80], "at its two addresses");
    assert!(services.values().all(|record| record.flags & SERVICE_TUNNEL != 0), "{services:?}");
}

#[test]
fn host_ports_of_a_pod_are_left_out_as_services_are() {
    let mut cluster = with_service();
    let port = HostPort { address: None, number: 8080, protocol: Protocol::TCP };
    let host = Pod { host_ports: vec![port], ..pod("pod1", 1) };
    tell(&mut cluster, Change::Pod(host.clone()));
    assert!(passes(&without(&cluster, &[]), Direction::Egress, NODE, 22));
    assert!(!passes(&without(&cluster, &[host.key()]), Direction::Egress, NODE, 22));
}

/// Of the namespace that asks for most the largest goes first, and only as many as must.
#[test]
fn who_is_left_out_is_of_the_namespace_that_asks_for_most() {
    let mut cluster = cluster(1);
    let named = |namespace: &str, name: &str, n: u8, ports: u16| {
        let port =
            |number| ServicePort { name: String::new(), protocol: Protocol::TCP, number, node_port: None };
        Change::Service(Service {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            cluster_addresses: vec![ip(&format!("10.96.0.{n}"))],
            external_addresses: Vec::new(),
            ports: (1..=ports).map(port).collect(),
            other_proxy: false,
        })
    };
    tell(&mut cluster, named("innocent", "largest", 1, 30));
    for n in 0..20 {
        tell(&mut cluster, named("greedy", &format!("s{n:02}"), 2 + n, if n == 7 { 6 } else { 5 }));
    }
    let room = Capacities { services: 120, ..Capacities::default() };
    let wanted = without(&cluster, &[]).wanted;
    let Refusal { leave_out, wanted: rows, .. } =
        plan(&wanted, &Observed::default(), &room, 1).expect_err("131 rows");
    assert_eq!(rows, 131);
    let names: Vec<String> = leave_out.iter().map(|(key, rows)| format!("{key} {rows}")).collect();
    assert_eq!(names, ["Service greedy/s07 6", "Service greedy/s00 5"]);
    let keys: Vec<ObjectKey> = leave_out.into_iter().map(|(key, _)| key).collect();
    assert!(plan(&without(&cluster, &keys).wanted, &Observed::default(), &room, 1).is_ok());
}

/// What stands in the tables leaves after the flip: whoever comes waits for that, not whoever is there.
#[test]
fn what_comes_waits_for_what_leaves() {
    let blocks =
        |second: u8| (0..40).map(|n| block(&format!("192.{second}.0.{n}/32"), &[])).collect::<Vec<Peer>>();
    let mut cluster = cluster(1);
    let stays = |peers| policy("stays", Some("pod0"), vec![allow(Some(peers), &[])]);
    let comes = |peers| policy("comes", Some("pod0"), vec![allow(Some(peers), &[])]);
    tell(&mut cluster, stays(blocks(1)));
    tell(&mut cluster, comes(blocks(2)));
    let room = Capacities { prefixes: 100, ..Capacities::default() };
    let wanted = without(&cluster, &[]).wanted;
    let observed =
        after(&Observed::default(), &plan(&wanted, &Observed::default(), &room, 1).expect("80 rows"));
    tell(&mut cluster, comes(blocks(3)));
    let wanted = without(&cluster, &[]).wanted;
    let refusal = plan(&wanted, &observed, &room, 1).expect_err("120 rows until 40 have left");
    assert_eq!(refusal.leave_out, [(policy_key("comes"), 40)]);
}
