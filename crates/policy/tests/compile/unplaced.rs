//! Why a pod of this node is enforced nowhere, and who is told when nobody can say where it is.

use cellwall_policy::compile::{Compiled, Compiler, UnplacedReason};
use cellwall_policy::model::{Change, Cluster, Link, Phase, Pod, Touched};

use crate::world::{cluster, link, pod, tell};

fn compiled(cluster: &Cluster) -> Compiled {
    Compiler::new([1, 2]).compile(cluster, &Touched::default())
}

/// A node with a pod of its own at 10.1.0.1, and another one.
fn reasons(other: Pod) -> Vec<UnplacedReason> {
    let mut cluster = cluster(1);
    let key = other.key();
    tell(&mut cluster, Change::Pod(other));
    let unplaced = compiled(&cluster).unplaced;
    assert!(unplaced.iter().all(|unplaced| unplaced.pod == key), "{unplaced:?}");
    unplaced.into_iter().map(|unplaced| unplaced.reason).collect()
}

#[test]
fn a_pod_is_enforced_nowhere_for_one_of_four_reasons() {
    use UnplacedReason::{AddressTaken, HostNetwork, NoAddress, NoInterface};
    let other = || pod("other", 7);
    let older = || Pod { created_s: -1, ..pod("other", 0) };
    let cases = [
        ("it has the node's network", Pod { host_network: true, ..other() }, Some(HostNetwork)),
        ("and no address yet", Pod { host_network: true, addresses: vec![], ..other() }, Some(HostNetwork)),
        ("it has no address", Pod { addresses: vec![], phase: Phase::Pending, ..other() }, Some(NoAddress)),
        ("no veth has its address", other(), Some(NoInterface)),
        ("one has it, for a newer pod", older(), Some(AddressTaken)),
        ("one has it, for a pod that stays", Pod { deleting: true, ..pod("other", 0) }, Some(AddressTaken)),
        ("it has ended", Pod { phase: Phase::Terminal, ..other() }, None),
        ("it is elsewhere", Pod { node: "elsewhere".to_owned(), ..other() }, None),
    ];
    for (case, other, reason) in cases {
        assert_eq!(reasons(other), reason.into_iter().collect::<Vec<_>>(), "{case}");
    }
}

/// What is said of a pod.
fn said(cluster: &Cluster, of: &Pod) -> Vec<String> {
    let problems = compiled(cluster).problems;
    problems.into_iter().filter(|problem| problem.object == of.key()).map(|problem| problem.message).collect()
}

#[test]
fn an_interface_with_the_addresses_of_two_pods_is_closed_and_all_are_named() {
    let mut cluster = cluster(2);
    assert_eq!(compiled(&cluster).problems, []);
    let addresses = [pod("", 0), pod("", 1)].map(|pod| pod.addresses[0]).to_vec();
    tell(&mut cluster, Change::Link(Link { addresses, ..link(2, &pod("", 0)) }));
    let compiled = compiled(&cluster);
    assert_eq!((&compiled.endpoints[&3].pod, compiled.endpoints[&3].isolated), (&None, [true, true]));
    assert_eq!(compiled.endpoints[&1].isolated, [false, false]);
    let said = said(&cluster, &pod("pod0", 0));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("interface veth2") && said[0].contains("Pod shop/pod1"), "{said:?}");
    // What the message says to do.
    tell(&mut cluster, Change::LinkGone(2));
    tell(&mut cluster, Change::Gone(pod("pod1", 1).key()));
    assert_eq!(self::compiled(&cluster).endpoints[&3].pod, Some(pod("pod0", 0).key()));
}

#[test]
fn a_pod_that_two_interfaces_lead_to_is_enforced_at_both_and_they_are_named() {
    let mut cluster = cluster(1);
    tell(&mut cluster, Change::Link(link(1, &pod("", 0))));
    let found: Vec<_> = compiled(&cluster).endpoints.into_values().map(|endpoint| endpoint.pod).collect();
    let pod = pod("pod0", 0);
    assert_eq!(found, [Some(pod.key()), Some(pod.key())]);
    let problems = said(&cluster, &pod);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("interfaces veth0 and veth1"), "{problems:?}");
    tell(&mut cluster, Change::LinkGone(2));
    assert_eq!(said(&cluster, &pod), Vec::<String>::new());
}
