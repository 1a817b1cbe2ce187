//! A kernel in memory.
//!
//! It teaches: a row that is inserted is not there, one that is deleted is; programs come to an interface after the
//! record that they look for. It does not know: grace periods, packets, capacities, who else writes.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;

use cellwall_abi::{Counter, Direction, Event, Reason};
use cellwall_agent::kernel::{Count, Hook, Kernel, Usage};
use cellwall_datapath::{AttachError, Features, ImportError, OpenError, RunError, TableError};
use cellwall_policy::plan::Op;
use cellwall_policy::wanted::Observed;

/// A kernel in memory, and what it shall refuse.
#[derive(Debug, Default)]
pub(crate) struct FakeKernel {
    pub(crate) tables: Observed,
    pub(crate) hooks: BTreeMap<u32, Hook>,
    /// Interfaces with the program of those that are no pod's.
    pub(crate) node_hooks: BTreeMap<u32, Hook>,
    /// Interfaces that got programs of either kind, in order.
    pub(crate) attached: Vec<u32>,
    /// Writes until one fails.
    pub(crate) writes_left: Option<usize>,
    /// Interfaces that refuse programs.
    pub(crate) refuse: BTreeSet<u32>,
    /// Reads fail.
    pub(crate) blind: bool,
    /// Addresses whose connections were to be taken over, one set each time, and the revision that was live then.
    pub(crate) imports: Vec<(BTreeMap<IpAddr, u32>, u64)>,
    /// There is no nf_conntrack.
    pub(crate) no_conntrack: bool,
    /// Programs of another ABI version are there.
    pub(crate) others: bool,
    /// How many writes there were, shared so that a test can look while the loop owns the kernel.
    pub(crate) writes: Rc<Cell<usize>>,
}

impl FakeKernel {
    fn check(&self, op: &Op) {
        let t = &self.tables;
        let (insert, there) = match op {
            Op::InsertEndpoint { ifindex, .. } => (true, t.endpoints.contains_key(ifindex)),
            Op::DeleteEndpoint { ifindex } => (false, t.endpoints.contains_key(ifindex)),
            Op::InsertAddress { address, .. } => (true, t.addresses.contains_key(address)),
            Op::DeleteAddress { address } => (false, t.addresses.contains_key(address)),
            Op::DeletePrefix { prefix } => (false, t.prefixes.contains_key(prefix)),
            Op::InsertPolicy { key, .. } => (true, t.policy.contains_key(key)),
            Op::DeletePolicy { key } => (false, t.policy.contains_key(key)),
            Op::DeletePort { prefix } => (false, t.ports.contains_key(prefix)),
            _ => return,
        };
        assert_ne!(insert, there, "{op:?}");
    }

    fn read<T>(&self, table: &'static str, value: T) -> Result<T, TableError> {
        if self.blind { Err(TableError { step: "read", table, source: eio() }) } else { Ok(value) }
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl Kernel for FakeKernel {
    fn secret(&self) -> [u64; 2] {
        [7, 11]
    }

    fn now_tick(&self) -> u32 {
        1000
    }

    fn features(&self) -> Features {
        Features { kernel: "fake".to_owned(), tcx: true, batch: true, membarrier: true, btf: true, jit: true }
    }

    fn observe(&mut self) -> Result<Observed, TableError> {
        self.read("ENDPOINTS", self.tables.clone())
    }

    fn run_all(&mut self, ops: &[Op]) -> Result<(), RunError> {
        for (done, op) in ops.iter().enumerate() {
            if self.writes_left == Some(0) {
                return Err(RunError { done, what: format!("{op:?}"), source: eio() });
            }
            self.writes_left = self.writes_left.map(|left| left - 1);
            self.check(op);
            op.apply_to(&mut self.tables);
            self.writes.set(self.writes.get() + 1);
        }
        Ok(())
    }

    fn import(&mut self, pods: &BTreeMap<IpAddr, u32>) -> Result<usize, ImportError> {
        self.imports.push((pods.clone(), self.tables.live.0));
        if self.no_conntrack { Err(ImportError::List(eio())) } else { Ok(1) }
    }

    fn attached(&mut self) -> Result<BTreeMap<u32, Hook>, AttachError> {
        Ok(self.hooks.clone())
    }

    fn attach(&mut self, ifindex: u32) -> Result<(), AttachError> {
        if self.refuse.contains(&ifindex) {
            return Err(AttachError { step: "attach to", ifindex, source: eio() });
        }
        assert!(self.tables.endpoints.contains_key(&ifindex), "programs before their record");
        self.hooks.insert(ifindex, Hook { kind: "tcx", first: true });
        self.attached.push(ifindex);
        Ok(())
    }

    fn detach(&mut self, ifindex: u32) -> Result<(), AttachError> {
        self.hooks.remove(&ifindex);
        Ok(())
    }

    fn attached_node(&mut self) -> Result<BTreeMap<u32, Hook>, AttachError> {
        Ok(self.node_hooks.clone())
    }

    fn attach_node(&mut self, ifindex: u32) -> Result<(), AttachError> {
        if self.refuse.contains(&ifindex) {
            return Err(AttachError { step: "attach to", ifindex, source: eio() });
        }
        self.node_hooks.insert(ifindex, Hook { kind: "tcx", first: true });
        self.attached.push(ifindex);
        Ok(())
    }

    fn detach_node(&mut self, ifindex: u32) -> Result<(), AttachError> {
        self.node_hooks.remove(&ifindex);
        Ok(())
    }

    fn has_others(&self) -> bool {
        self.others
    }

    fn remove_others(&mut self) -> Result<(), OpenError> {
        self.others = false;
        Ok(())
    }

    fn counters(&mut self) -> Result<Vec<Count>, TableError> {
        let count = Counter { packets: 3, bytes: 180 };
        self.read("COUNTERS", vec![(Reason::DefaultDeny, Direction::Ingress, count)])
    }

    fn usage(&mut self) -> Result<Vec<Usage>, TableError> {
        let used = self.tables.policy.len() as u64;
        self.read("POLICY", vec![Usage { table: "POLICY", used, capacity: 100 }])
    }

    fn events(&mut self, see: &mut dyn FnMut(&Event)) {
        see(&Event { reason: Reason::DefaultDeny as u8, ..Event::default() });
    }

    fn sweep(&mut self) -> Result<u64, TableError> {
        self.read("FLOWS4", 1)
    }
}
