//! What the next agent makes of what it finds.

use cellwall_abi::ACTION_DENY;
use cellwall_agent::node::Node;
use cellwall_agent::run::Input;
use cellwall_policy::model::{Change, Cluster, Kind, Link};
use cellwall_policy::plan::Capacities;

use crate::fake::FakeKernel;
use crate::objects::{address, ifindex, link, link_gone, listed, node, now, pod, policy};
use crate::{LATER, settled};

/// A pod that was deleted by force while no agent ran may run on behind its interface (S83).
#[test]
fn where_an_earlier_agent_isolated_somebody_nobody_is_open() {
    let mut first = settled();
    let kernel = std::mem::take(first.kernel());
    let mut second = node(kernel);
    listed_but_links(&mut second);
    for input in [pod(1), link(1), link(2), link(3), policy("deny", 80, 3), Input::LinksListed] {
        second.take(input, now());
    }
    second.converge(now());
    let isolated = |node: &mut Node<FakeKernel>, n: u8| {
        let snapshot = node.snapshot(now());
        let endpoint = snapshot.endpoints.iter().find(|endpoint| endpoint.ifindex == ifindex(n));
        let endpoint = endpoint.expect("it is listed").clone();
        assert_eq!(endpoint.pod.is_some(), n == 1);
        [endpoint.ingress, endpoint.egress].map(|direction| direction.is_some_and(|d| d.isolated))
    };
    assert_eq!(isolated(&mut second, 1), [true, false]);
    assert_eq!(isolated(&mut second, 2), [true, false], "as it was: only what comes in");
    assert_eq!(isolated(&mut second, 3), [false, false], "nobody was isolated there");
    let live = second.kernel().tables.live;
    let slot = second.kernel().tables.endpoints[&ifindex(2)];
    let record = second.kernel().tables.records[&(slot, live.bank())];
    assert_eq!(record.image.map(|image| image != 0), [true, false]);
    assert_eq!(record.default[0].rest_action, ACTION_DENY);

    // Its interface ends, and the next one with its index is somebody else's.
    for input in [link_gone(2), link(2)] {
        second.take(input, now());
    }
    second.converge(now());
    assert_eq!(isolated(&mut second, 2), [false, false]);
}

/// A pod may have changed the addresses of its interface while no agent ran (CAP_NET_ADMIN in its namespace).
#[test]
fn who_is_where_is_what_the_earlier_agent_knew() {
    let mut first = settled();
    let mut second = node(std::mem::take(first.kernel()));
    listed_but_links(&mut second);
    let Input::Change(Change::Link(taken)) = link(1) else { unreachable!("a link") };
    let taken = Link { addresses: vec![address(2)], ..taken };
    for input in [pod(1), pod(2), Input::Change(Change::Link(taken)), link(2), policy("deny", 80, 3)] {
        second.take(input, now());
    }
    second.take(Input::LinksListed, now());
    second.converge(now());
    assert_eq!(second.stats.plans_empty, 1, "as if nothing had happened");
    let endpoints = second.snapshot(now()).endpoints;
    let names: Vec<_> =
        endpoints.iter().filter_map(|e| e.pod.as_ref()).map(|pod| pod.name.as_str()).collect();
    assert_eq!(names, ["p1", "p2"]);
}

/// Whoever installs in audit loses nothing, whatever comes later.
#[test]
fn what_was_audited_is_not_closed() {
    let audited = |kernel| {
        let cluster = Cluster { audit_all: true, ..Cluster::new("n1") };
        Node::new(kernel, cluster, Capacities::default()).expect("the fake can be read")
    };
    let mut first = audited(FakeKernel::default());
    listed(&mut first);
    for input in [pod(1), link(1), policy("deny", 80, 3)] {
        first.take(input, now());
    }
    first.converge(now());
    assert!(first.snapshot(now()).endpoints[0].ingress.as_ref().is_some_and(|d| d.isolated));
    let mut second = node(std::mem::take(first.kernel()));
    listed_but_links(&mut second);
    for input in [link(1), Input::LinksListed] {
        second.take(input, now());
    }
    second.converge(now());
    assert!(second.snapshot(now()).endpoints[0].ingress.as_ref().is_some_and(|d| !d.isolated));
}

/// What another ABI version enforces is as good as what is in our own tables, and stays until ours are everywhere.
#[test]
fn what_another_version_enforces_goes_when_all_is_enforced_and_not_before() {
    let kernel = FakeKernel { others: true, refuse: [ifindex(2)].into(), ..FakeKernel::default() };
    let mut node = node(kernel);
    let partial = |why: Option<&str>| Input::Partial(Kind::NetworkPolicy, why.map(str::to_owned));
    node.take(partial(Some("a.yaml: cannot be parsed")), now());
    listed(&mut node);
    for input in [pod(1), pod(2), link(1), link(2), policy("deny", 80, 3)] {
        node.take(input, now());
    }
    node.converge(now());
    assert_eq!(node.kernel().writes.get(), 0, "what is not known may be what the other version enforces");
    assert!(node.kernel().others);

    node.kernel().writes_left = Some(0);
    node.take(partial(None), now());
    node.converge(now());
    assert!(node.kernel().attached.is_empty() && node.kernel().others, "our tables are empty");

    node.kernel().writes_left = None;
    node.converge(now() + LATER);
    assert_eq!(node.kernel().attached, [ifindex(1)]);
    assert!(node.kernel().others, "nothing of ours is at the other interface");

    node.kernel().refuse.clear();
    node.converge(now() + 2 * LATER);
    assert_eq!(node.kernel().attached, [1, 2].map(ifindex));
    assert!(!node.kernel().others);
}

/// Every kind is listed; the interfaces are not yet.
fn listed_but_links(node: &mut Node<FakeKernel>) {
    for kind in Kind::ALL {
        node.take(Input::Change(Change::Listed(kind, Vec::new())), now());
    }
}
