//! Pods that the CNI plugin tells of before the API server does: who is behind an interface, and who has an address.

use std::net::IpAddr;

use cellwall_abi::Mac;
use cellwall_policy::compile::{Compiled, Compiler, EndpointReport};
use cellwall_policy::model::{
    Announced, Change, Cluster, Kind, Left, Link, NamespaceMatch, ObjectKey, Phase, Pod, Policy, PolicyKind,
    Selector, Subject, Tier, Touched,
};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A pod of this node as the API server knows it before it runs.
fn starting(name: &str, uid: &str) -> Pod {
    Pod {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        labels: [("app".to_owned(), name.to_owned())].into(),
        addresses: Vec::new(),
        node: "n1".to_owned(),
        host_network: false,
        phase: Phase::Pending,
        deleting: false,
        created_s: 0,
        ports: Vec::new(),
        host_ports: Vec::new(),
        audit: false,
    }
}

/// Veth 7, at whose other end no address shows, as of some sandboxes.
fn link(ifindex: u32, addresses: &[&str]) -> Change {
    Change::Link(Link {
        ifindex,
        name: format!("veth{ifindex}"),
        addresses: addresses.iter().map(|a| ip(a)).collect(),
        mac: Mac::UNKNOWN,
        preexisting: false,
    })
}

fn announced(name: &str, uid: &str, ifindex: u32, address: &str) -> Change {
    Change::Announced(Announced {
        pod: ObjectKey::namespaced(Kind::Pod, "shop", name),
        uid: uid.to_owned(),
        // The bridge first.
        interfaces: vec![(2, "cni0".to_owned()), (ifindex, format!("veth{ifindex}"))],
        addresses: vec![ip(address)],
    })
}

/// Cuts off every pod of `shop`.
fn closed() -> Change {
    let policy = Policy {
        key: ObjectKey::namespaced(Kind::NetworkPolicy, "shop", "closed"),
        kind: PolicyKind::NetworkPolicy,
        uid: String::new(),
        generation: 1,
        tier: Tier::NetworkPolicy,
        priority: 0,
        subject: Subject {
            namespaces: NamespaceMatch::Named("shop".to_owned()),
            pods: Selector::everything(),
        },
        isolates: [true, true],
        rules: [Vec::new(), Vec::new()],
    };
    Change::Policy(policy, Vec::new())
}

#[derive(Default)]
struct Node {
    cluster: Cluster,
}

impl Node {
    fn new(changes: impl IntoIterator<Item = Change>) -> Self {
        let mut node = Self { cluster: Cluster::new("n1") };
        changes.into_iter().for_each(|change| node.apply(change));
        node
    }

    fn apply(&mut self, change: Change) {
        self.cluster.apply(change, &mut Touched::default());
    }

    fn compiled(&self) -> Compiled {
        Compiler::new([1, 2]).compile(&self.cluster, &Touched::default())
    }

    fn at(&self, ifindex: u32) -> EndpointReport {
        self.compiled().endpoints.remove(&ifindex).expect("an interface")
    }
}

#[test]
fn a_pod_is_enforced_before_its_status_has_an_address() {
    let mut node = Node::new([closed(), link(7, &[]), Change::Pod(starting("web-0", "u1"))]);
    assert_eq!(node.at(7).pod, None);
    node.apply(announced("web-0", "u1", 7, "10.0.0.2"));
    let endpoint = node.at(7);
    assert_eq!((endpoint.pod, endpoint.uid.as_str()), (Some(starting("web-0", "").key()), "u1"));
    assert_eq!((endpoint.addresses, endpoint.isolated), (vec![ip("10.0.0.2")], [true, true]));
    assert!(node.compiled().unplaced.is_empty());
    let before = node.compiled().wanted;

    // The status says the same later.
    node.apply(Change::Pod(Pod { addresses: vec![ip("10.0.0.2")], ..starting("web-0", "u1") }));
    assert_eq!(node.compiled().wanted, before, "nothing is written again");
}

#[test]
fn in_any_order_it_is_known_when_all_is_there() {
    let all = [
        closed(),
        link(7, &["10.0.0.2"]),
        Change::Pod(starting("web-0", "u1")),
        announced("web-0", "u1", 7, "10.0.0.2"),
    ];
    let goal = Node::new(all.clone()).compiled();
    for first in 0..all.len() {
        for second in (0..all.len()).filter(|second| *second != first) {
            let mut node = Node::new([all[first].clone(), all[second].clone()]);
            assert!(node.compiled().wanted != goal.wanted);
            all.iter().cloned().for_each(|change| node.apply(change));
            assert_eq!(node.compiled(), goal, "{first} {second}");
        }
    }
}

/// A StatefulSet makes a pod of the same name at once: its labels may be others, and so its policies.
#[test]
fn a_pod_is_the_one_with_its_uid() {
    let old = Pod {
        addresses: vec![ip("10.0.0.1")],
        phase: Phase::Running,
        deleting: true,
        ..starting("web-0", "u1")
    };
    let mut node = Node::new([
        closed(),
        link(7, &["10.0.0.2"]),
        Change::Pod(old),
        announced("web-0", "u2", 7, "10.0.0.2"),
    ]);
    assert_eq!(node.at(7).pod, None, "the one before is not behind it");
    node.apply(Change::Gone(starting("web-0", "").key()));
    node.apply(Change::Pod(starting("web-0", "u2")));
    assert_eq!(node.at(7).uid, "u2", "the end of the one before takes nothing from it");
    // A runtime that tells no uid: not the one that is leaving.
    let leaving = Pod { deleting: true, ..starting("web-1", "u1") };
    let mut node = Node::new([link(8, &[]), Change::Pod(leaving), announced("web-1", "", 8, "10.0.0.3")]);
    assert_eq!(node.at(8).pod, None);
    node.apply(Change::Pod(starting("web-1", "u2")));
    assert_eq!(node.at(8).uid, "u2");
}

/// The kubelet has not written yet that the job of before has ended; its address is somebody else's already.
#[test]
fn an_address_is_the_one_who_was_given_it_last() {
    let before =
        Pod { addresses: vec![ip("10.0.0.2")], phase: Phase::Running, created_s: 9, ..starting("job", "u1") };
    let node = Node::new([
        closed(),
        link(7, &["10.0.0.2"]),
        Change::Pod(before),
        Change::Pod(starting("web-0", "u2")),
        announced("web-0", "u2", 7, "10.0.0.2"),
    ]);
    assert_eq!(node.at(7).uid, "u2");
    assert!(node.compiled().problems.is_empty());
    assert_eq!(node.compiled().unplaced.len(), 1, "the job is behind no interface");
}

#[test]
fn a_sandbox_that_is_made_anew_has_a_new_place() {
    let pod = Pod { addresses: vec![ip("10.0.0.2")], phase: Phase::Running, ..starting("web-0", "u1") };
    let mut node =
        Node::new([link(7, &["10.0.0.2"]), Change::Pod(pod), announced("web-0", "u1", 7, "10.0.0.2")]);
    for change in [link(8, &["10.0.0.3"]), announced("web-0", "u1", 8, "10.0.0.3")] {
        node.apply(change);
    }
    // What the status says is of the sandbox before.
    assert_eq!((node.at(8).uid.as_str(), node.at(8).addresses), ("u1", vec![ip("10.0.0.3")]));
    assert_eq!(node.at(7).pod, None);
    node.apply(Change::LinkGone(7));
    assert_eq!(node.at(8).uid, "u1");
    node.apply(Change::LinkGone(8));
    node.apply(link(8, &["10.0.0.9"]));
    assert_eq!(node.at(8).pod, None, "another interface with the same index and name");
}

/// What is deleted by force, or made anew under its name, before its status had an address: it may run on (S83).
#[test]
fn a_pod_whose_object_is_gone_keeps_its_policies_where_it_was_announced() {
    let ends = [
        Change::Gone(starting("web-0", "").key()),
        Change::Pod(Pod { node: "n2".to_owned(), ..starting("web-0", "u2") }),
    ];
    for end in ends {
        let mut node = Node::new([
            closed(),
            link(7, &[]),
            Change::Pod(starting("web-0", "u1")),
            announced("web-0", "u1", 7, "10.0.0.2"),
        ]);
        let before = node.at(7);
        node.apply(end.clone());
        assert_eq!(node.at(7), before, "{end:?}");
        node.apply(Change::LinkGone(7));
        node.apply(link(7, &[]));
        assert_eq!(node.at(7).pod, None, "{end:?}");
    }
}

/// The agent that knew it has ended, too: where it isolated somebody nobody is open until the pod is known again.
#[test]
fn a_pod_that_is_not_known_is_closed_where_an_earlier_agent_isolated_it() {
    let mut node = Node::new([closed()]);
    let left = Left { addresses: vec![ip("10.0.0.2")], mac: Mac::UNKNOWN, isolated: [true, false] };
    node.cluster.left.insert(7, left);
    node.apply(announced("web-0", "u1", 7, "10.0.0.2"));
    node.apply(link(7, &[]));
    assert_eq!((node.at(7).pod, node.at(7).isolated), (None, [true, false]));
    node.apply(Change::Pod(starting("web-0", "u1")));
    assert_eq!((node.at(7).uid.as_str(), node.at(7).isolated), ("u1", [true, true]));
}

/// Whoever may change what is at its own end changes neither who it is nor which Ethernet address is its own.
#[test]
fn who_was_announced_stays_who_it_is() {
    let [own, other] = [1, 2].map(|last| Mac::from_octets([2, 0, 0, 0, 1, last]));
    let seen = |mac, addresses: &[&str]| {
        let Change::Link(seen) = link(7, addresses) else { unreachable!("a link") };
        Change::Link(Link { mac, ..seen })
    };
    let mut node = Node::new([
        closed(),
        seen(own, &[]),
        Change::Pod(starting("web-0", "u1")),
        announced("web-0", "u1", 7, "10.0.0.2"),
    ]);
    let before = node.compiled();
    assert_eq!(before.wanted.endpoints[&7].record.mac, own);
    for addresses in [&["10.0.0.2"][..], &["10.0.0.9"], &[]] {
        node.apply(seen(other, addresses));
        assert_eq!(node.compiled().wanted, before.wanted, "{addresses:?}");
    }
}

#[test]
fn what_was_announced_elsewhere_or_for_a_host_is_nothing() {
    let elsewhere = Pod { node: "n2".to_owned(), ..starting("web-0", "u1") };
    let host = Pod { host_network: true, ..starting("web-1", "u1") };
    let ended = Pod { phase: Phase::Terminal, ..starting("web-2", "u1") };
    for (pod, name) in [(elsewhere, "web-0"), (host, "web-1"), (ended, "web-2")] {
        let node = Node::new([link(7, &[]), Change::Pod(pod), announced(name, "u1", 7, "10.0.0.2")]);
        assert_eq!(node.at(7).pod, None, "{name}");
        assert!(node.compiled().wanted.addresses.is_empty(), "{name}");
    }
}

#[test]
fn without_an_interface_the_address_tells() {
    let by_address = |name: &str, uid: &str| {
        let Change::Announced(announced) = announced(name, uid, 7, "10.0.0.2") else { unreachable!() };
        Change::Announced(Announced { interfaces: Vec::new(), ..announced })
    };
    let mut node = Node::new([closed(), link(7, &["10.0.0.2"]), link(8, &["10.0.0.3"])]);
    node.apply(Change::Pod(starting("web-0", "u1")));
    node.apply(by_address("web-0", "u1"));
    assert_eq!((node.at(7).uid.as_str(), node.at(8).pod), ("u1", None));
    // Two are said to be behind it: closed, whoever it is.
    node.apply(Change::Pod(starting("web-1", "u2")));
    node.apply(by_address("web-1", "u2"));
    assert_eq!((node.at(7).pod, node.at(7).isolated), (None, [true, true]));
    let problems = node.compiled().problems;
    let of_place = problems.iter().filter(|problem| problem.message.contains("interface veth7"));
    let named: Vec<_> =
        of_place.map(|p| (p.object.name.as_str(), p.message.contains("Pod shop/web-1"))).collect();
    assert_eq!(named, [("web-0", true)], "{problems:?}");
    node.apply(Change::Gone(starting("web-1", "").key()));
    assert_eq!((node.at(7).uid.as_str(), node.compiled().problems), ("u1", Vec::new()));
}

#[test]
fn announcements_that_came_to_nothing_are_bounded() {
    let mut node = Node::new([
        Change::Pod(starting("web-0", "u1")),
        announced("web-0", "u1", 7, "10.0.0.2"),
        link(7, &[]),
    ]);
    for n in 0..3000_u32 {
        node.apply(announced(&format!("x{n}"), "u", 1000 + n, "10.0.0.3"));
    }
    assert!(node.cluster.announced.len() < 1100, "{}", node.cluster.announced.len());
    assert_eq!(node.at(7).uid, "u1");
}
