//! What the record of every endpoint should be, and since when what it says holds.

use alloc::collections::{BTreeMap, BTreeSet};
use core::net::IpAddr;

use cellwall_abi::{Direction, ENDPOINT_IDENTIFIED, EndpointRecord, Live, PolicyEntry, PolicyKey};

use super::rows::Rows;
use crate::wanted::{Observed, Wanted, WantedEndpoint};

/// Ticks for which connections of a pod that was running before it was first enforced are taken over: 60 s.
pub(super) const TAKE_OVER_TICKS: u32 = 56;

/// The records of the next revision.
pub(super) struct Records {
    /// By interface index: for the endpoints that are wanted, and unidentified ones for those that leave.
    pub(super) next: BTreeMap<u32, EndpointRecord>,
    /// The live bank says something else.
    pub(super) differ: bool,
}

impl Records {
    pub(super) fn decide(
        wanted: &Wanted,
        observed: &Observed,
        rows: &Rows,
        moved: &BTreeSet<(u32, u32)>,
        now: u32,
    ) -> Self {
        let bank = observed.live.bank();
        let mut altered = Altered::new(wanted, observed, rows, moved);
        let mut differ = false;
        let mut next = BTreeMap::new();
        for (ifindex, endpoint) in &wanted.endpoints {
            let slot = observed.endpoints.get(ifindex);
            let live = slot.map(|slot| record(observed, *slot, bank));
            let same = live.as_ref().is_some_and(|live| says_the_same(live, &endpoint.record));
            differ |= !same;
            let holds = same && [0, 1].iter().all(|d| !altered.image(&endpoint.record, *d));
            next.insert(
                *ifindex,
                EndpointRecord {
                    since: live.filter(|_| holds).map_or(observed.live.next().0, |live| live.since),
                    midflow_until: midflow_until(endpoint, live.as_ref(), now),
                    ..endpoint.record
                },
            );
        }
        for (ifindex, slot) in &observed.endpoints {
            if !wanted.endpoints.contains_key(ifindex) {
                differ |= record(observed, *slot, bank) != EndpointRecord::default();
                next.insert(*ifindex, EndpointRecord::default());
            }
        }
        Self { next, differ }
    }

    /// Has the connections of pods judged again whose egress is isolated.
    pub(super) fn judge_egress_again(&mut self, live: Live) {
        let isolated = self.next.values_mut().filter(|record| record.image[Direction::Egress as usize] != 0);
        isolated.for_each(|record| record.since = live.0);
    }
}

/// The record in a bank of a slot.
pub(super) fn record(observed: &Observed, slot: u32, bank: u32) -> EndpointRecord {
    observed.records.get(&(slot, bank)).copied().unwrap_or_default()
}

/// Equal but for what the plan decides itself.
fn says_the_same(live: &EndpointRecord, wanted: &EndpointRecord) -> bool {
    EndpointRecord { since: 0, midflow_until: 0, ..*live }
        == EndpointRecord { since: 0, midflow_until: 0, ..*wanted }
}

fn is_identified(record: &EndpointRecord) -> bool {
    record.flags & ENDPOINT_IDENTIFIED != 0
}

/// A pod is taken over once: when it is first identified, if its interface was there before.
fn is_taken_over(endpoint: &WantedEndpoint, live: Option<&EndpointRecord>) -> bool {
    endpoint.preexisting && is_identified(&endpoint.record) && !live.is_some_and(is_identified)
}

fn midflow_until(endpoint: &WantedEndpoint, live: Option<&EndpointRecord>, now: u32) -> u32 {
    match live {
        _ if crate::planted("a-plan-takes-nobody-over") => 0,
        _ if crate::planted("every-plan-takes-over-again") => now.wrapping_add(TAKE_OVER_TICKS).max(1),
        // 0 means never.
        _ if is_taken_over(endpoint, live) => now.wrapping_add(TAKE_OVER_TICKS).max(1),
        Some(live) if is_identified(live) => live.midflow_until,
        _ => 0,
    }
}

/// Addresses of the pods that the plan from `observed` to `wanted` takes over, each with its interface index: pods that
/// were running before their interface is first enforced. Their connections are to be imported before the plan is run.
pub fn taken_over(wanted: &Wanted, observed: &Observed) -> BTreeMap<IpAddr, u32> {
    let bank = observed.live.bank();
    let mut pods = BTreeMap::new();
    for (ifindex, endpoint) in &wanted.endpoints {
        let live = observed.endpoints.get(ifindex).map(|slot| record(observed, *slot, bank));
        if is_taken_over(endpoint, live.as_ref()) {
            let EndpointRecord { address4, address6, .. } = endpoint.record;
            let known = [IpAddr::from(address4), IpAddr::from(address6)];
            pods.extend(known.into_iter().filter(|a| !a.is_unspecified()).map(|address| (address, *ifindex)));
        }
    }
    pods
}

/// Which images answer otherwise than before to some address: only then must connections be judged again.
struct Altered<'a> {
    wanted: &'a Wanted,
    observed: &'a Observed,
    rows: &'a Rows,
    moved: &'a BTreeSet<(u32, u32)>,
    /// Classes that some address has in the live bank.
    classes: BTreeSet<u32>,
    known: BTreeMap<u32, bool>,
}

impl<'a> Altered<'a> {
    fn new(
        wanted: &'a Wanted,
        observed: &'a Observed,
        rows: &'a Rows,
        moved: &'a BTreeSet<(u32, u32)>,
    ) -> Self {
        let bank = observed.live.bank();
        let pairs = observed.classes.values().chain(observed.prefixes.values());
        let classes = pairs.map(|pair| pair.class(bank)).collect();
        Self { wanted, observed, rows, moved, classes, known: BTreeMap::new() }
    }

    /// `record` is both the live and the wanted one.
    fn image(&mut self, record: &EndpointRecord, direction: usize) -> bool {
        let image = record.image[direction];
        if image == 0 || crate::planted("since-misses-classes") {
            return false;
        }
        if let Some(known) = self.known.get(&image) {
            return *known;
        }
        let altered = self.look(image, &record.default[direction]);
        self.known.insert(image, altered);
        altered
    }

    fn look(&self, image: u32, default: &PolicyEntry) -> bool {
        let of_image = PolicyKey { image, class: 0 }..=PolicyKey { image, class: u32::MAX };
        let rewritten =
            self.wanted.policy.range(of_image.clone()).chain(self.observed.policy.range(of_image));
        if self.rows.changes_list_of(default) {
            return true;
        }
        // A row for a class that nothing has yet alters nothing that held.
        let repaired = |(key, entry): (&PolicyKey, &PolicyEntry)| {
            self.classes.contains(&key.class) && (self.rows.changes_list_of(entry) || self.rows.changes(*key))
        };
        if rewritten.into_iter().any(repaired) {
            return true;
        }
        self.moved.iter().any(|(old, new)| {
            let before = self.observed.policy.get(&PolicyKey { image, class: *old }).unwrap_or(default);
            let after = self.wanted.policy.get(&PolicyKey { image, class: *new }).unwrap_or(default);
            before != after
        })
    }
}
