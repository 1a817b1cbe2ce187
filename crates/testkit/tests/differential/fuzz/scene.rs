//! The pod that is attacked, and what it may do.
//!
//! | who                        | into the pod                  | out of the pod             |
//! |----------------------------|-------------------------------|----------------------------|
//! | a friend, a pod elsewhere  | TCP 80-90, UDP 53, SCTP 80    | TCP 443, UDP 53, SCTP 443  |
//! | a range of the world       | everything                    | everything                 |
//! | everybody else, and a node | nothing                       | nothing                    |

use std::net::IpAddr;

use cellwall_oracle::Objects;
use cellwall_policy::flow::Direction;
use cellwall_policy::model::{Cluster, Link};
use cellwall_testkit::frame::{HOST_MAC, POD_MAC, pod_mac};
use cellwall_testkit::fuzz::{Class, Coverage, Judge, Place, Sentence, generate, mutate};
use cellwall_testkit::objects::{Rng, read_objects};

use crate::cluster::cluster;

const CLUSTER: &str = "
nodeName: n1
nodeAddresses: [10.9.0.1, 'fd09::1']
nodes:
- {metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 10.9.0.1}, {type: InternalIP, address: 'fd09::1'}]}}
- {metadata: {name: n2}, status: {addresses: [{type: InternalIP, address: 10.9.0.2}, {type: InternalIP, address: 'fd09::2'}]}}
namespaces: [{metadata: {name: x}}]
pods:
- {metadata: {namespace: x, name: app, labels: {p: app}}, spec: {nodeName: n1, containers: []}, status: {phase: Running, podIP: 10.244.0.11, podIPs: [{ip: 10.244.0.11}, {ip: 'fd00:244::11'}]}}
- {metadata: {namespace: x, name: friend, labels: {p: friend}}, spec: {nodeName: n2, containers: []}, status: {phase: Running, podIP: 10.244.1.2, podIPs: [{ip: 10.244.1.2}, {ip: 'fd00:244:1::2'}]}}
policies:
- metadata: {namespace: x, name: p}
  spec:
    podSelector: {matchLabels: {p: app}}
    policyTypes: [Ingress, Egress]
    ingress:
    - {from: [{podSelector: {matchLabels: {p: friend}}}], ports: [{port: 80, endPort: 90}, {port: 53, protocol: UDP}, {port: 80, protocol: SCTP}]}
    - {from: [{ipBlock: {cidr: 198.51.100.0/24}}, {ipBlock: {cidr: '2001:db8:1::/48'}}]}
    egress:
    - {to: [{podSelector: {matchLabels: {p: friend}}}], ports: [{port: 443}, {port: 53, protocol: UDP}, {port: 443, protocol: SCTP}]}
    - {to: [{ipBlock: {cidr: 198.51.100.0/24}}, {ipBlock: {cidr: '2001:db8:1::/48'}}]}
";

/// Friend, range of the world, stranger, another node, own node.
pub(crate) const REMOTES: [[&str; 5]; 2] = [
    ["10.244.1.2", "198.51.100.7", "192.0.2.9", "10.9.0.2", "10.9.0.1"],
    ["fd00:244:1::2", "2001:db8:1::7", "2001:db8::9", "fd09::2", "fd09::1"],
];

pub(crate) fn objects() -> Objects {
    read_objects(CLUSTER).expect("objects")
}

pub(crate) fn place(pod_mac: [u8; 6], other_mac: [u8; 6]) -> Place {
    let pod = ["10.244.0.11", "fd00:244::11"].map(|text| text.parse().expect("an address"));
    Place { pod, remotes: REMOTES.map(|all| addresses(&all)), pod_mac, other_mac }
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

/// As built frames have them.
pub(crate) fn usual_place() -> Place {
    place(POD_MAC, HOST_MAC)
}

pub(crate) fn judge(place: &Place) -> Judge {
    let nodes = REMOTES.iter().flat_map(|all| addresses(&all[3..])).collect();
    Judge::new(objects(), place.clone(), nodes)
}

/// The cluster with the pod behind this interface; without policies nothing is isolated.
pub(crate) fn cluster_at(ifindex: u32, mac: [u8; 6], with_policies: bool) -> Cluster {
    let mut cluster = cluster(&objects());
    if !with_policies {
        cluster.policies.clear();
    }
    let links = std::mem::take(&mut cluster.links);
    let mac = cellwall_abi::Mac::from_octets(mac);
    cluster.links = links.into_values().map(|link| (ifindex, Link { ifindex, mac, ..link })).collect();
    assert_eq!(cluster.links.len(), 1);
    cluster
}

/// The Ethernet address that built frames have is the one of their constant.
pub(crate) fn at_hook(ifindex: u32) -> Cluster {
    assert_eq!(pod_mac().octets(), POD_MAC);
    cluster_at(ifindex, POD_MAC, true)
}

/// The next frame: from the grammar, or one that reached something, spoilt.
pub(crate) fn next(rng: &mut Rng, class: Class, place: &Place, seen: &Coverage) -> (Direction, Vec<u8>) {
    let direction = *rng.pick(&Direction::ALL);
    let pool = seen.pool();
    if pool.is_empty() || rng.percent(60) {
        let frame = generate(rng, class, place, direction);
        return if rng.percent(10) { (direction, mutate(rng, &frame, &frame)) } else { (direction, frame) };
    }
    let (direction, frame) = rng.pick(pool).clone();
    let (_, other) = rng.pick(pool);
    (direction, mutate(rng, &frame, other))
}

/// The frame that comes back: hardware addresses, addresses and ports change places, which no checksum notices.
pub(crate) fn back(frame: &[u8]) -> Vec<u8> {
    let ends: &[(usize, usize)] = match frame.get(12..14) {
        Some([0x08, 0x00]) => &[(0, 6), (26, 4), (34, 2)],
        Some([0x86, 0xdd]) => &[(0, 6), (22, 16), (54, 2)],
        _ => &[(0, 6)],
    };
    let mut frame = frame.to_vec();
    for (first, length) in ends {
        let end = frame.len();
        for at in (*first..first + length).filter(|at| at + length < end) {
            frame.swap(at, at + length);
        }
    }
    frame
}

/// What is wrong with what became of a frame.
pub(crate) fn wrong(sentence: Sentence, passes: bool) -> Option<&'static str> {
    match (sentence, passes) {
        (Sentence::Never, true) => Some("passes, and the judge denies it"),
        (Sentence::Must, false) => Some("is dropped, and the judge allows it"),
        _ => None,
    }
}

pub(crate) fn hex(frame: &[u8]) -> String {
    frame.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
