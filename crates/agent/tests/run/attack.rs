//! What one object of a tenant does to everybody.

use cellwall_agent::node::Node;
use cellwall_agent::run::Input;
use cellwall_policy::flow::Protocol;
use cellwall_policy::model::{Change, Service, ServicePort};

use crate::fake::FakeKernel;
use crate::objects::{address, ifindex, link, listed, node, now, pod, policy};

fn isolated() -> Node<FakeKernel> {
    let mut node = node(FakeKernel::default());
    listed(&mut node);
    for input in [pod(1), link(1), policy("deny", 80, 3)] {
        node.take(input, now());
    }
    node.converge(now());
    node
}

/// A Service is 17,000 lines that anybody may write who may write one, anywhere in the cluster.
#[test]
fn a_service_with_many_ports_keeps_no_pod_from_being_enforced() {
    let mut node = isolated();
    let port = |number| ServicePort { name: format!("p{number}"), protocol: Protocol::TCP, number, node_port: None };
    let service = Service {
        namespace: "tenant".to_owned(),
        name: "wide".to_owned(),
        cluster_addresses: vec![address(200)],
        external_addresses: Vec::new(),
        ports: (1..=17_000).map(port).collect(),
        other_proxy: false,
    };
    node.take(Input::Change(Change::Service(service)), now());
    node.converge(now());
    for input in [pod(2), link(2)] {
        node.take(input, now());
    }
    node.converge(now());
    assert!(node.kernel().hooks.contains_key(&ifindex(2)), "a new pod of another namespace is open");
}
