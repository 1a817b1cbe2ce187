//! What the objects of one cluster have in common: families, addresses, labels, names, ports.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::BTreeMap;

use cellwall_oracle::{
    Objects,
    api::{Namespace, Node, NodeAddress, NodeSpec, NodeStatus, ObjectMeta, Time, Timestamp},
};

use super::rng::Rng;

/// The namespaces.
pub(super) const NAMESPACES: [&str; 3] = ["x", "y", "z"];
/// Label keys of pods and namespaces, with their values. The empty value is one.
pub(super) const LABELS: [(&str, &[&str]); 4] = [
    ("app", &["a", "b", "c"]),
    ("tier", &["front", "back", ""]),
    ("track", &["old", "new"]),
    ("team", &["red", "blue"]),
];
/// Names of container ports; no container has the last.
pub(super) const PORT_NAMES: [&str; 4] = ["web", "dns", "api", "nobody"];
/// Port numbers of containers and policies.
pub(super) const PORTS: [u16; 8] = [1, 53, 80, 81, 443, 8080, 8081, 65535];
/// The protocols that have ports.
pub(super) const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// The choices that hold for the whole cluster.
pub(super) struct Universe {
    pub(super) ipv4: bool,
    pub(super) ipv6: bool,
}

/// The own node or the other one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Here,
    There,
}

impl Place {
    pub(super) const fn node_name(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::There => "there",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Here => 1,
            Self::There => 2,
        }
    }
}

impl Universe {
    pub(super) fn new(rng: &mut Rng) -> Self {
        match rng.below(10) {
            0..4 => Self { ipv4: true, ipv6: false },
            4..6 => Self { ipv4: false, ipv6: true },
            _ => Self { ipv4: true, ipv6: true },
        }
    }

    /// That of a cluster that was made before.
    pub(super) fn of(objects: &Objects) -> Self {
        let has = |ipv4| objects.node_addresses.iter().any(|address| address.is_ipv4() == ipv4);
        Self { ipv4: has(true), ipv6: has(false) }
    }

    /// An address of a node's pod range: 10.1.0.`host` or fd00:1::`host`, and 2 for the other node.
    pub(super) fn pod_addresses(&self, place: Place, host: u8) -> Vec<IpAddr> {
        let ipv4 = IpAddr::from([10, place.number(), 0, host]);
        let ipv6 = Ipv6Addr::new(0xfd00, place.number().into(), 0, 0, 0, 0, 0, host.into()).into();
        self.of_families(ipv4, ipv6)
    }

    pub(super) fn node_addresses(&self, place: Place) -> Vec<IpAddr> {
        let ipv4 = IpAddr::from([192, 168, 0, place.number()]);
        let ipv6 = Ipv6Addr::new(0xfd00, 0xf, 0, 0, 0, 0, 0, place.number().into()).into();
        self.of_families(ipv4, ipv6)
    }

    fn of_families(&self, ipv4: IpAddr, ipv6: IpAddr) -> Vec<IpAddr> {
        let ipv4 = self.ipv4.then_some(ipv4);
        ipv4.into_iter().chain(self.ipv6.then_some(ipv6)).collect()
    }

    /// Nodes, namespaces and settings; no pods and policies yet.
    pub(super) fn cluster(&self, rng: &mut Rng) -> Objects {
        let mut objects = Objects { node_name: Place::Here.node_name().into(), ..Objects::default() };
        objects.node_addresses = self.node_addresses(Place::Here);
        // The gateway of the pods: an address of the pod range that is the node's.
        objects.node_addresses.extend(self.pod_addresses(Place::Here, 14));
        // A watch may not have brought everything yet.
        objects.nodes.extend([Place::Here, Place::There].map(|place| self.node(place, rng)));
        if rng.percent(5) {
            objects.nodes.remove(rng.below(2));
        }
        objects.namespaces = NAMESPACES.map(|name| namespace(name, rng)).into();
        if rng.percent(5) {
            objects.namespaces.remove(rng.below(3));
        }
        if rng.percent(25) {
            let ranges = ["10.0.0.0/8", "10.3.0.0/28", "192.0.2.0/25", "fd00::/16", "fd99::/126"];
            objects.pod_cidrs = rng.many(2, |rng| rng.pick(&ranges).parse().expect("a range"));
        }
        objects
    }

    pub(super) fn node(&self, place: Place, rng: &mut Rng) -> Node {
        let ranges = self.pod_addresses(place, 0);
        let ranges: Vec<_> =
            ranges.iter().map(|a| format!("{a}/{}", if a.is_ipv4() { 27 } else { 123 })).collect();
        let mut addresses: Vec<_> = self.node_addresses(place).iter().map(ToString::to_string).collect();
        addresses.push(place.node_name().into());
        if rng.percent(20) {
            // An address that is known from the node alone and lies in its pod range.
            addresses.extend(self.pod_addresses(place, 12).iter().map(ToString::to_string));
        }
        let address = |address| NodeAddress { address, type_: "InternalIP".into() };
        Node {
            metadata: ObjectMeta { name: Some(place.node_name().into()), ..ObjectMeta::default() },
            spec: Some(NodeSpec {
                pod_cidr: ranges.first().cloned(),
                pod_cidrs: rng.percent(90).then_some(ranges),
                ..NodeSpec::default()
            }),
            status: Some(NodeStatus {
                addresses: Some(addresses.into_iter().map(address).collect()),
                ..NodeStatus::default()
            }),
        }
    }
}

pub(super) fn namespace(name: &str, rng: &mut Rng) -> Namespace {
    Namespace {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels: labels(rng),
            // What is being deleted is still there.
            deletion_timestamp: rng.percent(5).then(|| time(1_770_000_000)),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    }
}

pub(super) fn time(second: i64) -> Time {
    Time(Timestamp::from_second(second).expect("a time of this century"))
}

/// Each key in half of the cases; missing and empty maps too.
pub(super) fn labels(rng: &mut Rng) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for (key, values) in LABELS {
        if rng.percent(50) {
            labels.insert(key.into(), (*rng.pick(values)).into());
        }
    }
    (!labels.is_empty() || rng.percent(50)).then_some(labels)
}
