//! Who has which address, and which pod is behind which interface.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::report::{Unplaced, UnplacedReason};
use crate::model::{Announced, Cluster, Link, ObjectKey, Pod, Problem};

/// Who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner<'a> {
    /// This pod.
    Pod(&'a Pod),
    /// Several pods claim it and nothing tells which is right.
    Contested,
}

/// The better a claim, the greater: of a pod of this node that was given the address just now before others, not
/// leaving before leaving, running before not, newer before older (S81, S82).
fn claim(cluster: &Cluster, pod: &Pod) -> (bool, bool, bool, i64) {
    let announced = cluster.announcement_of(pod).is_some();
    (announced, !pod.deleting, pod.phase == crate::model::Phase::Running, pod.created_s)
}

/// The owner of every pod address of the cluster, and what is wrong with them.
pub(crate) fn owners(cluster: &Cluster) -> (BTreeMap<IpAddr, Owner<'_>>, Vec<Problem>) {
    among(cluster, cluster.pods.values())
}

/// The owner of every address among some pods.
fn among<'a>(
    cluster: &'a Cluster,
    pods: impl Iterator<Item = &'a Pod>,
) -> (BTreeMap<IpAddr, Owner<'a>>, Vec<Problem>) {
    let mut claims: BTreeMap<IpAddr, Vec<&Pod>> = BTreeMap::new();
    for pod in pods {
        for address in cluster.addresses_of(pod) {
            claims.entry(*address).or_default().push(pod);
        }
    }
    let mut problems = Vec::new();
    let owners = claims
        .into_iter()
        .map(|(address, pods)| {
            let best = pods.iter().map(|pod| claim(cluster, pod)).max();
            let mut winners = pods.iter().filter(|pod| Some(claim(cluster, pod)) == best);
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
    /// Interfaces of which nobody can tell whose they are, and pods with more than one.
    pub(crate) problems: Vec<Problem>,
}

/// Finds the pod behind every interface: the one that was announced there, else by the addresses at its other end.
/// Only pods of this node can be there: that a pod elsewhere has a better claim to an address says nothing about who
/// is behind an interface here. Where nobody is, it is whoever was there last.
pub(crate) fn places(cluster: &Cluster) -> Places<'_> {
    let (owners, _) = among(cluster, cluster.pods.values().filter(|pod| pod.node == cluster.node_name));
    let announced = Announcements::new(cluster);
    let place = |link| announced.behind(link).unwrap_or_else(|| behind(cluster, &owners, link));
    let links: Vec<(&Link, Behind<'_>)> = cluster.links.values().map(|link| (link, place(link))).collect();
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
    let is_contested = |(_, behind): &&(&Link, Behind<'_>)| *behind == Behind::Contested;
    let contested = links.iter().filter(is_contested);
    let closed = contested.filter_map(|(link, _)| closed(link, &announced.claimants(&owners, link)));
    let problems = closed.chain(doubled(&links)).filter(|_| !crate::planted("who-is-closed-is-not-told"));
    let problems = problems.collect();
    Places { links, unplaced, problems }
}

/// Of an interface that several pods would be behind.
fn closed(link: &Link, claimants: &BTreeSet<ObjectKey>) -> Option<Problem> {
    let mut claimants = claimants.iter();
    let (first, second) = (claimants.next()?, claimants.next()?);
    let others = claimants.count();
    let others = if others == 0 { String::new() } else { format!(" and {others} more") };
    Some(Problem {
        object: first.clone(),
        field: String::new(),
        message: format!(
            "interface {} would be this pod's and that of {second}{others}, and nobody can tell whose it is: it is closed \
             until all but one of them are deleted",
            link.name
        ),
    })
}

/// Of every pod that several interfaces lead to.
fn doubled<'a>(links: &[(&'a Link, Behind<'a>)]) -> impl Iterator<Item = Problem> + 'a {
    let mut by_pod: BTreeMap<(ObjectKey, &str), Vec<&Link>> = BTreeMap::new();
    for (link, behind) in links {
        if let Behind::Pod(pod) = behind {
            by_pod.entry((pod.key(), pod.uid.as_str())).or_default().push(link);
        }
    }
    by_pod.into_iter().filter_map(|((object, _), links)| {
        let [first, second, ..] = links[..] else { return None };
        let message = format!(
            "interfaces {} and {} of this node lead to its addresses, and one of them is not its own: its policies are \
             enforced at each. See what is behind them (ip -d link), and delete the pod that should not be there",
            first.name, second.name
        );
        Some(Problem { object, field: String::new(), message })
    })
}

/// What was announced, by interface.
#[derive(Debug)]
struct Announcements<'a> {
    cluster: &'a Cluster,
    by_index: BTreeMap<u32, Vec<&'a Announced>>,
    /// Those that name no interface.
    elsewhere: Vec<&'a Announced>,
}

impl<'a> Announcements<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let mut by_index: BTreeMap<u32, Vec<&Announced>> = BTreeMap::new();
        for announced in cluster.announced.values() {
            for (ifindex, _) in &announced.interfaces {
                by_index.entry(*ifindex).or_default().push(announced);
            }
        }
        let elsewhere = cluster.announced.values().filter(|a| a.interfaces.is_empty()).collect();
        Self { cluster, by_index, elsewhere }
    }

    /// What was announced at an interface.
    fn at(&self, link: &Link) -> impl Iterator<Item = &'a Announced> {
        let here = self.by_index.get(&link.ifindex).into_iter().flatten().chain(&self.elsewhere);
        here.copied().filter(|announced| announced.is_at(link))
    }

    /// Who would be behind an interface: the pods that were announced there, else those of this node with its addresses.
    fn claimants(&self, owners: &BTreeMap<IpAddr, Owner<'_>>, link: &Link) -> BTreeSet<ObjectKey> {
        let announced: BTreeSet<ObjectKey> = self.at(link).map(|announced| announced.pod.clone()).collect();
        if !announced.is_empty() {
            return announced;
        }
        let cluster = self.cluster;
        let may_be = |pod: &Pod, address: &IpAddr| {
            let is_owner = owners.get(address).is_some_and(|owner| match owner {
                Owner::Pod(owner) => owner.key() == pod.key(),
                Owner::Contested => true,
            });
            is_owner && cluster.addresses_of(pod).contains(address)
        };
        let here = cluster.pods.values().filter(|pod| pod.node == cluster.node_name);
        here.filter(|pod| link.addresses.iter().any(|address| may_be(pod, address))).map(Pod::key).collect()
    }

    /// The announced pod; whoever was there last while only its announcement is known. `None`: nothing was announced here.
    fn behind(&self, link: &Link) -> Option<Behind<'a>> {
        let mut here = self.at(link);
        let announced = here.next()?;
        if here.next().is_some() {
            return Some(Behind::Contested);
        }
        let cluster = self.cluster;
        let pod = cluster
            .pods
            .get(&announced.pod)
            .filter(|pod| pod.has_own_network() && cluster.announcement_of(pod).is_some());
        let nobody = || {
            if crate::planted("a-name-opens-an-interface") { Behind::Unknown } else { left(cluster, link) }
        };
        Some(pod.map_or_else(nobody, Behind::Pod))
    }
}

/// Who was behind an interface when an earlier agent ended, where nobody is known to be there.
fn left<'a>(cluster: &Cluster, link: &Link) -> Behind<'a> {
    let left = cluster.left.get(&link.ifindex).map(|left| left.isolated);
    left.filter(|isolated| isolated.contains(&true)).map_or(Behind::Unknown, Behind::Left)
}

fn behind<'a>(cluster: &'a Cluster, owners: &BTreeMap<IpAddr, Owner<'a>>, link: &Link) -> Behind<'a> {
    let left = left(cluster, link);
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
    } else if cluster.addresses_of(pod).is_empty() {
        UnplacedReason::NoAddress
    } else if cluster
        .links
        .values()
        .any(|link| link.addresses.iter().any(|a| cluster.addresses_of(pod).contains(a)))
    {
        UnplacedReason::AddressTaken
    } else {
        UnplacedReason::NoInterface
    }
}
