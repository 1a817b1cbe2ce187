//! The class of every address and prefix.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::IpAddr;

use cellwall_abi::{CLASS_NODE, CLASS_UNKNOWN_POD, CLASS_WORLD};
use ipnet::IpNet;

use super::blocks::{Blocks, Finder};
use super::intern::Interner;
use super::place::Owner;
use super::sets::PeerSet;
use crate::model::{Cluster, Node, ObjectKey, Phase, Pod};
use crate::prefix::Prefixes;

/// Classes by content.
#[derive(Debug)]
pub(crate) struct Classes<'a> {
    ids: &'a mut Interner<Vec<u32>>,
    /// What the classes in use mean, without the world and the unknown pod.
    pub(crate) contents: BTreeMap<u32, Vec<u32>>,
}

/// What pods are in by their labels: remembered, since most pods and sets do not change from one time to the next.
pub(crate) type Memberships = BTreeMap<(ObjectKey, IpAddr), Vec<u32>>;

impl<'a> Classes<'a> {
    pub(crate) fn new(ids: &'a mut Interner<Vec<u32>>) -> Self {
        Self { ids, contents: BTreeMap::new() }
    }

    fn of(&mut self, sets: Vec<u32>) -> u32 {
        if sets.is_empty() {
            return CLASS_WORLD;
        }
        let id = self.ids.id(&sets);
        self.contents.entry(id).or_insert(sets);
        id
    }

    /// The class of an address of a node: told apart, since tunnels end there.
    fn of_node(&mut self, sets: Vec<u32>) -> u32 {
        let id = CLASS_NODE | if sets.is_empty() { CLASS_WORLD } else { self.ids.id(&sets) };
        self.contents.entry(id).or_insert(sets);
        id
    }

    /// The class of every prefix: by blocks, and an unknown pod in a pod range. Those that say what the prefix
    /// above says are left out.
    pub(crate) fn prefixes(&mut self, cluster: &Cluster, blocks: &Blocks) -> BTreeMap<IpNet, u32> {
        let ranges: BTreeSet<IpNet> = pod_ranges(cluster).collect();
        let in_range = |net: &IpNet| ranges.iter().any(|range| range.contains(net));
        let mut all: BTreeMap<IpNet, u32> = BTreeMap::new();
        for (net, sets) in blocks.nodes().filter(|(net, _)| !in_range(net)) {
            all.insert(*net, self.of(sets.clone()));
        }
        all.extend(ranges.iter().map(|range| (*range, CLASS_UNKNOWN_POD)));
        let mut above: Vec<(IpNet, u32)> = Vec::new();
        all.retain(|net, class| {
            while above.last().is_some_and(|(upper, _)| !upper.contains(net)) {
                above.pop();
            }
            let says_more = above.last().map_or(CLASS_WORLD, |(_, class)| *class) != *class;
            above.push((*net, *class));
            says_more
        });
        all
    }

    /// The class of every pod's and node's address that its prefix does not give it already.
    pub(crate) fn addresses(
        &mut self,
        cluster: &Cluster,
        owners: &BTreeMap<IpAddr, Owner<'_>>,
        sets: &BTreeMap<u32, PeerSet>,
        blocks: &Finder<'_>,
        prefixes: &BTreeMap<IpNet, u32>,
        memberships: &mut Memberships,
    ) -> BTreeMap<IpAddr, u32> {
        let mut addresses = BTreeMap::new();
        // Pods that use their node's network are there like nodes: blocks have them, selectors do not (S60).
        let live = cluster.pods.values().filter(|pod| pod.phase != Phase::Terminal);
        for address in live.filter(|pod| pod.host_network).flat_map(|pod| &pod.addresses) {
            addresses.insert(*address, self.of_node(blocks.sets(*address).to_vec()));
        }
        for address in &cluster.node_addresses {
            addresses.insert(*address, self.of_node(blocks.sets(*address).to_vec()));
        }
        for node in cluster.nodes.values() {
            let by_labels: Vec<u32> =
                sets.iter().filter(|(_, set)| set.has_node(node)).map(|(id, _)| *id).collect();
            for address in node.addresses.iter().copied().chain(overlay_addresses(node)) {
                addresses.insert(address, self.of_node(union(&by_labels, blocks.sets(address))));
            }
        }
        for (address, owner) in owners {
            let class = match owner {
                Owner::Pod(pod) => {
                    let by_labels = memberships
                        .entry((pod.key(), *address))
                        .or_insert_with(|| sets_of(cluster, pod, *address, sets));
                    self.of(union(by_labels, blocks.sets(*address)))
                }
                Owner::Contested => CLASS_UNKNOWN_POD,
            };
            addresses.insert(*address, class);
        }
        let by_prefix = Prefixes::new(prefixes);
        addresses.retain(|address, class| by_prefix.address(*address).unwrap_or(&CLASS_WORLD) != class);
        addresses
    }
}

/// `spec.podCIDRs` of all nodes and the ranges of the settings.
fn pod_ranges(cluster: &Cluster) -> impl Iterator<Item = IpNet> + '_ {
    let of_nodes = cluster.nodes.values().filter(|_| !crate::planted("pod-range-is-the-world"));
    let of_nodes = of_nodes.flat_map(|node| &node.pod_cidrs);
    of_nodes.chain(&cluster.pod_cidrs).map(IpNet::trunc)
}

/// The network addresses of the node's pod ranges: overlays give them to the node itself (flannel's `flannel.1`, from which
/// its processes reach pods elsewhere), and no pod has them; where one does, it is that pod's.
fn overlay_addresses(node: &Node) -> impl Iterator<Item = IpAddr> + '_ {
    let with_hosts = |range: &&IpNet| range.max_prefix_len() - range.prefix_len() >= 2;
    let is_known = !crate::planted("overlay-addresses-are-pods");
    node.pod_cidrs.iter().filter(with_hosts).map(IpNet::network).filter(move |_| is_known)
}

fn sets_of(cluster: &Cluster, pod: &Pod, address: IpAddr, sets: &BTreeMap<u32, PeerSet>) -> Vec<u32> {
    sets.iter().filter(|(_, set)| set.has_pod(cluster, pod, address)).map(|(id, _)| *id).collect()
}

/// The union of two sorted lists.
fn union(a: &[u32], b: &[u32]) -> Vec<u32> {
    if b.is_empty() {
        return a.to_vec();
    }
    a.iter().chain(b).copied().collect::<BTreeSet<u32>>().into_iter().collect()
}
