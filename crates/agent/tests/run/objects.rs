//! The objects of these tests.

use std::net::{IpAddr, Ipv4Addr};

use cellwall_abi::Mac;
use cellwall_agent::kernel::Kernel;
use cellwall_agent::node::Node;
use cellwall_agent::run::Input;
use cellwall_policy::flow::Protocol;
use cellwall_policy::model::{
    Action, Block, Change, Cluster, Kind, Labels, Link, NamespaceMatch, ObjectKey, Peer, Phase, Pod, Policy,
    PolicyKind, Port, PortRange, Rule, Selector, Subject, Tier,
};
use cellwall_policy::plan::Capacities;
use tokio::time::Instant;

use crate::fake::FakeKernel;

pub(crate) fn node(kernel: FakeKernel) -> Node<FakeKernel> {
    node_with(kernel, Capacities::default())
}

pub(crate) fn node_with(kernel: FakeKernel, capacities: Capacities) -> Node<FakeKernel> {
    Node::new(kernel, Cluster::new("n1"), capacities).expect("the fake can be read")
}

pub(crate) fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Everything is listed.
pub(crate) fn listed<K: Kernel>(node: &mut Node<K>) {
    for kind in Kind::ALL {
        node.take(Input::Change(Change::Listed(kind, Vec::new())), now());
    }
    node.take(Input::LinksListed, now());
}

pub(crate) fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n).into()
}

/// Pod `p<n>` with address 10.0.0.n on this node.
pub(crate) fn pod(n: u8) -> Input {
    Input::Change(Change::Pod(Pod {
        namespace: "default".to_owned(),
        name: format!("p{n}"),
        uid: format!("uid-{n}"),
        labels: Labels::new(),
        addresses: vec![address(n)],
        node: "n1".to_owned(),
        host_network: false,
        phase: Phase::Running,
        deleting: false,
        created_s: 1,
        ports: Vec::new(),
        host_ports: Vec::new(),
        audit: false,
    }))
}

pub(crate) fn pod_gone(n: u8) -> Input {
    Input::Change(Change::Gone(ObjectKey::namespaced(Kind::Pod, "default", &format!("p{n}"))))
}

/// The interface of pod `p<n>`, with index 100 + n.
pub(crate) fn link(n: u8) -> Input {
    link_of(n, false)
}

/// As [`link`]; it was there before the agent.
pub(crate) fn old_link(n: u8) -> Input {
    link_of(n, true)
}

fn link_of(n: u8, preexisting: bool) -> Input {
    Input::Change(Change::Link(Link {
        ifindex: ifindex(n),
        name: format!("veth{n}"),
        addresses: vec![address(n)],
        mac: Mac::from_octets([2, 0, 0, 0, 0, n]),
        preexisting,
    }))
}

pub(crate) fn link_gone(n: u8) -> Input {
    Input::Change(Change::LinkGone(ifindex(n)))
}

pub(crate) fn ifindex(n: u8) -> u32 {
    100 + u32::from(n)
}

/// Isolates every pod of `default` and lets in TCP to port `port` from 192.0.2.0/24 cut into `blocks` pieces.
pub(crate) fn policy(name: &str, port: u16, blocks: u8) -> Input {
    let block = |n: u8| {
        let cidr = format!("192.0.2.{n}/32").parse().expect("a CIDR");
        Peer::Block(Block { cidr, except: Vec::new() })
    };
    let rule = Rule {
        peers: Some((0..blocks).map(block).collect()),
        ports: Some(vec![Port::Range(Protocol::TCP, PortRange { low: port, high: port })]),
        action: Action::Accept,
        index: 0,
    };
    let policy = Policy {
        key: policy_key(name),
        kind: PolicyKind::NetworkPolicy,
        uid: String::new(),
        generation: i64::from(port),
        tier: Tier::NetworkPolicy,
        priority: 0,
        subject: Subject {
            namespaces: NamespaceMatch::Named("default".to_owned()),
            pods: Selector::everything(),
        },
        isolates: [true, false],
        rules: [vec![rule], Vec::new()],
    };
    Input::Change(Change::Policy(policy, Vec::new()))
}

pub(crate) fn policy_key(name: &str) -> ObjectKey {
    ObjectKey::namespaced(Kind::NetworkPolicy, "default", name)
}
