//! The tables in memory, so that the decision runs on what plans write, without a kernel.
//!
//! Limits: one reader at a time, no CPUs that race, tables without bound but for the tokens of unanswered
//! connections. What the kernel makes of the same tables, tests of the data path show.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use cellwall_abi::{
    Addr6, Be16, Be32, CLASS_WORLD, Chosen, ChosenKey4, ChosenKey6, ClassPair, Conn, Direction,
    EndpointRecord, FlowKey4, FlowKey6, Fragment, FragmentKey4, FragmentKey6, Live, Mac, PolicyEntry,
    PolicyKey, PortKey, PortValue, SERVICE_BACKENDS, SERVICE_TRANSLATED, ServiceBackend, ServiceRecord, V4,
    V6,
};
use cellwall_policy::wanted::{Observed, ServiceKey};
use cellwall_verdict::Tables;
use ipnet::IpNet;

use crate::connections::Connections;

/// An array element that was never written.
pub static NO_RECORD: EndpointRecord = EndpointRecord {
    since: 0,
    flags: 0,
    midflow_until: 0,
    image: [0; 2],
    address4: Be32::ZERO,
    address6: Addr6::ZERO,
    mac: Mac::UNKNOWN,
    pad: [0; 2],
    ifindex: 0,
    default: [PolicyEntry::only_rest(0, 0); 2],
};

/// An array element of SERVICE_RECORDS that was never written.
pub static NO_SERVICE: ServiceRecord = ServiceRecord {
    flags: 0,
    count: 0,
    backends: [ServiceBackend { address: Addr6::ZERO, port: Be16::new(0), pad: [0; 2] }; SERVICE_BACKENDS],
};

/// What plans write, looked up as the programs do.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// The tables.
    pub tables: Observed,
    lengths: [Vec<u8>; 2],
}

impl Lookup {
    /// Takes the tables as they are.
    #[must_use]
    pub fn new(tables: Observed) -> Self {
        let mut lengths = [BTreeSet::new(), BTreeSet::new()];
        for net in tables.prefixes.keys() {
            lengths[usize::from(net.addr().is_ipv6())].insert(net.prefix_len());
        }
        Self { tables, lengths: lengths.map(|set| set.into_iter().rev().collect()) }
    }

    /// Slot of an interface.
    #[must_use]
    pub fn slot(&self, ifindex: u32) -> Option<u32> {
        self.tables.endpoints.get(&ifindex).copied()
    }

    /// Record of a slot. An array element that was never written is zero.
    #[must_use]
    pub fn record(&self, slot: u32, bank: u32) -> &EndpointRecord {
        self.tables.records.get(&(slot, bank)).unwrap_or(&NO_RECORD)
    }

    /// Slot of an address.
    #[must_use]
    pub fn address(&self, address: IpAddr) -> Option<u32> {
        self.tables.addresses.get(&address).copied()
    }

    /// Classes of a slot.
    #[must_use]
    pub fn classes(&self, slot: u32) -> ClassPair {
        self.tables.classes.get(&slot).copied().unwrap_or_default()
    }

    /// Classes by the longest prefix.
    #[must_use]
    pub fn prefix(&self, address: IpAddr) -> Option<ClassPair> {
        self.lengths[usize::from(address.is_ipv6())].iter().find_map(|length| {
            let net = IpNet::new(address, *length).expect("a length of the family").trunc();
            self.tables.prefixes.get(&net).copied()
        })
    }

    /// Exception of an image.
    #[must_use]
    pub fn policy(&self, key: &PolicyKey) -> Option<&PolicyEntry> {
        self.tables.policy.get(key)
    }

    /// What is known in a bank of what this node translates.
    #[must_use]
    pub fn service(&self, key: &ServiceKey, bank: u32) -> Option<&ServiceRecord> {
        let slot = self.tables.services.get(key)?;
        let record = self.tables.service_records.get(&(*slot, bank)).unwrap_or(&NO_SERVICE);
        (record.flags & SERVICE_TRANSLATED != 0).then_some(record)
    }

    /// What a list says about a port.
    #[must_use]
    pub fn port(&self, key: &PortKey) -> Option<PortValue> {
        (0..=16).find_map(|free| {
            let port = u32::from(key.port.get()) >> free << free;
            let port = u16::try_from(port).expect("a port cut down is a port");
            let prefix = PortKey::block(key.list.get(), key.protocol, port, free);
            self.tables.ports.get(&prefix).copied()
        })
    }
}

/// The bit of the mark that says that a packet is stamped, in [`Memory`].
pub const MARK: u32 = 0x1000;

/// Tables with connections and a clock that stands.
#[derive(Clone, Debug)]
pub struct Memory {
    /// What plans write.
    pub lookup: Lookup,
    /// IPv4 connections.
    pub four: Connections<V4>,
    /// IPv6 connections.
    pub six: Connections<V6>,
    /// Current tick.
    pub tick: u32,
    /// An interface whose pod is not known drops.
    pub strict: bool,
    /// The bit of the mark that says that a packet is stamped.
    pub mark: u32,
    /// Address, port and protocol → what is known of the Service in each bank, before what the tables say.
    pub services: BTreeMap<(IpAddr, u16, u8), [ServiceRecord; 2]>,
}

impl Memory {
    /// No connections, tick 1000.
    #[must_use]
    pub fn new(tables: Observed) -> Self {
        Self {
            lookup: Lookup::new(tables),
            four: Connections::default(),
            six: Connections::default(),
            tick: 1000,
            strict: false,
            mark: MARK,
            services: BTreeMap::new(),
        }
    }

    /// No connections any more.
    pub fn forget(&mut self) {
        self.four = Connections::default();
        self.six = Connections::default();
    }
}

macro_rules! tables {
    ($family:ty, $addr:ty, $flow_key:ty, $fragment_key:ty, $chosen_key:ty, $connections:ident) => {
        impl Tables<$family> for Memory {
            fn live(&self) -> Live {
                self.lookup.tables.live
            }

            fn strict(&self) -> bool {
                self.strict
            }

            fn record(&self, ifindex: u32, bank: u32) -> Option<(u32, &EndpointRecord)> {
                let slot = self.lookup.slot(ifindex)?;
                Some((slot, self.lookup.record(slot, bank)))
            }

            fn record_of(&self, slot: u32, bank: u32) -> Option<&EndpointRecord> {
                Some(self.lookup.record(slot, bank))
            }

            fn mark(&self) -> u32 {
                self.mark
            }

            fn service(
                &self,
                address: &$addr,
                port: Be16,
                protocol: u8,
                bank: u32,
            ) -> Option<&ServiceRecord> {
                let key = ServiceKey { address: (*address).into(), port: port.get(), protocol };
                let Some(banks) = self.services.get(&(key.address, key.port, key.protocol)) else {
                    return self.lookup.service(&key, bank);
                };
                let record = &banks[bank as usize];
                (record.flags & SERVICE_TRANSLATED != 0).then_some(record)
            }

            fn class(&self, address: &$addr, bank: u32) -> u32 {
                let address = IpAddr::from(*address);
                let exact = self.lookup.address(address).map(|slot| self.lookup.classes(slot));
                let pair = exact.or_else(|| self.lookup.prefix(address));
                pair.map_or(CLASS_WORLD, |pair| pair.class(bank))
            }

            fn policy(&self, key: &PolicyKey) -> Option<&PolicyEntry> {
                self.lookup.policy(key)
            }

            fn port(&self, key: &PortKey) -> Option<PortValue> {
                self.lookup.port(key)
            }

            fn flow(&self, key: &$flow_key) -> Option<&mut Conn> {
                self.$connections.flow(key)
            }

            fn pending(&self, key: &$flow_key) -> Option<&mut Conn> {
                self.$connections.pending(key)
            }

            fn insert_flow(&self, key: &$flow_key, conn: &Conn, slot: u32) -> bool {
                self.$connections.insert_flow(key, conn, slot)
            }

            fn insert_pending(&self, key: &$flow_key, conn: &Conn, slot: u32) -> bool {
                self.$connections.insert_pending(key, conn, slot)
            }

            fn answered(&self, conn: &Conn, slot: u32) {
                self.$connections.answered(conn, slot);
            }

            fn remove_flow(&self, key: &$flow_key) {
                self.$connections.remove_flow(key);
            }

            fn remove_pending(&self, key: &$flow_key) {
                self.$connections.remove_pending(key);
            }

            fn fragment(&self, key: &$fragment_key) -> Option<Fragment> {
                self.$connections.fragment(key)
            }

            fn insert_fragment(&self, key: &$fragment_key, fragment: &Fragment, at: (u32, Direction)) {
                self.$connections.insert_fragment(key, fragment, at);
            }

            fn chosen(&self, key: &$chosen_key) -> Option<Chosen> {
                self.$connections.chosen(key)
            }

            fn insert_chosen(&self, key: &$chosen_key, chosen: &Chosen) {
                self.$connections.insert_chosen(key, chosen);
            }

            fn now(&self) -> u32 {
                self.tick
            }

            fn now_us(&self) -> u32 {
                self.tick.wrapping_mul(1_000_000)
            }
        }
    };
}

tables!(V4, Be32, FlowKey4, FragmentKey4, ChosenKey4, four);
tables!(V6, Addr6, FlowKey6, FragmentKey6, ChosenKey6, six);

/// Runs a plan on tables in memory.
#[must_use]
pub fn after(tables: &Observed, ops: &[cellwall_policy::plan::Op]) -> Observed {
    let mut tables = tables.clone();
    for op in ops {
        op.apply_to(&mut tables);
    }
    tables
}
