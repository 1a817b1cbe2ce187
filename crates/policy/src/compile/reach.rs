//! Services that a pod of this node reaches at no address of theirs, although policies allow some of their backends.
//!
//! Where backends are judged at the source all of them must be allowed: nobody sees which one is chosen. One that is denied
//! takes every connection of the pod to that address, port and protocol with it, those to backends elsewhere too, which
//! would be judged where they lead. What policies deny whole is as its authors wished, and nobody is told.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use cellwall_abi::{ENDPOINT_AUDIT, PolicyKey};

use super::services::{AtSource, Backend};
use crate::flow::Direction;
use crate::model::{ObjectKey, Problem};
use crate::wanted::{Wanted, WantedEndpoint};

/// How many addresses and ports of Services are looked at, in their order: anybody may make Services whose backends are here,
/// and each of them is asked about with every image of egress.
const LOOKED_AT: usize = 256;

/// One problem for each such Service. `allows` is what an image answers to a class, for a protocol and port.
pub(crate) fn problems(
    at_source: &[AtSource],
    wanted: &Wanted,
    allows: impl Fn(PolicyKey, u8, u16) -> bool,
) -> Vec<Problem> {
    let mut images: BTreeMap<u32, Vec<&WantedEndpoint>> = BTreeMap::new();
    for endpoint in wanted.endpoints.values().filter(|e| e.record.flags & ENDPOINT_AUDIT == 0) {
        images.entry(endpoint.record.image[Direction::Egress as usize]).or_default().push(endpoint);
    }
    // Nothing isolates these.
    images.remove(&0);
    let mut told: BTreeSet<&ObjectKey> = BTreeSet::new();
    let mut problems = Vec::new();
    for service in at_source.iter().take(LOOKED_AT) {
        if told.contains(&service.object) {
            continue;
        }
        let kept = kept_away(service, &images, &allows);
        if let Some((first, backend)) = kept.first_key_value()
            && !crate::planted("nobody-hears-of-denied-backends")
        {
            told.insert(&service.object);
            problems.push(problem(service, first, kept.len() - 1, *backend));
        }
    }
    problems
}

/// The pods that may reach some backend of a Service and not all of those that are judged at the source, each with one that
/// it may not reach.
fn kept_away<'a>(
    service: &AtSource,
    images: &BTreeMap<u32, Vec<&'a WantedEndpoint>>,
    allows: &impl Fn(PolicyKey, u8, u16) -> bool,
) -> BTreeMap<&'a ObjectKey, Backend> {
    let mut kept = BTreeMap::new();
    for (image, endpoints) in images {
        let may =
            |class: u32, port: u16| allows(PolicyKey { image: *image, class }, service.key.protocol, port);
        let denied = service.listed.iter().filter(|((_, port), class)| !may(*class, *port));
        let denied: Vec<Backend> = denied.map(|(backend, _)| *backend).collect();
        if denied.is_empty() || !service.all.iter().any(|(class, port)| may(*class, *port)) {
            continue;
        }
        for endpoint in endpoints {
            // Nothing keeps a pod from itself (S64).
            let own = [IpAddr::from(endpoint.record.address4), IpAddr::from(endpoint.record.address6)];
            let mut others = denied.iter().filter(|(address, _)| !own.contains(address));
            if let (Some(pod), Some(backend)) = (&endpoint.pod, others.next()) {
                kept.insert(pod, *backend);
            }
        }
    }
    kept
}

fn problem(service: &AtSource, pod: &ObjectKey, more: usize, (address, port): Backend) -> Problem {
    let key = &service.key;
    let others = if more == 0 { String::new() } else { format!(" and {more} more of this node") };
    Problem {
        object: service.object.clone(),
        field: String::new(),
        message: format!(
            "at {} port {} nobody sees on this node which backend is chosen, so a pod must be allowed all that are judged \
             here; policies keep {pod}{others} from {address} port {port}, so no connection there passes, \
             whichever backend is meant. Allow these pods that address and port, too, or let the Service lead elsewhere",
            key.address, key.port
        ),
    }
}
