//! Who has which address, and which pod is behind which interface.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::report::{Unplaced, UnplacedReason};
use crate::model::{Cluster, Link, Pod, Problem};

/// Who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner<'a> {
    /// This pod.
    Pod(&'a Pod),
    /// Several pods claim it and nothing tells which is right.
    Contested,
}

/// The better a claim, the greater: not leaving before leaving, running before not, newer before older (S81, S82).
fn claim(pod: &Pod) -> (bool, bool, i64) {
    (!pod.deleting, pod.phase == crate::model::Phase::Running, pod.created_s)
}

/// The owner of every pod address of the cluster, and what is wrong with them.
pub(crate) fn owners(cluster: &Cluster) -> (BTreeMap<IpAddr, Owner<'_>>, Vec<Problem>) {
    among(cluster.pods.values())
}

/// The owner of every address among some pods.
fn among<'a>(pods: impl Iterator<Item = &'a Pod>) -> (BTreeMap<IpAddr, Owner<'a>>, Vec<Problem>) {
    let mut claims: BTreeMap<IpAddr, Vec<&Pod>> = BTreeMap::new();
    for pod in pods.filter(|pod| pod.has_own_addresses()) {
        for address in &pod.addresses {
            claims.entry(*address).or_default().push(pod);
        }
    }
    let mut problems = Vec::new();
    let owners = claims
        .into_iter()
        .map(|(address, pods)| {
            let best = pods.iter().map(|pod| claim(pod)).max();
            let mut winners = pods.iter().filter(|pod| Some(claim(pod)) == best);
            let owner = match (winners.next(), winners.next()) {
                (Some(pod), None) => Owner::Pod(pod),
                (Some(first), Some(second)) => {
                    problems.push(contested(first, second, address));
                    Owner::Contested
                }
                (None, _) => Owner::Contested,
            };
            (address, owner)
        })
        .collect();
    (owners, problems)
}

fn contested(first: &Pod, second: &Pod, address: IpAddr) -> Problem {
    Problem {
        object: first.key(),
        field: String::from("status.podIPs"),
        message: format!(
            "{address} is also claimed by {}, and neither is newer: until one of them is gone the address matches no \
             allow rule, and an interface with it is closed",
            second.key()
        ),
    }
}

/// What is known of the pod behind an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind<'a> {
    /// This pod.
    Pod(&'a Pod),
    /// One of several.
    Contested,
    /// Nobody that is known, where somebody was isolated in these directions.
    Left([bool; 2]),
    /// Nobody that is known.
    Unknown,
}

/// Interfaces with what is behind them, and the pods of this node that are behind none.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    pub(crate) links: Vec<(&'a Link, Behind<'a>)>,
    pub(crate) unplaced: Vec<Unplaced>,
}

/// Finds the pod behind every interface by the addresses at its other end. Only pods of this node can be there:
/// that a pod elsewhere has a better claim to an address says nothing about who is behind an interface here. Where
/// nobody is, it is whoever was there last.
pub(crate) fn places(cluster: &Cluster) -> Places<'_> {
    let (owners, _) = among(cluster.pods.values().filter(|pod| pod.node == cluster.node_name));
    let links: Vec<(&Link, Behind<'_>)> =
        cluster.links.values().map(|link| (link, behind(cluster, &owners, link))).collect();
    let placed: BTreeSet<_> = links
        .iter()
        .filter_map(
            |(_, behind)| if let Behind::Pod(pod) = behind { Some((pod.key(), &pod.uid)) } else { None },
        )
        .collect();
    let here = cluster.pods.values().filter(|pod| pod.node == cluster.node_name);
    let unplaced = here
        .filter(|pod| pod.phase != crate::model::Phase::Terminal && !placed.contains(&(pod.key(), &pod.uid)))
        .map(|pod| Unplaced { pod: pod.key(), reason: why_unplaced(cluster, pod) })
        .collect();
    Places { links, unplaced }
}

fn behind<'a>(cluster: &'a Cluster, owners: &BTreeMap<IpAddr, Owner<'a>>, link: &Link) -> Behind<'a> {
    let left = cluster.left.get(&link.ifindex).map(|left| left.isolated);
    let left = left.filter(|isolated| isolated.contains(&true)).map_or(Behind::Unknown, Behind::Left);
    let mut found = cluster.departed.get(&link.ifindex).map_or(left, Behind::Pod);
    let mut is_claimed = false;
    for address in &link.addresses {
        let candidate = match owners.get(address) {
            Some(Owner::Pod(pod)) => Behind::Pod(pod),
            Some(Owner::Contested) => Behind::Contested,
            None => continue,
        };
        // Two addresses at one interface that belong to different pods.
        found = if is_claimed && found != candidate { Behind::Contested } else { candidate };
        is_claimed = true;
    }
    found
}

fn why_unplaced(cluster: &Cluster, pod: &Pod) -> UnplacedReason {
    if pod.host_network {
        UnplacedReason::HostNetwork
    } else if pod.addresses.is_empty() {
        UnplacedReason::NoAddress
    } else if cluster.links.values().any(|link| link.addresses.iter().any(|a| pod.addresses.contains(a))) {
        UnplacedReason::AddressTaken
    } else {
        UnplacedReason::NoInterface
    }
}
