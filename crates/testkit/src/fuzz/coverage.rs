//! Which states of the decision were reached, and by what.
//!
//! A state is what the decision said and what it said it about: direction, reason, kind of frame, part of a datagram,
//! protocol and flags, and the first headers on the way there.

use std::collections::{BTreeMap, BTreeSet};

use cellwall_abi::Reason;
use cellwall_policy::flow::Direction;

use super::corpus::Kept;
use super::see::{Seen, see};

/// Frames that are mutated are at most so many.
const POOL: usize = 8192;

/// What was reached.
#[derive(Debug, Default)]
pub struct Coverage {
    states: BTreeSet<u64>,
    pool: Vec<Kept>,
    /// The least frame that reached each state, without the headers on the way there.
    least: BTreeMap<u64, Kept>,
}

impl Coverage {
    /// Notes what was said about a frame.
    pub fn saw(&mut self, direction: Direction, reason: Reason, frame: &[u8]) {
        let (coarse, fine) = state(direction, reason, frame);
        if self.states.insert(fine) && self.pool.len() < POOL {
            self.pool.push((direction, frame.to_vec()));
        }
        let is_less = self.least.get(&coarse).is_none_or(|(_, kept)| frame.len() < kept.len());
        if is_less {
            self.least.insert(coarse, (direction, frame.to_vec()));
        }
    }

    /// Distinct states.
    #[must_use]
    pub fn states(&self) -> usize {
        self.states.len()
    }

    /// Distinct states without the headers on the way there.
    #[must_use]
    pub fn outcomes(&self) -> usize {
        self.least.len()
    }

    /// Frames that reached something new.
    #[must_use]
    pub fn pool(&self) -> &[Kept] {
        &self.pool
    }

    /// One frame for each outcome, the shortest.
    pub fn least(&self) -> impl Iterator<Item = &Kept> {
        self.least.values()
    }
}

fn mix(hash: u64, value: u64) -> u64 {
    (hash ^ value).wrapping_mul(0x0000_0100_0000_01b3)
}

/// Without the headers on the way there, and with them.
fn state(direction: Direction, reason: Reason, frame: &[u8]) -> (u64, u64) {
    let base = mix(mix(0xcbf2_9ce4_8422_2325, direction as u64), reason as u64);
    let (coarse, flags) = match see(frame) {
        Seen::Arp(_) => (mix(base, 1), 0),
        Seen::Nothing(why, addresses) => (mix(mix(base, 2 + why as u64), u64::from(addresses.is_some())), 0),
        Seen::Packet { source, protocol, part, payload, .. } => {
            let kind = mix(mix(base, 16 + part as u64), u64::from(source.is_ipv4()));
            let at = match protocol {
                6 => Some(13),
                1 | 58 => Some(0),
                132 => Some(12),
                _ => None,
            };
            let flags = at.and_then(|at| payload.get(at)).copied().unwrap_or_default();
            let kind = mix(kind, u64::from(class(protocol)));
            (mix(kind, u64::from(sort(protocol, flags))), flags)
        }
    };
    (coarse, path(frame).fold(mix(coarse, u64::from(flags)), mix))
}

/// Protocols that are read alike.
const fn class(protocol: u8) -> u8 {
    match protocol {
        1 | 6 | 17 | 58 | 132 | 0 | 43 | 44 | 51 | 59 | 60 | 135 => protocol,
        4 | 41 | 47 | 50 | 97 | 115 => 4,
        _ => 255,
    }
}

/// Flags, messages and chunks that are decided alike.
const fn sort(protocol: u8, flags: u8) -> u8 {
    match (protocol, flags) {
        (6, _) if flags & 0x17 == 2 => 1,
        (6, _) if flags & 0x16 == 0x10 => 2,
        (1, 0) | (58, 129) => 3,
        (1, 8) | (58, 128) => 4,
        (1, 3 | 11 | 12) | (58, 1..=4) => 5,
        (1, 5 | 9) | (58, 134 | 137) => 6,
        (58, 133 | 135 | 136) => 7,
        (58, 130..=132 | 143) => 8,
        (132, 1) => 9,
        _ => 0,
    }
}

/// Ethertype, and the kinds of the first headers or options.
fn path(frame: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let network = frame.get(14..).unwrap_or_default();
    let is_six = frame.get(12) == Some(&0x86);
    let kinds: Vec<u8> = if is_six {
        let mut kinds = vec![];
        let (mut next, mut at) = (network.get(6).copied().unwrap_or(59), 40);
        while kinds.len() < 5 && matches!(next, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140) {
            kinds.push(next);
            let (Some(kind), Some(length)) = (network.get(at), network.get(at + 1)) else { break };
            at += if next == 51 { 4 * (usize::from(*length) + 2) } else { 8 * (usize::from(*length) + 1) };
            next = *kind;
        }
        kinds
    } else {
        let header = usize::from(network.first().copied().unwrap_or_default() & 15) * 4;
        network.get(20..header.min(24)).unwrap_or_default().to_vec()
    };
    let ether_type = frame.get(12..14).map_or(0, |b| u64::from(b[0]) << 8 | u64::from(b[1]));
    std::iter::once(ether_type).chain(kinds.into_iter().map(u64::from))
}
