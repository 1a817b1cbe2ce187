//! What is translated, in both banks.

use alloc::collections::BTreeMap;

use cellwall_abi::ServiceRecord;

use crate::wanted::{Observed, ServiceKey, Wanted};

/// The records of the next revision. They move no pod's `since`: connections that run stay with the backend that they
/// have, whatever becomes of the Service.
pub(super) struct Services {
    /// For what is wanted, and empty ones for what leaves.
    pub(super) next: BTreeMap<ServiceKey, ServiceRecord>,
    /// The live bank says something else.
    pub(super) differ: bool,
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
        Self { next, differ }
    }
}

/// The record in a bank of a slot.
pub(super) fn record(observed: &Observed, slot: u32, bank: u32) -> ServiceRecord {
    observed.service_records.get(&(slot, bank)).copied().unwrap_or_default()
}
