//! Addresses for pods that have none: manifests in a repository do not say which their pods will get.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use cellwall_policy::model::{Cluster, Peer, Phase};
use ipnet::IpNet;

/// Where addresses are taken from when no pod range is given: the range for tests of devices (RFC 2544, RFC 6890),
/// and a local one (RFC 4193). No pod of a cluster should have one of these, and no server.
pub const STAND_INS: [&str; 2] = ["198.18.0.0/15", "fd63:656c:6c77::/48"];

/// Gives an address of each family to every pod without one, from the first of `ranges` in its family. Addresses in
/// `asked` are those of somebody else. Pods with their node's network get their node's, and two of one node the same.
///
/// What a person should know about it is the result.
pub(crate) fn assign(cluster: &mut Cluster, ranges: &[IpNet], asked: &BTreeSet<IpAddr>) -> Option<String> {
    let defaults = STAND_INS.map(|range| range.parse().expect("a range"));
    let ranges = if ranges.is_empty() { &defaults[..] } else { ranges };
    let mut used: BTreeSet<IpAddr> = asked.clone();
    used.extend(cluster.pods.values().flat_map(|pod| &pod.addresses));
    used.extend(cluster.nodes.values().flat_map(|node| &node.addresses));
    used.extend(
        cluster.services.values().flat_map(|s| s.cluster_addresses.iter().chain(&s.external_addresses)),
    );
    used.extend(cluster.slices.values().flat_map(|slice| &slice.addresses));
    let mut sources: Vec<_> = [true, false]
        .into_iter()
        .filter_map(|ipv4| ranges.iter().find(|range| range.addr().is_ipv4() == ipv4))
        .map(IpNet::hosts)
        .collect();
    let mut next = || -> Vec<IpAddr> {
        sources.iter_mut().filter_map(|source| source.find(|address| !used.contains(address))).collect()
    };

    let mut nodes: BTreeMap<String, Vec<IpAddr>> =
        cluster.nodes.iter().map(|(name, node)| (name.clone(), node.addresses.clone())).collect();
    nodes.retain(|_, addresses| !addresses.is_empty());
    let (mut without, mut count) = (0, 0);
    for pod in
        cluster.pods.values_mut().filter(|pod| pod.addresses.is_empty() && pod.phase != Phase::Terminal)
    {
        pod.addresses = if pod.host_network && !pod.node.is_empty() {
            nodes.entry(pod.node.clone()).or_insert_with(&mut next).clone()
        } else {
            next()
        };
        without += usize::from(pod.addresses.is_empty());
        count += 1;
    }
    if without > 0 {
        return Some(format!("some pods have no address ({without}), and --pod-cidr has none left for them"));
    }
    let has_blocks = cluster
        .policies
        .values()
        .flat_map(|policy| policy.rules.iter().flatten())
        .any(|rule| rule.peers.iter().flatten().any(|peer| matches!(peer, Peer::Block(_))));
    (count > 0 && has_blocks && ranges == defaults).then(|| {
        format!(
            "some rules have an ipBlock, and some pods have no address in their manifests ({count}): these rules \
             see addresses out of {} for them; --pod-cidr says which the cluster has",
            STAND_INS.join(" and ")
        )
    })
}
