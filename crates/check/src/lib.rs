//! Policies tried without cluster, kernel or root: flows are asked about, and the decision that runs in the kernel
//! answers, on frames ([`frame`]) over what plans write ([`memory`], [`connections`]).
//!
//! ```text
//! Cluster, flows ─► ends, services (who is meant) ─► views (compile, plan, process) ─► answers
//! ```

mod answer;
mod asked;
pub mod connections;
mod ends;
mod flows;
pub mod frame;
pub mod memory;
mod services;
mod stand_in;
mod views;

use core::net::IpAddr;
use std::collections::BTreeSet;

use cellwall_policy::model::{Cluster, ServiceSelector};

pub use answer::{Answer, Backend, BackendEnd, Item, Outcome, Side};
pub use flows::{End, FlowsError, Question, Transport, read_flows};
pub use stand_in::STAND_INS;

use asked::ask;
use ends::Directory;
use views::judge;

/// What is said about flows.
#[derive(Clone, Debug)]
pub struct Checked {
    /// One for each flow, in order.
    pub items: Vec<Item>,
    /// What a person should know about all of it, as sentences.
    pub notes: Vec<String>,
}

/// Judges flows between the pods of a cluster and others. Every pod is looked at from its own node. Pods that have no
/// address get one out of `cluster.pod_cidrs`, or out of [`STAND_INS`] when there is none. Services without slices lead
/// where `selectors` say.
#[must_use]
pub fn check(mut cluster: Cluster, selectors: &[ServiceSelector], flows: &[Question]) -> Checked {
    let ranges = cluster.pod_cidrs.clone();
    let mut notes: Vec<String> =
        stand_in::assign(&mut cluster, &ranges, &addresses(flows)).into_iter().collect();
    let directory = Directory::new(&cluster, selectors);
    let mut probes = Vec::new();
    let asked: Vec<_> = flows.iter().map(|flow| ask(&directory, flow, &mut probes)).collect();
    let (judged, more) = judge(&mut cluster, &probes);
    notes.extend(more);
    let items = asked.into_iter().map(|asked| asked?.answer(&judged));
    let items = items.map(|answer| answer.map_or_else(|error| Item::Error { error }, Item::Answer)).collect();
    Checked { items, notes }
}

/// Addresses that flows name.
fn addresses(flows: &[Question]) -> BTreeSet<IpAddr> {
    let ends = flows.iter().flat_map(|flow| [&flow.src, &flow.dst]);
    ends.filter_map(|end| if let End::Ip(text) = end { text.parse().ok() } else { None }).collect()
}
