//! The kernel as a plan meets it: every write is a step, and readers run between and across steps.
//!
//! What it knows of the kernel:
//! - A reader keeps the live word it has read first. Between any two of its reads, and between finding a row and
//!   reading through the pointer to it, any number of writes may happen.
//! - A deleted element of a hash is used again by the next insert into that hash, so a pointer that is held over both
//!   shows another row. (Replacing a row lets readers miss it: seen on kernel 6.18. It breaks the test here.)
//! - A prefix and an element of an array are one word, read old or new, or they are records, and those may only be
//!   written where no reader looks: a write to the live bank of a slot in use breaks the test.
//! - A grace period ends when all readers have ended that began before it.
//!
//! Its limits: a record is read whole, at one moment; programs of one reader run in program order; connections belong
//! to the reader alone; nothing fails. What the real kernel does with plans under traffic, the data path's tests show.

use core::cell::{Cell, RefCell};
use core::net::IpAddr;
use std::collections::BTreeMap;

use cellwall_abi::{
    Addr6, Be16, Be32, CLASS_WORLD, Chosen, ChosenKey4, ChosenKey6, ClassPair, Conn, Direction,
    EndpointRecord, FlowKey4, FlowKey6, Fragment, FragmentKey4, FragmentKey6, Live, PolicyEntry, PolicyKey,
    PortKey, PortValue, SERVICE_TRANSLATED, ServiceRecord, V4, V6,
};
use cellwall_policy::plan::Op;
use cellwall_policy::wanted::{Observed, ServiceKey};
use cellwall_verdict::Tables;

use crate::memory::{Memory, NO_RECORD, NO_SERVICE};
use crate::objects::Rng;

/// A hash table: keys lead to elements, and elements are used again.
#[derive(Clone, Debug)]
struct Hash<K, V> {
    keys: BTreeMap<K, usize>,
    elements: Vec<V>,
    free: Vec<usize>,
}

impl<K: Ord + Copy + core::fmt::Debug, V: Copy> Hash<K, V> {
    fn new(rows: &BTreeMap<K, V>) -> Self {
        let keys = rows.keys().copied().zip(0..).collect();
        Self { keys, elements: rows.values().copied().collect(), free: Vec::new() }
    }

    fn insert(&mut self, key: K, value: V) {
        let element = self.free.pop().unwrap_or(self.elements.len());
        if element == self.elements.len() {
            self.elements.push(value);
        } else {
            self.elements[element] = value;
        }
        assert!(self.keys.insert(key, element).is_none(), "a plan replaces the row of {key:?}");
    }

    fn delete(&mut self, key: &K) {
        self.free.extend(self.keys.remove(key));
    }
}

/// The tables between two writes.
#[derive(Debug)]
struct Moment {
    memory: Memory,
    endpoints: Hash<u32, u32>,
    addresses: Hash<IpAddr, u32>,
    policy: Hash<PolicyKey, PolicyEntry>,
    /// Arrays keep what was written last, also where no row leads there any more.
    records: BTreeMap<(u32, u32), EndpointRecord>,
    classes: BTreeMap<u32, ClassPair>,
    services: Hash<ServiceKey, u32>,
    service_records: BTreeMap<(u32, u32), ServiceRecord>,
}

impl Moment {
    fn first(tables: &Observed) -> Self {
        Self {
            memory: Memory::new(tables.clone()),
            endpoints: Hash::new(&tables.endpoints),
            addresses: Hash::new(&tables.addresses),
            policy: Hash::new(&tables.policy),
            records: tables.records.clone(),
            classes: tables.classes.clone(),
            services: Hash::new(&tables.services),
            service_records: tables.service_records.clone(),
        }
    }

    fn after(&self, op: &Op) -> Self {
        let mut tables = self.memory.lookup.tables.clone();
        let (mut endpoints, mut addresses, mut policy) =
            (self.endpoints.clone(), self.addresses.clone(), self.policy.clone());
        let (mut records, mut classes) = (self.records.clone(), self.classes.clone());
        let (mut services, mut service_records) = (self.services.clone(), self.service_records.clone());
        match op {
            Op::InsertEndpoint { ifindex, slot } => endpoints.insert(*ifindex, *slot),
            Op::DeleteEndpoint { ifindex } => endpoints.delete(ifindex),
            Op::InsertAddress { address, slot } => addresses.insert(*address, *slot),
            Op::DeleteAddress { address } => addresses.delete(address),
            Op::InsertPolicy { key, entry } => policy.insert(*key, *entry),
            Op::DeletePolicy { key } => policy.delete(key),
            Op::PutRecord { slot, bank, record } => {
                records.insert((*slot, *bank), *record);
                let in_use = tables.endpoints.values().any(|used| used == slot);
                assert!(!in_use || *bank == tables.live.idle_bank(), "{op:?} writes what readers look at");
            }
            Op::PutClass { slot, pair } => {
                classes.insert(*slot, *pair);
                let in_use = tables.addresses.values().any(|used| used == slot);
                let before = tables.classes.get(slot).copied().unwrap_or_default();
                let bank = tables.live.bank();
                assert!(
                    !in_use || before.class(bank) == pair.class(bank),
                    "{op:?} changes the live half of {before:?}"
                );
            }
            Op::InsertService { key, slot } => services.insert(*key, *slot),
            Op::DeleteService { key } => services.delete(key),
            Op::PutServiceRecord { slot, bank, record } => {
                service_records.insert((*slot, *bank), *record);
                let in_use = tables.services.values().any(|used| used == slot);
                assert!(!in_use || *bank == tables.live.idle_bank(), "{op:?} writes what readers look at");
            }
            _ => {}
        }
        op.apply_to(&mut tables);
        let memory = Memory::new(tables);
        Self { memory, endpoints, addresses, policy, records, classes, services, service_records }
    }
}

/// A plan, write by write.
#[derive(Debug)]
pub struct FakeKernel {
    moments: Vec<Moment>,
    /// Per moment: the last one that a reader which begins there can see.
    until: Vec<usize>,
}

impl FakeKernel {
    /// Performs `ops` on `tables`.
    ///
    /// # Panics
    /// When a write is one that readers can stumble over.
    #[must_use]
    pub fn run(tables: &Observed, ops: &[Op]) -> Self {
        let mut moments = vec![Moment::first(tables)];
        for op in ops {
            moments.push(moments.last().expect("there is a first").after(op));
        }
        let mut until = vec![ops.len()];
        for (index, op) in ops.iter().enumerate().rev() {
            let next = *until.last().expect("there is a last");
            until.push(if *op == Op::Grace { index } else { next });
        }
        until.reverse();
        Self { moments, until }
    }

    /// Moments: one more than writes.
    pub fn len(&self) -> usize {
        self.moments.len()
    }

    /// False: there is a moment before the first write.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// A reader that begins at `moment` and lets a random part of the writes happen while it reads. Its connections
    /// are its own.
    pub fn reader(&self, moment: usize, seed: u64) -> Reader<'_> {
        Reader {
            kernel: self,
            now: Cell::new(moment),
            until: self.until[moment],
            random: RefCell::new(Rng::new(seed)),
            memory: Memory::new(Observed::default()),
        }
    }
}

/// One run of a program.
#[derive(Debug)]
pub struct Reader<'a> {
    kernel: &'a FakeKernel,
    now: Cell<usize>,
    until: usize,
    random: RefCell<Rng>,
    /// Connections.
    pub memory: Memory,
}

impl<'a> Reader<'a> {
    /// The moment of the next read.
    fn moment(&self) -> &'a Moment {
        let mut random = self.random.borrow_mut();
        let now = self.now.get();
        if now < self.until && random.percent(40) {
            self.now.set(random.between(now, self.until));
        }
        &self.kernel.moments[self.now.get()]
    }

    fn find_record(&self, ifindex: u32, bank: u32) -> Option<(u32, &'a EndpointRecord)> {
        let element = *self.moment().endpoints.keys.get(&ifindex)?;
        let slot = self.moment().endpoints.elements[element];
        Some((slot, self.moment().records.get(&(slot, bank)).unwrap_or(&NO_RECORD)))
    }

    fn find_service(&self, key: ServiceKey, bank: u32) -> Option<&'a ServiceRecord> {
        let element = *self.moment().services.keys.get(&key)?;
        let slot = self.moment().services.elements[element];
        let record = self.moment().service_records.get(&(slot, bank)).unwrap_or(&NO_SERVICE);
        (record.flags & SERVICE_TRANSLATED != 0).then_some(record)
    }

    fn find_class(&self, address: IpAddr, bank: u32) -> u32 {
        let pair = match self.moment().addresses.keys.get(&address) {
            Some(element) => {
                let slot = self.moment().addresses.elements[*element];
                Some(self.moment().classes.get(&slot).copied().unwrap_or_default())
            }
            None => self.moment().memory.lookup.prefix(address),
        };
        pair.map_or(CLASS_WORLD, |pair| pair.class(bank))
    }

    fn find_policy(&self, key: PolicyKey) -> Option<&'a PolicyEntry> {
        let element = *self.moment().policy.keys.get(&key)?;
        Some(&self.moment().policy.elements[element])
    }
}

macro_rules! tables {
    ($family:ty, $addr:ty, $flow_key:ty, $fragment_key:ty, $chosen_key:ty) => {
        impl Tables<$family> for Reader<'_> {
            fn live(&self) -> Live {
                self.moment().memory.lookup.tables.live
            }

            fn strict(&self) -> bool {
                false
            }

            fn record(&self, ifindex: u32, bank: u32) -> Option<(u32, &EndpointRecord)> {
                self.find_record(ifindex, bank)
            }

            fn record_of(&self, slot: u32, bank: u32) -> Option<&EndpointRecord> {
                Some(self.moment().records.get(&(slot, bank)).unwrap_or(&NO_RECORD))
            }

            fn mark(&self) -> u32 {
                Tables::<$family>::mark(&self.memory)
            }

            fn service(
                &self,
                address: &$addr,
                port: Be16,
                protocol: u8,
                bank: u32,
            ) -> Option<&ServiceRecord> {
                self.find_service(ServiceKey { address: (*address).into(), port: port.get(), protocol }, bank)
            }

            fn class(&self, address: &$addr, bank: u32) -> u32 {
                self.find_class(IpAddr::from(*address), bank)
            }

            fn policy(&self, key: &PolicyKey) -> Option<&PolicyEntry> {
                self.find_policy(*key)
            }

            fn port(&self, key: &PortKey) -> Option<PortValue> {
                self.moment().memory.lookup.port(key)
            }

            fn flow(&self, key: &$flow_key) -> Option<&mut Conn> {
                Tables::<$family>::flow(&self.memory, key)
            }

            fn pending(&self, key: &$flow_key) -> Option<&mut Conn> {
                Tables::<$family>::pending(&self.memory, key)
            }

            fn insert_flow(&self, key: &$flow_key, conn: &Conn, slot: u32) -> bool {
                Tables::<$family>::insert_flow(&self.memory, key, conn, slot)
            }

            fn insert_pending(&self, key: &$flow_key, conn: &Conn, slot: u32) -> bool {
                Tables::<$family>::insert_pending(&self.memory, key, conn, slot)
            }

            fn answered(&self, conn: &Conn, slot: u32) {
                Tables::<$family>::answered(&self.memory, conn, slot);
            }

            fn remove_flow(&self, key: &$flow_key) {
                Tables::<$family>::remove_flow(&self.memory, key);
            }

            fn remove_pending(&self, key: &$flow_key) {
                Tables::<$family>::remove_pending(&self.memory, key);
            }

            fn fragment(&self, key: &$fragment_key) -> Option<Fragment> {
                Tables::<$family>::fragment(&self.memory, key)
            }

            fn insert_fragment(&self, key: &$fragment_key, fragment: &Fragment, at: (u32, Direction)) {
                Tables::<$family>::insert_fragment(&self.memory, key, fragment, at);
            }

            fn chosen(&self, key: &$chosen_key) -> Option<Chosen> {
                Tables::<$family>::chosen(&self.memory, key)
            }

            fn insert_chosen(&self, key: &$chosen_key, chosen: &Chosen) {
                Tables::<$family>::insert_chosen(&self.memory, key, chosen);
            }

            fn now(&self) -> u32 {
                Tables::<$family>::now(&self.memory)
            }

            fn now_us(&self) -> u32 {
                Tables::<$family>::now_us(&self.memory)
            }
        }
    };
}

tables!(V4, Be32, FlowKey4, FragmentKey4, ChosenKey4);
tables!(V6, Addr6, FlowKey6, FragmentKey6, ChosenKey6);
