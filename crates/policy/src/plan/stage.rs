//! The writes themselves, in order.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use cellwall_abi::{ClassPair, EndpointRecord, ServiceRecord};

use super::Op;
use super::records::{Records, record};
use super::rows::Rows;
use super::services::{self, Services};
use super::view::View;
use crate::wanted::{Observed, Wanted};

/// A plan in the making.
pub(super) struct Stage<'a> {
    wanted: &'a Wanted,
    observed: &'a Observed,
    live: u32,
    idle: u32,
    pub(super) ops: Vec<Op>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(wanted: &'a Wanted, observed: &'a Observed) -> Self {
        let (live, idle) = (observed.live.bank(), observed.live.idle_bank());
        Self { wanted, observed, live, idle, ops: Vec::new() }
    }

    /// New images and lists. Stale rows go first: nothing in a hash is ever replaced, and a deleted element is not
    /// used again while somebody may look at it.
    pub(super) fn rows(&mut self, rows: &Rows) {
        let start = self.ops.len();
        self.ops.extend(rows.stale_policy.iter().map(|key| Op::DeletePolicy { key: *key }));
        self.ops.extend(rows.stale_ports.iter().map(|prefix| Op::DeletePort { prefix: *prefix }));
        if self.ops.len() > start {
            self.ops.push(Op::Grace);
        }
        let Wanted { policy, ports, .. } = self.wanted;
        self.ops.extend(rows.new_policy.iter().map(|key| Op::InsertPolicy { key: *key, entry: policy[key] }));
        self.ops.extend(
            rows.new_ports.iter().map(|prefix| Op::InsertPort { prefix: *prefix, value: ports[prefix] }),
        );
    }

    /// The class of every address with a row, and the rows of new ones.
    pub(super) fn classes(&mut self, live: &View<'_>, target: &View<'_>) {
        for (address, slot) in &self.observed.addresses {
            let old = self.observed.classes.get(slot).copied().unwrap_or_default();
            let bank = if crate::planted("live-bank-written") { self.live } else { self.idle };
            let pair = old.with(bank, target.class(*address));
            if pair != old || !self.observed.classes.contains_key(slot) {
                self.ops.push(Op::PutClass { slot: *slot, pair });
            }
        }
        let mut free = free_slots(&self.observed.addresses);
        for (address, class) in target.addresses {
            if self.observed.addresses.contains_key(address) {
                continue;
            }
            let slot = free.next().expect("slots do not end");
            let before =
                if crate::planted("new-address-is-live-at-once") { *class } else { live.by_prefix(*address) };
            let pair = self.pair(before, *class);
            self.ops.push(Op::PutClass { slot, pair });
            self.ops.push(Op::InsertAddress { address: *address, slot });
        }
    }

    /// The class of every prefix, old and new.
    pub(super) fn prefixes(&mut self, live: &View<'_>, target: &View<'_>) {
        for (prefix, old) in &self.observed.prefixes {
            let pair = old.with(self.idle, target.within(*prefix));
            if pair != *old {
                self.ops.push(Op::PutPrefix { prefix: *prefix, pair });
            }
        }
        for (prefix, class) in &self.wanted.prefixes {
            if !self.observed.prefixes.contains_key(prefix) {
                let pair = self.pair(live.within(*prefix), *class);
                self.ops.push(Op::PutPrefix { prefix: *prefix, pair });
            }
        }
    }

    fn pair(&self, live: u32, idle: u32) -> ClassPair {
        ClassPair::default().with(self.live, live).with(self.idle, idle)
    }

    /// Records of the next revision, and the rows of new endpoints.
    pub(super) fn records(&mut self, records: &Records) {
        let mut free = free_slots(&self.observed.endpoints);
        for (ifindex, next) in &records.next {
            if let Some(slot) = self.observed.endpoints.get(ifindex) {
                if record(self.observed, *slot, self.idle) != *next {
                    self.put_record(*slot, self.idle, *next);
                }
                continue;
            }
            let slot = free.next().expect("slots do not end");
            self.put_record(slot, self.live, EndpointRecord::default());
            self.put_record(slot, self.idle, *next);
            self.ops.push(Op::InsertEndpoint { ifindex: *ifindex, slot });
        }
    }

    fn put_record(&mut self, slot: u32, bank: u32, record: EndpointRecord) {
        self.ops.push(Op::PutRecord { slot, bank, record });
    }

    /// What is translated in the next revision, and the rows of what is new.
    pub(super) fn services(&mut self, services: &Services) {
        let mut free = free_slots(&self.observed.services);
        for (key, next) in &services.next {
            if let Some(slot) = self.observed.services.get(key) {
                if services::record(self.observed, *slot, self.idle) != *next {
                    self.put_service(*slot, self.idle, *next);
                }
                continue;
            }
            let slot = free.next().expect("slots do not end");
            let before =
                if crate::planted("new-service-is-live-at-once") { *next } else { ServiceRecord::default() };
            self.put_service(slot, self.live, before);
            self.put_service(slot, self.idle, *next);
            self.ops.push(Op::InsertService { key: *key, slot });
        }
    }

    fn put_service(&mut self, slot: u32, bank: u32, record: ServiceRecord) {
        self.ops.push(Op::PutServiceRecord { slot, bank, record });
    }

    /// Makes the idle bank the live one.
    pub(super) fn flip(&mut self) {
        self.ops.push(Op::Flip { live: self.observed.live.next() });
        if !crate::planted("no-grace-after-flip") {
            self.ops.push(Op::Grace);
        }
    }

    /// Deletes what nobody names any more; stale rows have gone before.
    pub(super) fn clean(&mut self, rows: &Rows) {
        let (wanted, observed) = (self.wanted, self.observed);
        let start = self.ops.len();
        let addresses = gone(&observed.addresses, &wanted.addresses);
        self.ops.extend(addresses.map(|address| Op::DeleteAddress { address: *address }));
        let prefixes = gone(&observed.prefixes, &wanted.prefixes);
        self.ops.extend(prefixes.map(|prefix| Op::DeletePrefix { prefix: *prefix }));
        let policy = gone(&observed.policy, &wanted.policy).filter(|key| !rows.stale_policy.contains(key));
        self.ops.extend(policy.map(|key| Op::DeletePolicy { key: *key }));
        let ports = gone(&observed.ports, &wanted.ports).filter(|prefix| !rows.stale_ports.contains(prefix));
        self.ops.extend(ports.map(|prefix| Op::DeletePort { prefix: *prefix }));
        let endpoints = gone(&observed.endpoints, &wanted.endpoints);
        self.ops.extend(endpoints.map(|ifindex| Op::DeleteEndpoint { ifindex: *ifindex }));
        let services = gone(&observed.services, &wanted.services);
        self.ops.extend(services.map(|key| Op::DeleteService { key: *key }));
        if self.ops.len() > start {
            self.ops.push(Op::Grace);
        }
    }
}

fn gone<'a, K: Ord, A, B>(
    observed: &'a BTreeMap<K, A>,
    wanted: &'a BTreeMap<K, B>,
) -> impl Iterator<Item = &'a K> {
    observed.keys().filter(|key| !wanted.contains_key(key))
}

/// Slots that no row names, lowest first. Those of rows that leave in this plan are not among them.
fn free_slots<K>(rows: &BTreeMap<K, u32>) -> impl Iterator<Item = u32> + use<K> {
    let used: BTreeSet<u32> = rows.values().copied().collect();
    (0..).filter(move |slot| !used.contains(slot))
}
