//! What has to be judged for a flow, and the answer when that is done.

use core::net::IpAddr;

use cellwall_policy::flow::{Direction, Flow, Protocol};

use crate::answer::{self, Answer, Backend, BackendEnd, Side};
use crate::ends::{Destination, Directory, Place, Who};
use crate::flows::{Question, Transport};
use crate::views::Probe;

/// A flow before it is judged.
pub(crate) enum Asked {
    /// Egress and ingress side.
    Flow([Half; 2]),
    /// The name of a Service, and both sides of each of its backends.
    Service(String, Vec<(BackendEnd, u16, [Half; 2])>),
}

/// One side of a flow before it is judged.
pub(crate) enum Half {
    /// Nothing is to be judged.
    Said(Side),
    /// Index of its probe.
    Probe(usize),
}

impl Asked {
    /// The answer, from what the probes were told.
    pub(crate) fn answer(self, judged: &[Result<Side, String>]) -> Result<Answer, String> {
        match self {
            Self::Flow(halves) => both(halves, judged),
            Self::Service(name, backends) => {
                let backend = |(end, port, halves)| Ok(Backend { end, port, answer: both(halves, judged)? });
                let backends: Result<_, String> = backends.into_iter().map(backend).collect();
                Ok(Answer::of_service(&name, backends?))
            }
        }
    }
}

fn both(halves: [Half; 2], judged: &[Result<Side, String>]) -> Result<Answer, String> {
    let [egress, ingress] = halves.map(|half| match half {
        Half::Said(side) => Ok(side),
        Half::Probe(probe) => judged[probe].clone(),
    });
    Ok(Answer::new(egress?, ingress?))
}

/// Finds the ends of a flow; what has to be judged goes to `probes`. The error says why it cannot be asked about.
pub(crate) fn ask(
    directory: &Directory<'_>,
    flow: &Question,
    probes: &mut Vec<Probe>,
) -> Result<Asked, String> {
    let of_family = |ipv4| {
        let unknown = || format!("protocol: `{}` is none of TCP, UDP, SCTP and ICMP", flow.protocol);
        flow.protocol.protocol(ipv4).ok_or_else(unknown)
    };
    // Of what has ports the number does not depend on the family.
    let transport = of_family(true)?;
    let port = port(flow)?;
    let src = directory.source(&flow.src).map_err(|why| format!("src: {why}"))?;
    let of_dst = |why| format!("dst: {why}");
    match directory.destination(&flow.dst, transport, port).map_err(of_dst)? {
        Destination::Place(dst) => {
            let ends = addresses_of(&src, &dst).ok_or_else(|| {
                format!("{} and {} have no addresses of the same family", flow.src, flow.dst)
            })?;
            let protocol = of_family(ends.0.is_ipv4())?;
            Ok(Asked::Flow(halves([&src, &dst], ends, protocol, port, probes)))
        }
        Destination::Service(service) => {
            let backends = directory.backends(&service, transport, port, &src).map_err(of_dst)?;
            let asked = backends.iter().filter_map(|backend| {
                let ends = addresses_of(&src, &backend.place)?;
                let halves = halves([&src, &backend.place], ends, transport, backend.port, probes);
                Some((end_of(&backend.place, ends.1), backend.port, halves))
            });
            Ok(Asked::Service(service.to_string(), asked.collect()))
        }
    }
}

/// Egress and ingress side of a flow between two addresses.
fn halves(
    [src, dst]: [&Place; 2],
    (from, to): (IpAddr, IpAddr),
    protocol: Protocol,
    port: u16,
    probes: &mut Vec<Probe>,
) -> [Half; 2] {
    let mut half = |place: &Place, flow: Flow| match &place.who {
        Who::Pod(pod) => {
            probes.push(Probe { pod: pod.clone(), flow });
            Half::Probe(probes.len() - 1)
        }
        Who::HostNetwork(_) => Half::Said(Side::open("uses its node's network, which policies do not cover")),
        Who::Node => Half::Said(Side::open("a node, which policies do not cover")),
        Who::Outside => Half::Said(Side::open("not a pod")),
    };
    // That a node made a packet is known of what has a node's address; of pods it is known that they did.
    let of_node = matches!(src.who, Who::HostNetwork(_) | Who::Node) && !src.node.is_empty();
    let from_own_node =
        of_node && src.node == dst.node && !cellwall_policy::planted("check-forgets-the-own-node");
    let egress =
        Flow { local: from, direction: Direction::Egress, remote: to, from_own_node: false, protocol, port };
    let ingress =
        Flow { local: to, direction: Direction::Ingress, remote: from, from_own_node, protocol, port };
    [half(src, egress), half(dst, ingress)]
}

fn end_of(place: &Place, address: IpAddr) -> BackendEnd {
    match &place.who {
        Who::Pod(pod) | Who::HostNetwork(pod) => BackendEnd::Pod(answer::name(pod)),
        Who::Node | Who::Outside => BackendEnd::Ip(address),
    }
}

/// IPv4 is meant where both ends have it.
fn addresses_of(src: &Place, dst: &Place) -> Option<(IpAddr, IpAddr)> {
    let of = |ipv4| src.address(ipv4).zip(dst.address(ipv4));
    of(true).or_else(|| of(false))
}

fn port(flow: &Question) -> Result<u16, String> {
    match (&flow.protocol, flow.port) {
        (Transport::Icmp, None | Some(0)) => Ok(0),
        (Transport::Icmp, Some(_)) => Err("port: ICMP has no ports".to_owned()),
        (_, None) => Err("port: is missing".to_owned()),
        (_, Some(port)) => match u16::try_from(port) {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(format!("port: {port} is not between 1 and 65535")),
        },
    }
}
