//! From raw objects to tables, the way the agent goes: decoded, applied, compiled, planned.

use std::net::IpAddr;

use cellwall_kube::convert::{Decoded, decode};
use cellwall_oracle::{Objects, subject};
use cellwall_policy::compile::{Compiled, Compiler};
use cellwall_policy::model::{Change, Cluster, Link, Touched};
use cellwall_policy::plan::{Capacities, plan};
use cellwall_policy::wanted::{Observed, Wanted};
use cellwall_testkit::frame::pod_mac;
use cellwall_testkit::memory::after;
use serde_json::Value;

/// Key of the ids in the tables.
pub(crate) const SECRET: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

/// Room for every table that a test makes.
pub(crate) const ROOM: Capacities =
    Capacities { endpoints: 64, addresses: 1024, prefixes: 1024, policy: 8192, ports: 8192, services: 1024 };

/// What a node is told about these objects, interfaces included.
pub(crate) fn changes(objects: &Objects) -> Vec<Change> {
    changes_of(objects, objects.values())
}

/// The same, with the objects as they are served: they may say more than is known here.
fn changes_of(objects: &Objects, served: Vec<Value>) -> Vec<Change> {
    let mut changes = vec![Change::NodeAddresses(objects.node_addresses.clone())];
    for value in served {
        match decode(value) {
            Decoded::Object(_, told) => changes.extend(told),
            other => panic!("no object of ours: {other:?}"),
        }
    }
    changes.extend(links(objects).into_iter().map(Change::Link));
    changes
}

/// An interface for every pod that some address leads to.
pub(crate) fn links(objects: &Objects) -> Vec<Link> {
    let mut links = Vec::new();
    for pod in &objects.pods {
        let addresses: Vec<IpAddr> = own_addresses(pod)
            .filter(|address| subject(objects, *address).is_some_and(|found| std::ptr::eq(found, pod)))
            .collect();
        if !addresses.is_empty() {
            let ifindex = interface_of(pod);
            let name = format!("veth{ifindex:x}");
            links.push(Link { ifindex, name, addresses, mac: pod_mac(), preexisting: false });
        }
    }
    links
}

/// The same pod has the same interface, wherever it stands in a list: a hash of its name (FNV-1a), above the numbers
/// that other interfaces of a test have.
fn interface_of(pod: &cellwall_oracle::api::Pod) -> u32 {
    let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
    let text =
        format!("{}/{}", namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default());
    let hash =
        text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash >> 1 | 1 << 24
}

fn own_addresses(pod: &cellwall_oracle::api::Pod) -> impl Iterator<Item = IpAddr> + '_ {
    let mut seen = Vec::new();
    let status = pod.status.iter();
    let texts = status.flat_map(|s| s.pod_ip.iter().chain(s.pod_ips.iter().flatten().map(|ip| &ip.ip)));
    texts.filter_map(|text| text.parse().ok()).filter(move |address| {
        let new = !seen.contains(address);
        seen.push(*address);
        new
    })
}

/// The cluster as this node knows it.
pub(crate) fn cluster(objects: &Objects) -> Cluster {
    cluster_of(objects, objects.values())
}

fn cluster_of(objects: &Objects, served: Vec<Value>) -> Cluster {
    let mut cluster = Cluster::new(&objects.node_name);
    cluster.pod_cidrs.clone_from(&objects.pod_cidrs);
    for change in changes_of(objects, served) {
        cluster.apply(change, &mut Touched::default());
    }
    cluster
}

/// Compiled from scratch.
pub(crate) fn compiled(objects: &Objects, served: Vec<Value>) -> Compiled {
    Compiler::new(SECRET).compile(&cluster_of(objects, served), &Touched::default())
}

/// The tables after the plan from `observed`.
pub(crate) fn planned(wanted: &Wanted, observed: &Observed) -> Observed {
    let ops = plan(wanted, observed, &ROOM, 1000).expect("there is room");
    after(observed, &ops)
}
