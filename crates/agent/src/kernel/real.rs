//! The kernel itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cellwall_abi::Event;
use cellwall_datapath::{
    AttachError, Attached, Datapath, Features, ImportError, OpenError, RunError, TableError, now_tick,
};
use cellwall_policy::plan::Op;
use cellwall_policy::wanted::Observed;

use super::{Count, Hook, Kernel, Usage};

fn hooks(attached: BTreeMap<u32, Attached>) -> BTreeMap<u32, Hook> {
    let hook = |(ifindex, Attached { kind, first })| (ifindex, Hook { kind, first });
    attached.into_iter().map(hook).collect()
}

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

    fn import(&mut self, pods: &BTreeMap<IpAddr, u32>) -> Result<usize, ImportError> {
        Self::import(self, pods)
    }

    fn attached(&mut self) -> Result<BTreeMap<u32, Hook>, AttachError> {
        Self::attached(self).map(hooks)
    }

    fn attach(&mut self, ifindex: u32) -> Result<(), AttachError> {
        Self::attach(self, ifindex)
    }

    fn detach(&mut self, ifindex: u32) -> Result<(), AttachError> {
        Self::detach(self, ifindex)
    }

    fn attached_node(&mut self) -> Result<BTreeMap<u32, Hook>, AttachError> {
        Self::attached_node(self).map(hooks)
    }

    fn attach_node(&mut self, ifindex: u32) -> Result<(), AttachError> {
        Self::attach_node(self, ifindex)
    }

    fn detach_node(&mut self, ifindex: u32) -> Result<(), AttachError> {
        Self::detach_node(self, ifindex)
    }

    fn has_others(&self) -> bool {
        Self::has_others(self)
    }

    fn remove_others(&mut self) -> Result<(), OpenError> {
        Self::remove_others(self)
    }

    fn counters(&mut self) -> Result<Vec<Count>, TableError> {
        Self::counters(self)
    }

    fn usage(&mut self) -> Result<Vec<Usage>, TableError> {
        let usage = Self::usage(self)?.into_iter();
        Ok(usage.map(|row| Usage { table: row.table, used: row.used, capacity: row.capacity }).collect())
    }

    fn events(&mut self, see: &mut dyn FnMut(&Event)) {
        Self::events(self, see);
    }

    fn sweep(&mut self) -> Result<u64, TableError> {
        Self::sweep(self)
    }
}
