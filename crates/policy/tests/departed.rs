//! A pod whose object is gone while its interface is there: what was deleted by force may run on (S83).

use std::collections::BTreeMap;
use std::net::IpAddr;

use cellwall_policy::compile::{Compiled, Compiler};
use cellwall_policy::model::{
    Change, Cluster, Kind, Link, NamespaceMatch, ObjectKey, Phase, Pod, Policy, PolicyKind, Selector,
    Subject, Tier, Touched,
};

const IFINDEX: u32 = 7;
const ADDRESS: &str = "10.1.0.2";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn pod(uid: &str, address: &str) -> Pod {
    Pod {
        namespace: "shop".to_owned(),
        name: "db".to_owned(),
        uid: uid.to_owned(),
        labels: BTreeMap::new(),
        addresses: vec![ip(address)],
        node: "n1".to_owned(),
        host_network: false,
        phase: Phase::Running,
        deleting: false,
        created_s: 0,
        ports: Vec::new(),
        host_ports: Vec::new(),
        audit: false,
    }
}

fn link(address: &str) -> Change {
    Change::Link(Link {
        ifindex: IFINDEX,
        name: "veth7".to_owned(),
        addresses: vec![ip(address)],
        mac: cellwall_abi::Mac::UNKNOWN,
        preexisting: false,
    })
}

/// Isolates every pod of the namespace in both directions.
fn closed() -> Change {
    let policy = Policy {
        key: ObjectKey::namespaced(Kind::NetworkPolicy, "shop", "closed"),
        kind: PolicyKind::NetworkPolicy,
        uid: String::new(),
        generation: 0,
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

/// A cluster with the isolated pod behind its interface.
fn placed() -> Cluster {
    let mut cluster = Cluster::new("n1");
    tell(&mut cluster, [Change::Pod(pod("a", ADDRESS)), link(ADDRESS), closed()]);
    assert_eq!(isolated(&cluster), Some([true, true]));
    cluster
}

fn tell(cluster: &mut Cluster, changes: impl IntoIterator<Item = Change>) {
    for change in changes {
        cluster.apply(change, &mut Touched::default());
    }
}

fn compiled(cluster: &Cluster) -> Compiled {
    Compiler::new([1, 2]).compile(cluster, &Touched::default())
}

/// Of the interface, when there is one.
fn isolated(cluster: &Cluster) -> Option<[bool; 2]> {
    compiled(cluster).endpoints.get(&IFINDEX).map(|endpoint| endpoint.isolated)
}

#[test]
fn a_pod_stays_isolated_as_long_as_its_interface_is_there() {
    let key = pod("a", ADDRESS).key();
    let ends = [
        Change::Gone(key.clone()),
        Change::Listed(Kind::Pod, Vec::new()),
        // A StatefulSet has its next pod elsewhere, or here and still without an address.
        Change::Pod(Pod { node: "n2".to_owned(), ..pod("b", "10.2.0.2") }),
        Change::Pod(Pod { addresses: Vec::new(), phase: Phase::Pending, ..pod("b", ADDRESS) }),
    ];
    for end in ends {
        let mut cluster = placed();
        tell(&mut cluster, [end.clone()]);
        assert_eq!(isolated(&cluster), Some([true, true]), "{end:?}");
        tell(&mut cluster, [Change::LinkGone(IFINDEX), link(ADDRESS)]);
        assert_eq!(isolated(&cluster), Some([false, false]), "another interface: {end:?}");
    }
}

#[test]
fn its_successor_has_its_own_policies_and_is_missed_until_it_is_there() {
    let mut cluster = placed();
    tell(&mut cluster, [Change::Pod(Pod { addresses: Vec::new(), ..pod("b", ADDRESS) })]);
    assert_eq!(compiled(&cluster).unplaced.len(), 1, "the new one has no interface yet");
    let other = Pod { namespace: "open".to_owned(), ..pod("c", ADDRESS) };
    tell(&mut cluster, [Change::Pod(other)]);
    assert_eq!(isolated(&cluster), Some([false, false]), "the address is another pod's now");
}

#[test]
fn an_interface_with_other_addresses_is_not_its_any_more() {
    let mut cluster = placed();
    tell(&mut cluster, [Change::Gone(pod("a", ADDRESS).key()), link("10.1.0.9")]);
    assert_eq!(isolated(&cluster), Some([false, false]));
    tell(&mut cluster, [link(ADDRESS)]);
    assert_eq!(isolated(&cluster), Some([false, false]), "and is not again");
}

/// Policies go on to change for it, and a completed pod has nothing left that could send.
#[test]
fn policies_still_come_and_go() {
    let mut cluster = placed();
    tell(&mut cluster, [Change::Gone(pod("a", ADDRESS).key())]);
    tell(&mut cluster, [Change::Gone(ObjectKey::namespaced(Kind::NetworkPolicy, "shop", "closed"))]);
    assert_eq!(isolated(&cluster), Some([false, false]));
    tell(&mut cluster, [closed()]);
    assert_eq!(isolated(&cluster), Some([true, true]));

    let mut cluster = placed();
    let completed = Pod { phase: Phase::Terminal, ..pod("a", ADDRESS) };
    tell(&mut cluster, [Change::Pod(completed.clone()), Change::Gone(completed.key())]);
    assert_eq!(isolated(&cluster), Some([false, false]));
}
