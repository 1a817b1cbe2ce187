//! A pod that may change the addresses of its own end (CAP_NET_ADMIN).

use cellwall_abi::ENDPOINT_IDENTIFIED;
use cellwall_policy::compile::{Compiled, Compiler};
use cellwall_policy::model::{Change, Cluster, Link, Touched};

use crate::world::{cluster, link, pod, policy, tell};

fn compiled(cluster: &Cluster) -> Compiled {
    Compiler::new([1, 2]).compile(cluster, &Touched::default())
}

#[test]
fn a_pod_that_takes_its_address_away_stays_what_it_is() {
    let mut cluster = cluster(2);
    tell(&mut cluster, policy("closed", Some("pod0"), Vec::new()));
    assert_eq!(compiled(&cluster).endpoints[&1].isolated, [true, false]);
    // ip addr del 10.1.0.1/24 dev eth0
    tell(&mut cluster, Change::Link(Link { addresses: Vec::new(), ..link(0, &pod("pod0", 0)) }));
    let compiled = compiled(&cluster);
    assert_ne!(compiled.wanted.endpoints[&1].record.flags & ENDPOINT_IDENTIFIED, 0, "its packets pass unseen");
    assert_eq!(compiled.endpoints[&1].isolated, [true, false]);
}

#[test]
fn a_pod_that_takes_anothers_address_does_not_become_the_other() {
    let mut cluster = cluster(2);
    tell(&mut cluster, policy("closed", Some("pod0"), Vec::new()));
    // ip addr flush dev eth0; ip addr add 10.1.0.2/24 dev eth0
    tell(&mut cluster, Change::Link(Link { addresses: pod("pod1", 1).addresses, ..link(0, &pod("pod0", 0)) }));
    let compiled = compiled(&cluster);
    assert_eq!(compiled.endpoints[&2].pod, Some(pod("pod1", 1).key()), "who has it");
    assert_ne!(compiled.endpoints[&1].pod, Some(pod("pod1", 1).key()), "and who took it");
}
