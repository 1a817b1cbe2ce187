//! What is translated, in both banks.

use alloc::collections::BTreeMap;

use cellwall_abi::{SERVICE_TRANSLATED, ServiceRecord};

use crate::wanted::{Observed, ServiceKey, Wanted};

/// The records of the next revision. What becomes of a Service moves no pod's `since`: connections that run stay with the
/// backend that they have. What becomes one does: a flow that was seen to arrive where it was sent may not do so any more.
pub(super) struct Services {
    /// For what is wanted, and empty ones for what leaves.
    pub(super) next: BTreeMap<ServiceKey, ServiceRecord>,
    /// The live bank says something else.
    pub(super) differ: bool,
    /// Something is translated that was not.
    pub(super) added: bool,
}

impl Services {
    pub(super) fn decide(wanted: &Wanted, observed: &Observed) -> Self {
        let bank = observed.live.bank();
        let mut next = wanted.services.clone();
        for key in observed.services.keys() {
            next.entry(*key).or_default();
        }
        let live =
            |key| observed.services.get(key).map(|slot| record(observed, *slot, bank)).unwrap_or_default();
        let differ = next.iter().any(|(key, record)| live(key) != *record);
        let is_new = |key| live(key).flags & SERVICE_TRANSLATED == 0;
        let added = wanted.services.keys().any(is_new) && !crate::planted("new-services-move-nothing");
        Self { next, differ, added }
    }
}

/// The record in a bank of a slot.
pub(super) fn record(observed: &Observed, slot: u32, bank: u32) -> ServiceRecord {
    observed.service_records.get(&(slot, bank)).copied().unwrap_or_default()
}
