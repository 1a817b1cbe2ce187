//! What has to be judged for a flow, and the answer when that is done.

use core::net::IpAddr;

use cellwall_policy::flow::{Direction, Flow, Protocol};

use crate::answer::{self, Answer, Backend, BackendEnd, Side};
use crate::ends::{Destination, Directory, Place, Source, Who};
use crate::flows::{Question, Transport};
use crate::views::Probe;

/// The most ways from pods of a Service to backends of another that one flow may have.
const WAYS_MAX: usize = 10_000;

/// A flow before it is judged.
pub(crate) enum Asked {
    /// Egress and ingress side.
    Flow([Half; 2]),
    /// The name of a Service, and the way to or from each of its backends.
    Service(String, Vec<Way>),
}

/// The part of a flow that is a backend's.
pub(crate) struct Way {
    end: BackendEnd,
    /// Port there; none of a source.
    port: Option<u16>,
    asked: Asked,
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
            Self::Service(name, ways) => {
                let backend =
                    |Way { end, port, asked }| Ok(Backend { end, port, answer: asked.answer(judged)? });
                let backends: Result<_, String> = ways.into_iter().map(backend).collect();
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
    // Of what has ports the number does not depend on the family.
    let transport = of_family(flow, true)?;
    let port = port(flow)?;
    let src = directory.source(&flow.src).map_err(|why| format!("src: {why}"))?;
    let dst = directory.destination(&flow.dst, transport, port).map_err(of_dst)?;
    match src {
        Source::Place(src) => from(directory, flow, (&src, &dst), port, probes),
        Source::Service(service, pods) => {
            let (mut ways, mut count) = (Vec::new(), 0);
            for (end, src) in pods {
                let asked = from(directory, flow, (&src, &dst), port, probes)?;
                count += if let Asked::Service(_, ways) = &asked { ways.len() } else { 1 };
                if count > WAYS_MAX {
                    return Err(format!(
                        "from {} to {} there are more than {WAYS_MAX} ways: name one of the pods",
                        flow.src, flow.dst
                    ));
                }
                ways.push(Way { end, port: None, asked });
            }
            Ok(Asked::Service(service.to_string(), ways))
        }
    }
}

/// The flow from one source.
fn from(
    directory: &Directory<'_>,
    flow: &Question,
    (src, dst): (&Place, &Destination),
    port: u16,
    probes: &mut Vec<Probe>,
) -> Result<Asked, String> {
    match dst {
        Destination::Place(dst) => {
            let ends = addresses_of(src, dst).ok_or_else(|| {
                format!("{} and {} have no addresses of the same family", flow.src, flow.dst)
            })?;
            let protocol = of_family(flow, ends.0.is_ipv4())?;
            Ok(Asked::Flow(halves([src, dst], ends, protocol, port, probes)))
        }
        Destination::Service(service) => {
            let transport = of_family(flow, true)?;
            let backends = directory.backends(service, transport, port, src).map_err(of_dst)?;
            let ways = backends.iter().filter_map(|backend| {
                let ends = addresses_of(src, &backend.place)?;
                let halves = halves([src, &backend.place], ends, transport, backend.port, probes);
                let end = end_of(&backend.place, ends.1);
                Some(Way { end, port: Some(backend.port), asked: Asked::Flow(halves) })
            });
            Ok(Asked::Service(service.to_string(), ways.collect()))
        }
    }
}

fn of_family(flow: &Question, ipv4: bool) -> Result<Protocol, String> {
    let unknown = || format!("protocol: `{}` is none of TCP, UDP, SCTP and ICMP", flow.protocol);
    flow.protocol.protocol(ipv4).ok_or_else(unknown)
}

#[expect(clippy::needless_pass_by_value, reason = "an error is handed on")]
fn of_dst(why: String) -> String {
    format!("dst: {why}")
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

/// How an answer names whoever has an address.
pub(crate) fn end_of(place: &Place, address: IpAddr) -> BackendEnd {
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
