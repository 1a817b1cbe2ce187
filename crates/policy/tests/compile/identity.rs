//! A pod that changes the addresses of its own end: whoever has CAP_NET_ADMIN in its namespace may.

use std::collections::BTreeMap;

use cellwall_abi::{ENDPOINT_IDENTIFIED, Mac};
use cellwall_policy::compile::{Compiled, Compiler};
use cellwall_policy::model::{Change, Cluster, Left, Link, Touched};

use crate::world::{cluster, link, pod, policy, tell};

/// Of the pods' interfaces.
const FIRST: u32 = 1;
const SECOND: u32 = 2;

/// Two pods; the first is isolated by ingress policies.
fn world() -> Cluster {
    let mut cluster = cluster(2);
    tell(&mut cluster, policy("closed", Some("pod0"), Vec::new()));
    cluster
}

fn compiled(cluster: &Cluster) -> Compiled {
    Compiler::new([1, 2]).compile(cluster, &Touched::default())
}

/// The first pod's interface, as netlink describes it once the pod has changed it.
fn changed(addresses: &[&str]) -> Change {
    let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    Change::Link(Link { addresses, mac: Mac::from_octets([2, 0, 0, 0, 9, 9]), ..link(0, &pod("pod0", 0)) })
}

#[test]
fn who_takes_its_address_away_or_takes_anothers_stays_who_it_is() {
    for addresses in [&[][..], &["10.1.0.2"], &["10.1.0.99"], &["10.1.0.2", "10.1.0.1"]] {
        let mut cluster = world();
        let before = compiled(&cluster);
        tell(&mut cluster, changed(addresses));
        let after = compiled(&cluster);
        assert_ne!(after.wanted.endpoints[&FIRST].record.flags & ENDPOINT_IDENTIFIED, 0, "{addresses:?}");
        for at in [FIRST, SECOND] {
            assert_eq!(after.endpoints[&at], before.endpoints[&at], "{addresses:?}");
        }
        let record = |compiled: &Compiled| compiled.wanted.endpoints[&FIRST].record;
        assert_eq!(record(&after).address4, record(&before).address4);
    }
}

/// Its Ethernet address is the one that it was found with; until there is one, the first.
#[test]
fn its_ethernet_address_stays_too() {
    let mac = |cluster: &Cluster| compiled(cluster).wanted.endpoints[&FIRST].record.mac;
    let [own, other] = [1, 2].map(|last| Mac::from_octets([2, 0, 0, 0, 1, last]));
    let mut cluster = world();
    assert_eq!(mac(&cluster), Mac::UNKNOWN);
    for now in [own, other] {
        tell(&mut cluster, Change::Link(Link { mac: now, ..link(0, &pod("pod0", 0)) }));
        assert_eq!(mac(&cluster), own);
    }
}

/// Addresses that came before anybody knew the pod, and interfaces that are nobody's, are followed.
#[test]
fn what_is_not_found_yet_is_followed() {
    let mut cluster = world();
    let late = pod("late", 5);
    tell(&mut cluster, Change::Link(link(2, &pod("", 4))));
    tell(&mut cluster, Change::Link(link(2, &late)));
    tell(&mut cluster, Change::Pod(late.clone()));
    assert_eq!(compiled(&cluster).endpoints[&3].pod, Some(late.key()));
}

/// The next agent reads in the tables who is where, and does not take a later interface with the same index for it.
#[test]
fn an_earlier_agent_says_who_is_where() {
    let [same, other] = [1, 2].map(|last| Mac::from_octets([2, 0, 0, 0, 1, last]));
    for mac in [same, other] {
        let mut cluster = Cluster { links: BTreeMap::new(), ..world() };
        let left = Left { addresses: pod("", 0).addresses, mac: same, isolated: [true, false] };
        cluster.left.insert(FIRST, left);
        let addresses = pod("", 1).addresses;
        tell(&mut cluster, Change::Link(Link { mac, addresses, ..link(0, &pod("", 0)) }));
        let found = compiled(&cluster).endpoints[&FIRST].pod.clone();
        assert_eq!(found, Some(pod(if mac == same { "pod0" } else { "pod1" }, 0).key()));
    }
}
