//! The kernel itself.

use std::collections::BTreeMap;

use cellwall_abi::Event;
use cellwall_datapath::{AttachError, Datapath, Features, RunError, TableError, now_tick};
use cellwall_policy::plan::Op;
use cellwall_policy::wanted::Observed;

use super::{Count, Hook, Kernel, Usage};

impl Kernel for Datapath {
    fn secret(&self) -> [u64; 2] {
        Self::secret(self)
    }

    fn now_tick(&self) -> u32 {
        now_tick()
    }

    fn features(&self) -> Features {
        Self::features(self).clone()
    }

    fn observe(&mut self) -> Result<Observed, TableError> {
        Self::observe(self)
    }

    fn run_all(&mut self, ops: &[Op]) -> Result<(), RunError> {
        Self::run_all(self, ops)
    }

    fn attached(&mut self) -> Result<BTreeMap<u32, Hook>, AttachError> {
        let hook = |(ifindex, at): (u32, cellwall_datapath::Attached)| {
            (ifindex, Hook { kind: at.kind, first: at.first })
        };
        Ok(Self::attached(self)?.into_iter().map(hook).collect())
    }

    fn attach(&mut self, ifindex: u32) -> Result<(), AttachError> {
        Self::attach(self, ifindex)
    }

    fn detach(&mut self, ifindex: u32) -> Result<(), AttachError> {
        Self::detach(self, ifindex)
    }

    fn counters(&mut self) -> Result<Vec<Count>, TableError> {
        Self::counters(self)
    }

    fn usage(&mut self) -> Result<Vec<Usage>, TableError> {
        let usage =
            |u: cellwall_datapath::Usage| Usage { table: u.table, used: u.used, capacity: u.capacity };
        Ok(Self::usage(self)?.into_iter().map(usage).collect())
    }

    fn events(&mut self, see: &mut dyn FnMut(&Event)) {
        Self::events(self, see);
    }

    fn sweep(&mut self) -> Result<u64, TableError> {
        Self::sweep(self)
    }
}
