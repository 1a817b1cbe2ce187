//! What is done for new pods while the whole does not fit.

use alloc::string::String;
use alloc::vec::Vec;

use cellwall_abi::{
    ACTION_DENY, ENDPOINT_IDENTIFIED, EndpointRecord, PolicyEntry, RULE_NONE, SERVICE_TRANSLATED,
};

use super::records::record;
use super::{Capacities, Op, Refusal, plan, view};
use crate::wanted::{Observed, Wanted, WantedEndpoint};

/// The image that denies everything: it has no rows, and those that are compiled have greater ids.
const CLOSED: u32 = 1;

/// The writes after which the interfaces that the tables do not know, or know as another pod's, are closed where policies
/// would isolate them, and all else is as it was.
pub fn closing(
    wanted: &Wanted,
    observed: &Observed,
    capacities: &Capacities,
    now: u32,
) -> Result<Vec<Op>, Refusal> {
    let mut state = in_force(observed);
    for (ifindex, endpoint) in &wanted.endpoints {
        let is_known =
            state.endpoints.get(ifindex).is_some_and(|known| is_same_pod(&known.record, &endpoint.record));
        if !is_known {
            state.endpoints.insert(*ifindex, closed(endpoint));
        }
    }
    plan(&state, observed, capacities, now)
}

/// The live state, as if it were wanted.
fn in_force(observed: &Observed) -> Wanted {
    let bank = observed.live.bank();
    let (addresses, prefixes) = view::live(observed);
    let endpoints = observed.endpoints.iter().map(|(ifindex, slot)| {
        let record = record(observed, *slot, bank);
        (*ifindex, WantedEndpoint { pod: None, uid: String::new(), record, preexisting: false })
    });
    let service = |slot: &u32| observed.service_records.get(&(*slot, bank)).copied().unwrap_or_default();
    let services = observed.services.iter().map(|(key, slot)| (*key, service(slot)));
    Wanted {
        endpoints: endpoints.collect(),
        addresses,
        prefixes,
        policy: observed.policy.clone(),
        ports: observed.ports.clone(),
        services: services.filter(|(_, record)| record.flags & SERVICE_TRANSLATED != 0).collect(),
        ..Wanted::default()
    }
}

fn is_same_pod(live: &EndpointRecord, wanted: &EndpointRecord) -> bool {
    let pod = |r: &EndpointRecord| (r.flags & ENDPOINT_IDENTIFIED, r.mac, r.address4, r.address6);
    pod(live) == pod(wanted)
}

fn closed(endpoint: &WantedEndpoint) -> WantedEndpoint {
    let mut record = endpoint.record;
    for (image, default) in record.image.iter_mut().zip(&mut record.default) {
        if *image != 0 && !crate::planted("new-pods-are-open-while-it-does-not-fit") {
            *image = CLOSED;
            *default = PolicyEntry::only_rest(ACTION_DENY, RULE_NONE);
        }
    }
    WantedEndpoint { record, ..endpoint.clone() }
}
