//! The questions that are worth asking about a cluster.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::{BTreeMap, BTreeSet};

use cellwall_oracle::{
    Flow, Objects,
    api::{Container, IPBlock, IntOrString, NetworkPolicyPeer, NetworkPolicyPort, Pod},
    subject,
};
use cellwall_policy::flow::{Direction, Protocol};
use ipnet::IpNet;

use super::rng::Rng;

/// At least so many flows for each generated cluster: 500, and as many more as nothing on a wire can ask.
const ENOUGH: usize = 700;
/// So many addresses at the borders of blocks for each family.
const BORDERS: usize = 10;

/// Flows at the borders of what the objects say: the same for the same objects, sorted, none twice.
///
/// Every address of every local pod in both directions with every other pod's address, addresses of pod ranges that
/// no pod has, addresses just inside and just outside of blocks and exceptions, and those of nodes; for each of these
/// pairs a few of all combinations of protocol and port, more where pairs are fewer, a third of them such as the
/// destination declares. A local address for which the
/// objects name no one owner is not asked about.
#[must_use]
pub fn flows(objects: &Objects) -> Vec<Flow> {
    at_least(objects, ENOUGH)
}

/// [`flows`], but at least about `enough` of them, where there are so many.
#[must_use]
pub fn at_least(objects: &Objects, enough: usize) -> Vec<Flow> {
    let mut rng = Rng::new(0);
    let locals: BTreeSet<_> = objects
        .pods
        .iter()
        .flat_map(addresses)
        .filter(|address| subject(objects, *address).is_some())
        .collect();
    let ports = ports(objects);
    let remotes = remotes(objects, &mut rng);
    let served = served(objects);

    let mut pairs = Vec::new();
    for &local in &locals {
        for direction in Direction::ALL {
            let same_family = remotes.iter().filter(|remote| remote.is_ipv4() == local.is_ipv4());
            pairs.extend(same_family.map(|&remote| (local, direction, remote)));
        }
    }
    let each = enough.div_ceil(pairs.len().max(1));
    let mut flows = BTreeSet::new();
    for (local, direction, remote) in pairs {
        let of_node = objects.node_addresses.contains(&remote);
        let mut points = BTreeSet::new();
        // A shrunken cluster may have fewer points than would be enough.
        for _ in 0..4 * each {
            if points.len() < each {
                let served = served.get(if direction == Direction::Egress { &remote } else { &local });
                points.insert(match served {
                    Some(served) if rng.percent(35) => *rng.pick(served),
                    _ => point(local.is_ipv4(), &ports, &mut rng),
                });
            }
        }
        for (protocol, port) in points {
            // What comes from the node mostly has its address, and need not.
            let from_own_node = direction == Direction::Ingress && rng.percent(if of_node { 50 } else { 3 });
            flows.insert(Flow { local, direction, remote, from_own_node, protocol, port });
        }
    }
    flows.into_iter().collect()
}

fn point(ipv4: bool, ports: &[u16], rng: &mut Rng) -> (Protocol, u16) {
    let protocol = match rng.below(20) {
        0..12 => Protocol::TCP,
        12..16 => Protocol::UDP,
        16..18 => Protocol::SCTP,
        18 if ipv4 => Protocol::ICMP,
        18 => Protocol::ICMPV6,
        // Something else that has no ports, and is no tunnel: those end at no node, whatever the policy.
        _ => Protocol(253),
    };
    (protocol, if protocol.has_ports() { *rng.pick(ports) } else { 0 })
}

/// What policies and containers name, thrice, and its neighbours, the ends of the range and a few others, once.
fn ports(objects: &Objects) -> Vec<u16> {
    let of_containers = objects.pods.iter().flat_map(containers).flat_map(|c| c.ports.iter().flatten());
    let mut named: BTreeSet<i32> = of_containers.map(|port| port.container_port).collect();
    for port in rules(objects).into_iter().flat_map(|(_, ports)| ports) {
        if let Some(IntOrString::Int(first)) = port.port {
            named.insert(first);
        }
        named.extend(port.end_port);
    }
    let mut others: BTreeSet<i32> = [1, 80, 443, 8080, 12345, 33333, 54321, 65535].into();
    others.extend(named.iter().flat_map(|port| [port.saturating_sub(1), port.saturating_add(1)]));
    let named: Vec<_> = named.into_iter().collect();
    let all = [named.as_slice(), &named, &named].concat().into_iter().chain(others);
    all.filter_map(|number| u16::try_from(number).ok()).filter(|&number| number > 0).collect()
}

/// What the containers of the pods of an address declare. Only addresses for which they declare anything.
fn served(objects: &Objects) -> BTreeMap<IpAddr, Vec<(Protocol, u16)>> {
    let mut served: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for pod in &objects.pods {
        for port in containers(pod).flat_map(|container| container.ports.iter().flatten()) {
            let Ok(number) = port.container_port.try_into() else { continue };
            let protocol = match port.protocol.as_deref() {
                Some("UDP") => Protocol::UDP,
                Some("SCTP") => Protocol::SCTP,
                _ => Protocol::TCP,
            };
            for address in addresses(pod) {
                served.entry(address).or_default().push((protocol, number));
            }
        }
    }
    served
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
}

fn remotes(objects: &Objects, rng: &mut Rng) -> BTreeSet<IpAddr> {
    let mut remotes: BTreeSet<IpAddr> = objects.pods.iter().flat_map(addresses).collect();
    remotes.extend(&objects.node_addresses);
    let statuses = objects.nodes.iter().filter_map(|node| node.status.as_ref());
    remotes.extend(
        statuses.flat_map(|s| s.addresses.iter().flatten()).filter_map(|a| a.address.parse::<IpAddr>().ok()),
    );
    remotes.extend(["192.0.2.1", "192.168.0.2", "10.3.0.1", "fd99::1", "fd00:f::2"].map(literal));
    // Addresses of pod ranges that no pod is made with.
    remotes.extend(["10.1.0.13", "10.2.0.13", "fd00:1::d", "fd00:2::d"].map(literal));

    let peers = rules(objects).into_iter().flat_map(|(peers, _)| peers);
    let blocks = peers.filter_map(|peer| peer.ip_block.as_ref()).flat_map(cidrs);
    let borders: BTreeSet<_> = blocks.flat_map(borders).collect();
    for ipv4 in [true, false] {
        let mut borders: Vec<_> = borders.iter().filter(|address| address.is_ipv4() == ipv4).collect();
        rng.shuffle(&mut borders);
        remotes.extend(borders.into_iter().take(BORDERS));
    }
    remotes
}

/// The blocks and holes that can be read without goodwill; the others lie around addresses that are asked about anyway.
fn cidrs(block: &IPBlock) -> impl Iterator<Item = IpNet> {
    core::iter::once(&block.cidr).chain(block.except.iter().flatten()).filter_map(|cidr| cidr.parse().ok())
}

/// The first and the last address of a block, and those before and after.
fn borders(net: IpNet) -> Vec<IpAddr> {
    let (first, last) = (net.network(), net.broadcast());
    let step = |address: IpAddr, by: i8| -> IpAddr {
        match address {
            IpAddr::V4(address) => Ipv4Addr::from(address.to_bits().wrapping_add_signed(by.into())).into(),
            IpAddr::V6(address) => Ipv6Addr::from(address.to_bits().wrapping_add_signed(by.into())).into(),
        }
    };
    vec![step(first, -1), first, last, step(last, 1)]
}

/// The peers and ports of every rule of every policy.
fn rules(objects: &Objects) -> Vec<(&[NetworkPolicyPeer], &[NetworkPolicyPort])> {
    let mut rules = Vec::new();
    for spec in objects.policies.iter().filter_map(|policy| policy.spec.as_ref()) {
        let ingress = spec.ingress.iter().flatten().map(|rule| (&rule.from, &rule.ports));
        let egress = spec.egress.iter().flatten().map(|rule| (&rule.to, &rule.ports));
        rules.extend(ingress.chain(egress).map(|(peers, ports)| {
            (peers.as_deref().unwrap_or_default(), ports.as_deref().unwrap_or_default())
        }));
    }
    rules
}

/// The addresses of a pod's status that can be read.
pub(super) fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    let status = pod.status.iter();
    status
        .flat_map(|status| status.pod_ip.iter().chain(status.pod_ips.iter().flatten().map(|ip| &ip.ip)))
        .filter_map(|text| text.parse().ok())
}

fn literal(address: &str) -> IpAddr {
    address.parse().expect("an address")
}
