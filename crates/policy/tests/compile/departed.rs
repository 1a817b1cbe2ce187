//! A pod whose object is gone while its interface is there: what was deleted by force may run on (S83).

use cellwall_policy::compile::{Compiled, Compiler};
use cellwall_policy::model::{Change, Cluster, Kind, Namespace, ObjectKey, Phase, Pod, Touched};

use crate::world::{NAMESPACE, cluster, link, namespace, pod, policy, tell};

/// Of the only pod's interface.
const IFINDEX: u32 = 1;
/// By ingress policies alone.
const ISOLATED: Option<[bool; 2]> = Some([true, false]);
const OPEN: Option<[bool; 2]> = Some([false, false]);

/// The pod at the interface.
fn gone() -> Pod {
    pod("pod0", 0)
}

/// The next one of its name, as a StatefulSet has it.
fn successor() -> Pod {
    Pod { uid: "next".to_owned(), ..gone() }
}

fn closed() -> Change {
    policy("closed", None, Vec::new())
}

/// A cluster with the isolated pod behind its interface.
fn placed() -> Cluster {
    let mut cluster = cluster(1);
    tell(&mut cluster, closed());
    assert_eq!(isolated(&cluster), ISOLATED);
    cluster
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
    let ends = [
        Change::Gone(gone().key()),
        Change::Listed(Kind::Pod, Vec::new()),
        // Its successor is elsewhere, or here and still without an address.
        Change::Pod(Pod { node: "elsewhere".to_owned(), addresses: pod("", 7).addresses, ..successor() }),
        Change::Pod(Pod { addresses: Vec::new(), phase: Phase::Pending, ..successor() }),
    ];
    for end in ends {
        let mut cluster = placed();
        tell(&mut cluster, end.clone());
        assert_eq!(isolated(&cluster), ISOLATED, "{end:?}");
        tell(&mut cluster, Change::LinkGone(IFINDEX));
        tell(&mut cluster, Change::Link(link(0, &gone())));
        assert_eq!(isolated(&cluster), OPEN, "another interface: {end:?}");
    }
}

#[test]
fn its_successor_has_its_own_policies_and_is_missed_until_it_is_there() {
    let mut cluster = placed();
    tell(&mut cluster, Change::Pod(Pod { addresses: Vec::new(), ..successor() }));
    assert_eq!(compiled(&cluster).unplaced.len(), 1, "the new one has no interface yet");
    let other = Pod { namespace: "open".to_owned(), ..gone() };
    tell(&mut cluster, Change::Pod(other));
    assert_eq!(isolated(&cluster), OPEN, "the address is another pod's now");
}

#[test]
fn it_does_not_get_away_by_other_addresses() {
    let mut cluster = placed();
    tell(&mut cluster, Change::Gone(gone().key()));
    tell(&mut cluster, Change::Link(link(0, &pod("other", 8))));
    assert_eq!(isolated(&cluster), ISOLATED);
    tell(&mut cluster, Change::LinkGone(IFINDEX));
    tell(&mut cluster, Change::Link(link(0, &pod("other", 8))));
    assert_eq!(isolated(&cluster), OPEN, "another interface");
}

/// What is in a namespace goes with it, in any order; the pod may run on (KEP-5080).
#[test]
fn it_keeps_what_isolated_it_when_its_namespace_goes() {
    let deleting = Namespace { deleting: true, ..namespace(NAMESPACE, false) };
    let deny = || Change::Gone(ObjectKey::namespaced(Kind::NetworkPolicy, NAMESPACE, "closed"));
    let gone_namespace = Change::Gone(ObjectKey::cluster(Kind::Namespace, NAMESPACE));
    for before in [Change::Namespace(deleting.clone()), gone_namespace] {
        let mut cluster = placed();
        tell(&mut cluster, before);
        tell(&mut cluster, Change::Gone(gone().key()));
        tell(&mut cluster, deny());
        assert_eq!(isolated(&cluster), ISOLATED);
        tell(&mut cluster, Change::Link(link(0, &pod("other", 8))));
        assert_eq!(isolated(&cluster), ISOLATED, "nor does it get away by other addresses");
        tell(&mut cluster, Change::LinkGone(IFINDEX));
        tell(&mut cluster, Change::Link(link(0, &gone())));
        assert_eq!(isolated(&cluster), OPEN, "another interface");
    }
    let mut cluster = placed();
    tell(&mut cluster, Change::Namespace(Namespace { deleting: true, ..namespace(NAMESPACE, true) }));
    tell(&mut cluster, Change::Gone(gone().key()));
    tell(&mut cluster, deny());
    assert_eq!(isolated(&cluster), OPEN, "what is audited is not cut later either");
}

/// Policies go on to change for it, and a completed pod has nothing left that could send.
#[test]
fn policies_still_come_and_go() {
    let mut cluster = placed();
    tell(&mut cluster, Change::Gone(gone().key()));
    tell(&mut cluster, Change::Gone(ObjectKey::namespaced(Kind::NetworkPolicy, NAMESPACE, "closed")));
    assert_eq!(isolated(&cluster), OPEN);
    tell(&mut cluster, closed());
    assert_eq!(isolated(&cluster), ISOLATED);

    let mut cluster = placed();
    let completed = Pod { phase: Phase::Terminal, ..gone() };
    tell(&mut cluster, Change::Pod(completed.clone()));
    tell(&mut cluster, Change::Gone(completed.key()));
    assert_eq!(isolated(&cluster), OPEN);
}
