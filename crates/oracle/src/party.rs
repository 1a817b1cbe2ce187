//! Who an address belongs to.

use core::net::IpAddr;

use crate::{
    block,
    objects::{
        Objects,
        api::{ObjectMeta, Pod, Timestamp},
    },
    statements::Notes,
};

/// The owner of an address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Party<'a> {
    /// A pod with an address of its own.
    Pod(&'a Pod),
    /// Some pod, and nobody knows which: an address of a pod range that no known pod has, or that two pods claim
    /// with equal right. No peer of an allow rule matches it (S84).
    UnknownPod,
    /// A node, and on it at least one pod that uses the node's network (S60).
    HostNetwork,
    /// A node without such pods, or the world outside.
    Outside,
}

/// The pod at whose interface flows with this local address are seen: a pod of this node, with a network of its own,
/// that has not ended.
///
/// If several claim the address, the same order decides as among owners. An interface tells even two equal ones
/// apart and an address cannot: there is no answer then, and a flow of that address is no question to ask.
#[must_use]
pub fn subject(objects: &Objects, address: IpAddr) -> Option<&Pod> {
    let is_local =
        |pod: &&Pod| pod.spec.as_ref().and_then(|s| s.node_name.as_ref()) == Some(&objects.node_name);
    let claimants: Vec<_> = claimants(objects, address).filter(is_local).collect();
    strongest(&claimants)
}

/// The owner of an address, as a peer.
pub(crate) fn at<'a>(objects: &'a Objects, address: IpAddr, notes: &Notes) -> Party<'a> {
    let ended = objects.pods.iter().filter(|pod| is_terminal(pod) && has_address(pod, address)).count();
    notes.note_if(81, ended > 0);
    let claimants: Vec<_> = claimants(objects, address).collect();
    notes.note_if(82, claimants.len() > 1);
    if !claimants.is_empty() {
        return strongest(&claimants).map_or(Party::UnknownPod, Party::Pod);
    }
    let host_network = |pod: &&Pod| is_host_network(pod) && !is_terminal(pod) && has_address(pod, address);
    if objects.pods.iter().any(|pod| host_network(&pod)) {
        notes.note(60);
        return Party::HostNetwork;
    }
    if !is_of_a_node(objects, address) && is_in_pod_range(objects, address) {
        return Party::UnknownPod;
    }
    Party::Outside
}

/// Pods with a network of their own that have not ended and have the address.
fn claimants(objects: &Objects, address: IpAddr) -> impl Iterator<Item = &Pod> {
    objects
        .pods
        .iter()
        .filter(move |pod| !is_host_network(pod) && !is_terminal(pod) && has_address(pod, address))
}

/// The pod with the best claim, if one is better than all others.
fn strongest<'a>(claimants: &[&'a Pod]) -> Option<&'a Pod> {
    let best = claimants.iter().map(|pod| claim(pod)).max()?;
    let mut owners = claimants.iter().filter(|pod| claim(pod) == best);
    owners.next().filter(|_| owners.next().is_none()).copied()
}

/// How good a pod's claim to its address is; the greater, the better. Pods that stay come before pods that are being
/// deleted, then running ones before others, then the newest: the order in which an address changes hands.
fn claim(pod: &Pod) -> (bool, bool, Option<Timestamp>) {
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (!is_deleting(pod), phase(pod) == Some("Running"), created)
}

fn is_in_pod_range(objects: &Objects, address: IpAddr) -> bool {
    let of_nodes = objects.nodes.iter().filter_map(|node| node.spec.as_ref());
    let mut written = of_nodes.flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr));
    objects.pod_cidrs.iter().any(|range| range.contains(&address))
        || written.any(|text| block::parse(text).is_some_and(|range| range.contains(&address)))
}

fn is_of_a_node(objects: &Objects, address: IpAddr) -> bool {
    let statuses = objects.nodes.iter().filter_map(|node| node.status.as_ref());
    let mut written = statuses.flat_map(|status| status.addresses.iter().flatten());
    objects.node_addresses.contains(&address)
        || written.any(|a| a.address.parse() == Ok(address))
        || is_network_address(objects, address)
}

/// The first address of a node's pod range is a network's name and no host's: overlays give it to the node.
fn is_network_address(objects: &Objects, address: IpAddr) -> bool {
    let of_nodes = objects.nodes.iter().filter_map(|node| node.spec.as_ref());
    let mut written = of_nodes.flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr));
    written.any(|text| {
        block::parse(text).is_some_and(|range| {
            range.network() == address && range.max_prefix_len() - range.prefix_len() > 1
        })
    })
}

/// All addresses of a pod. "If this field (podIPs) is specified, the 0th entry must match the podIP field."
pub(crate) fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    let status = pod.status.iter();
    status
        .flat_map(|status| status.pod_ip.iter().chain(status.pod_ips.iter().flatten().map(|ip| &ip.ip)))
        .filter_map(|text| text.parse().ok())
}

fn has_address(pod: &Pod, address: IpAddr) -> bool {
    addresses(pod).any(|a| a == address)
}

/// "Succeeded: All containers in the pod have terminated in success, and will not be restarted. Failed: All containers
/// in the pod have terminated": the address may be another pod's by now.
fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), Some("Succeeded" | "Failed"))
}

fn is_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

/// A pod that is being deleted keeps its address and its labels until it is gone (S83).
pub(crate) fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// Namespace and name of an object that has a namespace.
pub(crate) fn name(metadata: &ObjectMeta) -> (&str, &str) {
    (metadata.namespace.as_deref().unwrap_or("default"), metadata.name.as_deref().unwrap_or_default())
}
