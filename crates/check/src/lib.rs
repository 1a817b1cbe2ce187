//! Policies tried without cluster, kernel or root: flows are asked about, and the decision that runs in the kernel
//! answers, on frames ([`frame`]) over what plans write ([`memory`], [`connections`]).
//!
//! ```text
//! Cluster, flows ─► ends (who is meant) ─► views (compile, plan, process) ─► answers
//! ```

mod answer;
pub mod connections;
mod ends;
mod flows;
pub mod frame;
pub mod memory;
mod stand_in;
mod views;

use core::net::IpAddr;
use std::collections::BTreeSet;

use cellwall_policy::flow::{Direction, Flow};
use cellwall_policy::model::Cluster;

pub use answer::{Answer, Item, Outcome, Side};
pub use flows::{End, FlowsError, Question, Transport, read_flows};
pub use stand_in::STAND_INS;

use ends::{Directory, Place, Who};
use views::{Probe, judge};

/// What is said about flows.
#[derive(Clone, Debug)]
pub struct Checked {
    /// One for each flow, in order.
    pub items: Vec<Item>,
    /// What a person should know about all of it, as sentences.
    pub notes: Vec<String>,
}

/// Judges flows between the pods of a cluster and others. Every pod is looked at from its own node. Pods that have no
/// address get one out of `cluster.pod_cidrs`, or out of [`STAND_INS`] when there is none.
#[must_use]
pub fn check(mut cluster: Cluster, flows: &[Question]) -> Checked {
    let ranges = cluster.pod_cidrs.clone();
    let mut notes: Vec<String> =
        stand_in::assign(&mut cluster, &ranges, &addresses(flows)).into_iter().collect();
    let directory = Directory::new(&cluster);
    let mut probes = Vec::new();
    let sides: Vec<_> = flows.iter().map(|flow| ask(&directory, flow, &mut probes)).collect();
    let (judged, more) = judge(&mut cluster, &probes);
    notes.extend(more);
    let items = sides.into_iter().map(|asked| {
        let [egress, ingress] = asked?.map(|half| half.side(&judged));
        Ok(Answer::new(egress?, ingress?))
    });
    let items = items.map(|answer| answer.map_or_else(|error| Item::Error { error }, Item::Answer)).collect();
    Checked { items, notes }
}

/// Addresses that flows name.
fn addresses(flows: &[Question]) -> BTreeSet<IpAddr> {
    let ends = flows.iter().flat_map(|flow| [&flow.src, &flow.dst]);
    ends.filter_map(|end| if let End::Ip(text) = end { text.parse().ok() } else { None }).collect()
}

/// One side of a flow before it is judged.
enum Half {
    /// Nothing is to be judged.
    Said(Side),
    /// Index of its probe.
    Asked(usize),
}

impl Half {
    fn side(self, judged: &[Result<Side, String>]) -> Result<Side, String> {
        match self {
            Self::Said(side) => Ok(side),
            Self::Asked(probe) => judged[probe].clone(),
        }
    }
}

/// Egress and ingress side of a flow; what has to be judged goes to `probes`.
fn ask(directory: &Directory<'_>, flow: &Question, probes: &mut Vec<Probe>) -> Result<[Half; 2], String> {
    let port = port(flow)?;
    let src = directory.find(&flow.src).map_err(|why| format!("src: {why}"))?;
    let dst = directory.find(&flow.dst).map_err(|why| format!("dst: {why}"))?;
    let (from, to) = addresses_of(&src, &dst, flow)?;
    let protocol = flow.protocol.protocol(from.is_ipv4());
    let mut half = |place: &Place, flow: Flow| match &place.who {
        Who::Pod(pod) => {
            probes.push(Probe { pod: pod.clone(), flow });
            Half::Asked(probes.len() - 1)
        }
        Who::HostNetwork => Half::Said(Side::open("uses its node's network, which policies do not cover")),
        Who::Node => Half::Said(Side::open("a node, which policies do not cover")),
        Who::Outside => Half::Said(Side::open("not a pod")),
    };
    // That a node made a packet is known of what has a node's address; of pods it is known that they did.
    let of_node = matches!(src.who, Who::HostNetwork | Who::Node) && !src.node.is_empty();
    let from_own_node =
        of_node && src.node == dst.node && !cellwall_policy::planted("check-forgets-the-own-node");
    let egress =
        Flow { local: from, direction: Direction::Egress, remote: to, from_own_node: false, protocol, port };
    let ingress =
        Flow { local: to, direction: Direction::Ingress, remote: from, from_own_node, protocol, port };
    Ok([half(&src, egress), half(&dst, ingress)])
}

/// IPv4 is meant where both ends have it.
fn addresses_of(src: &Place, dst: &Place, flow: &Question) -> Result<(IpAddr, IpAddr), String> {
    let of = |ipv4| src.address(ipv4).zip(dst.address(ipv4));
    of(true)
        .or_else(|| of(false))
        .ok_or_else(|| format!("{} and {} have no addresses of the same family", flow.src, flow.dst))
}

fn port(flow: &Question) -> Result<u16, String> {
    match (flow.protocol, flow.port) {
        (Transport::Icmp, None | Some(0)) => Ok(0),
        (Transport::Icmp, Some(_)) => Err("port: ICMP has no ports".to_owned()),
        (_, None) => Err("port: is missing".to_owned()),
        (_, Some(port)) => match u16::try_from(port) {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(format!("port: {port} is not between 1 and 65535")),
        },
    }
}
