//! What changes at a node beside the objects: settings, who is audited, what the CNI plugin tells of, addresses of the
//! node's own interfaces, and for what there is no room.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cellwall_policy::compile::LeftOut;
use cellwall_policy::model::{Announced, Change, Cluster, Kind, Link, Namespace, ObjectKey, Pod};
use cellwall_testkit::objects::{Rng, generate};

use crate::cluster::cluster;

/// Settings, which an agent has as long as it runs.
pub(crate) fn settings(cluster: &mut Cluster, rng: &mut Rng) {
    cluster.egress_to_own_node = rng.percent(40);
    cluster.audit_all = rng.percent(5);
}

/// What is told between two changes of objects. Objects are as the next list of them says.
pub(crate) fn changes(cluster: &Cluster, rng: &mut Rng) -> Vec<Change> {
    let mut changes = Vec::new();
    if rng.percent(30) {
        changes.extend(any(cluster.pods.values(), rng).map(|pod| audited(pod.clone())));
    }
    if rng.percent(20) {
        let namespace = any(cluster.namespaces.values(), rng).cloned();
        changes.extend(namespace.map(|n| Change::Namespace(Namespace { audit: !n.audit, ..n })));
    }
    if rng.percent(25) {
        changes.push(node_addresses(cluster, rng));
    }
    for _ in 0..rng.below(3) {
        changes.extend(announced(cluster, rng));
    }
    changes
}

/// Objects for which there is no room: policies, Services, host ports of a pod, and what pods may send to their node.
pub(crate) fn left_out(cluster: &Cluster, rng: &mut Rng) -> LeftOut {
    if rng.percent(60) {
        return LeftOut::new();
    }
    let node = ObjectKey::cluster(Kind::Node, &cluster.node_name);
    let with_ports = cluster.pods.values().filter(|pod| !pod.host_ports.is_empty()).map(Pod::key);
    let services = cluster.services.keys().cloned();
    let all = cluster.policies.keys().cloned().chain(services).chain(with_ports).chain([node]);
    let all: Vec<ObjectKey> = all.collect();
    (0..rng.between(1, 3)).map(|_| (rng.pick(&all).clone(), "there is no room".to_owned())).collect()
}

fn any<T>(items: impl Iterator<Item = T>, rng: &mut Rng) -> Option<T> {
    let mut items: Vec<T> = items.collect();
    (!items.is_empty()).then(|| items.swap_remove(rng.below(items.len())))
}

fn audited(pod: Pod) -> Change {
    Change::Pod(Pod { audit: !pod.audit, ..pod })
}

/// One address more, perhaps a pod's, or one less.
fn node_addresses(cluster: &Cluster, rng: &mut Rng) -> Change {
    let mut addresses = cluster.node_addresses.clone();
    let first = addresses.pop_first();
    if rng.percent(70) {
        let known = cluster.pods.values().flat_map(|pod| pod.addresses.iter().copied());
        addresses.extend(first);
        addresses.extend(any(known.chain(fresh()), rng));
    }
    Change::NodeAddresses(addresses.into_iter().collect())
}

/// Addresses that no object names.
fn fresh() -> [IpAddr; 2] {
    ["10.1.0.30", "fd00:1::30"].map(|text| text.parse().expect("an address"))
}

/// What a plugin says of a pod of this node: most often what its status says, too.
fn announced(cluster: &Cluster, rng: &mut Rng) -> Option<Change> {
    let here = cluster.pods.values().filter(|pod| pod.node == cluster.node_name);
    let pod = any(here, rng)?;
    let uid = match rng.below(5) {
        0 => String::new(),
        1 => "another".to_owned(),
        _ => pod.uid.clone(),
    };
    let addresses = match rng.below(5) {
        0 => fresh().to_vec(),
        1 => any(cluster.pods.values(), rng)?.addresses.clone(),
        _ => pod.addresses.clone(),
    };
    let is_its = |link: &&Link| link.addresses.iter().any(|address| pod.addresses.contains(address));
    let link = match rng.below(4) {
        0 => None,
        1 => any(cluster.links.values(), rng),
        _ => cluster.links.values().find(is_its),
    };
    // The bridge first.
    let interfaces =
        link.into_iter().flat_map(|link| [(2, "cni0".to_owned()), (link.ifindex, link.name.clone())]);
    let interfaces = interfaces.collect();
    Some(Change::Announced(Announced { pod: pod.key(), uid, interfaces, addresses }))
}

#[test]
fn all_of_it_happens() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let (cluster, rng) = (cluster(&generate(seed)), &mut Rng::new(seed));
        let told = changes(&cluster, rng).into_iter().filter_map(|change| match change {
            Change::Pod(pod) => pod.audit.then_some("pods"),
            Change::Namespace(namespace) => namespace.audit.then_some("namespaces"),
            Change::NodeAddresses(own) => {
                Some(if own.len() < cluster.node_addresses.len() { "less" } else { "more" })
            }
            Change::Announced(announced) if announced.interfaces.is_empty() => Some("by address"),
            Change::Announced(_) => Some("by interface"),
            _ => None,
        });
        seen.extend(told);
        seen.extend(left_out(&cluster, rng).keys().map(|key| key.kind.name()));
    }
    let expected = [
        "NetworkPolicy",
        "Node",
        "Pod",
        "Service",
        "by address",
        "by interface",
        "less",
        "more",
        "namespaces",
        "pods",
    ];
    assert_eq!(seen, BTreeSet::from(expected));
}
