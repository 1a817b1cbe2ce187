//! Effects as data.

use core::net::IpAddr;

use cellwall_abi::{ClassPair, EndpointRecord, Live, PolicyEntry, PolicyKey, PortValue, ServiceRecord};
use ipnet::IpNet;

use crate::wanted::{Observed, PortPrefix, ServiceKey};

/// One write to the kernel's tables. A plan is a list of them; one function of the datapath performs them, one of
/// the fake kernel pretends to, and [`Op::apply_to`] keeps what is observed in step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes an array element of RECORDS.
    PutRecord {
        /// Slot of the endpoint.
        slot: u32,
        /// Bank, 0 or 1.
        bank: u32,
        /// What to write.
        record: EndpointRecord,
    },
    /// Inserts a row that is not there into ENDPOINTS.
    InsertEndpoint {
        /// Interface index.
        ifindex: u32,
        /// Slot.
        slot: u32,
    },
    /// Deletes from ENDPOINTS.
    DeleteEndpoint {
        /// Interface index.
        ifindex: u32,
    },
    /// Writes an array element of CLASSES.
    PutClass {
        /// Slot of the address.
        slot: u32,
        /// Both banks.
        pair: ClassPair,
    },
    /// Inserts a row that is not there into ADDRESSES4 or ADDRESSES6.
    InsertAddress {
        /// The address.
        address: IpAddr,
        /// Slot.
        slot: u32,
    },
    /// Deletes from ADDRESSES4 or ADDRESSES6.
    DeleteAddress {
        /// The address.
        address: IpAddr,
    },
    /// Inserts into or replaces in PREFIXES4 or PREFIXES6.
    PutPrefix {
        /// The prefix.
        prefix: IpNet,
        /// Both banks.
        pair: ClassPair,
    },
    /// Deletes from PREFIXES4 or PREFIXES6.
    DeletePrefix {
        /// The prefix.
        prefix: IpNet,
    },
    /// Inserts a row that is not there into POLICY.
    InsertPolicy {
        /// Image and class.
        key: PolicyKey,
        /// What holds.
        entry: PolicyEntry,
    },
    /// Deletes from POLICY.
    DeletePolicy {
        /// Image and class.
        key: PolicyKey,
    },
    /// Inserts into PORTS.
    InsertPort {
        /// Key and prefix length.
        prefix: PortPrefix,
        /// What holds.
        value: PortValue,
    },
    /// Deletes from PORTS.
    DeletePort {
        /// Key and prefix length.
        prefix: PortPrefix,
    },
    /// Writes an array element of SERVICE_RECORDS.
    PutServiceRecord {
        /// Slot of what is translated.
        slot: u32,
        /// Bank, 0 or 1.
        bank: u32,
        /// What to write.
        record: ServiceRecord,
    },
    /// Inserts a row that is not there into SERVICES4 or SERVICES6.
    InsertService {
        /// What is translated.
        key: ServiceKey,
        /// Slot.
        slot: u32,
    },
    /// Deletes from SERVICES4 or SERVICES6.
    DeleteService {
        /// What is translated.
        key: ServiceKey,
    },
    /// Stores the live word: the one write that makes everything before it take hold.
    Flip {
        /// The new word.
        live: Live,
    },
    /// Waits until no program still runs that started before this: then nobody reads the other bank, and nobody
    /// holds a pointer to a deleted row.
    Grace,
}

impl Op {
    /// What the tables hold after this write.
    pub fn apply_to(&self, tables: &mut Observed) {
        match self.clone() {
            Self::PutRecord { slot, bank, record } => {
                tables.records.insert((slot, bank), record);
            }
            Self::InsertEndpoint { ifindex, slot } => {
                tables.endpoints.insert(ifindex, slot);
            }
            Self::DeleteEndpoint { ifindex } => {
                if let Some(slot) = tables.endpoints.remove(&ifindex) {
                    tables.records.retain(|(s, _), _| *s != slot);
                }
            }
            Self::PutClass { slot, pair } => {
                tables.classes.insert(slot, pair);
            }
            Self::InsertAddress { address, slot } => {
                tables.addresses.insert(address, slot);
            }
            Self::DeleteAddress { address } => {
                if let Some(slot) = tables.addresses.remove(&address) {
                    tables.classes.remove(&slot);
                }
            }
            Self::PutPrefix { prefix, pair } => {
                tables.prefixes.insert(prefix, pair);
            }
            Self::DeletePrefix { prefix } => {
                tables.prefixes.remove(&prefix);
            }
            Self::InsertPolicy { key, entry } => {
                tables.policy.insert(key, entry);
            }
            Self::DeletePolicy { key } => {
                tables.policy.remove(&key);
            }
            Self::InsertPort { prefix, value } => {
                tables.ports.insert(prefix, value);
            }
            Self::DeletePort { prefix } => {
                tables.ports.remove(&prefix);
            }
            Self::PutServiceRecord { slot, bank, record } => {
                tables.service_records.insert((slot, bank), record);
            }
            Self::InsertService { key, slot } => {
                tables.services.insert(key, slot);
            }
            Self::DeleteService { key } => {
                if let Some(slot) = tables.services.remove(&key) {
                    tables.service_records.remove(&(slot, 0));
                    tables.service_records.remove(&(slot, 1));
                }
            }
            Self::Flip { live } => tables.live = live,
            Self::Grace => {}
        }
    }
}
