//! Tables that are too small for what is asked.

use std::net::IpAddr;

use cellwall_agent::node::Node;
use cellwall_agent::run::Input;
use cellwall_policy::flow::Protocol;
use cellwall_policy::model::{Change, Service, ServicePort};
use cellwall_policy::plan::Capacities;

use crate::condition;
use crate::fake::FakeKernel;
use crate::objects::{address, ifindex, link, listed, node_with, now, pod, policy, policy_key};

/// A node with room for this, where pod 1 is isolated.
fn isolated(capacities: Capacities) -> Node<FakeKernel> {
    let mut node = node_with(FakeKernel::default(), capacities);
    listed(&mut node);
    take(&mut node, [pod(1), link(1), policy("small", 80, 3)]);
    assert!(node.snapshot(now()).status.ready);
    node
}

/// Takes what arrives and does what follows, as the loop does: again as long as that is due.
fn take(node: &mut Node<FakeKernel>, inputs: impl IntoIterator<Item = Input>) {
    for input in inputs {
        node.take(input, now());
    }
    node.converge(now());
    for _ in 0..3 {
        if node.next_try().is_some_and(|at| at <= now()) {
            node.converge(now());
        }
    }
}

fn gone(name: &str) -> Input {
    Input::Change(Change::Gone(policy_key(name)))
}

fn service(name: &str, address: IpAddr, ports: u16) -> Input {
    let port =
        |number| ServicePort { name: format!("p{number}"), protocol: Protocol::TCP, number, node_port: None };
    Input::Change(Change::Service(Service {
        namespace: "tenant".to_owned(),
        name: name.to_owned(),
        cluster_addresses: vec![address],
        external_addresses: Vec::new(),
        ports: (1..=ports).map(port).collect(),
        other_proxy: false,
    }))
}

/// What is said about objects.
fn problems(node: &mut Node<FakeKernel>) -> Vec<String> {
    let problems = node.snapshot(now()).status.problems.clone();
    problems
        .into_iter()
        .map(|p| format!("{}: {}", p.object.map(|o| o.name).unwrap_or_default(), p.message))
        .collect()
}

/// The images of the record in force of an interface.
fn images(node: &mut Node<FakeKernel>, n: u8) -> [u32; 2] {
    let tables = &node.kernel().tables;
    let slot = tables.endpoints[&ifindex(n)];
    tables.records[&(slot, tables.live.bank())].image
}

/// A policy that does not fit does no harm to others, and is in force once there is room.
#[test]
fn what_does_not_fit_is_left_out_and_named_and_the_rest_is_enforced() {
    let mut node = isolated(Capacities { prefixes: 20, ..Capacities::default() });
    let rows = node.kernel().tables.prefixes.len();
    take(&mut node, [policy("huge", 81, 200), policy("more", 82, 5), pod(2), link(2)]);
    assert!(node.snapshot(now()).status.ready);
    assert_eq!(node.kernel().hooks.len(), 2, "and pods that come are enforced");
    assert_eq!(
        node.kernel().tables.prefixes.len(),
        rows + 2,
        "the blocks of one are among those of the other"
    );
    let said = problems(&mut node);
    let of_huge = |said: &String| {
        said.starts_with("huge: table PREFIXES4 has room for 20 rows and 200 are wanted")
            && said.contains("--capacity-prefixes 200 ")
    };
    assert!(said.len() == 1 && said.iter().all(of_huge), "{said:?}");
    take(&mut node, [policy("huge", 81, 4)]);
    assert_eq!(problems(&mut node), [] as [String; 0]);
    take(&mut node, [policy("huge", 81, 200), gone("huge")]);
    assert_eq!(problems(&mut node), [] as [String; 0]);
}

/// 17,000 ports are what anybody can write who can write one Service, anywhere in the cluster.
#[test]
fn a_service_with_too_many_ports_is_left_out_alone() {
    let mut node = isolated(Capacities::default());
    take(
        &mut node,
        [service("wide", address(200), 17_000), service("other", address(201), 2), pod(2), link(2)],
    );
    assert!(node.snapshot(now()).status.ready);
    assert!(node.kernel().hooks.contains_key(&ifindex(2)), "a new pod of another namespace");
    assert_eq!(node.kernel().tables.services.len(), 2, "another Service");
    let said = problems(&mut node);
    assert!(said.len() == 1 && said[0].starts_with("wide: table SERVICES4 "), "{said:?}");
}

/// What comes waits until what leaves has left, which is one revision.
#[test]
fn what_takes_the_room_of_another_comes_right_after_it() {
    let mut node = isolated(Capacities { services: 100, ..Capacities::default() });
    take(&mut node, [service("a", address(200), 80)]);
    take(&mut node, [service("a", address(201), 80)]);
    assert_eq!(problems(&mut node), [] as [String; 0]);
    let kept = node.kernel().tables.services.keys().filter(|key| key.address == address(201)).count();
    assert_eq!((kept, node.kernel().tables.services.len()), (80, 80));
}

/// Where nothing can be left out, what is in force stays, and pods that come are closed where policies isolate them.
#[test]
fn what_nobody_can_make_room_for_is_refused_and_new_pods_are_closed() {
    let mut node = isolated(Capacities { addresses: 3, ..Capacities::default() });
    let (before, live) = (images(&mut node, 1), node.kernel().tables.live);
    let many = Change::NodeAddresses((100..110).map(address).collect());
    take(&mut node, [Input::Change(many), pod(2), link(2), pod(3), link(3)]);
    let snapshot = node.snapshot(now());
    let enforcing = condition(&snapshot, "Enforcing");
    assert_eq!(enforcing.reason, "Refused");
    assert!(enforcing.message.contains("the pods and nodes of the cluster"), "{}", enforcing.message);
    assert!(!snapshot.status.ready);
    assert_eq!(node.kernel().hooks.len(), 3);
    assert_eq!(images(&mut node, 1), before, "what is in force stays");
    let closed = images(&mut node, 2);
    assert!(closed[0] != 0 && closed[0] != before[0] && closed[1] == 0, "{closed:?}");
    assert_eq!(node.kernel().tables.live.0, live.0 + 1);

    node.kernel().hooks.clear();
    node.read_back(now());
    node.converge(now());
    assert_eq!(node.kernel().hooks.len(), 3, "what is enforced is looked after meanwhile");
    take(&mut node, [Input::Change(Change::NodeAddresses(vec![address(100)]))]);
    assert!(node.snapshot(now()).status.ready, "and it heals at once, not after the back-off");
    assert_eq!(images(&mut node, 2), before);
}
