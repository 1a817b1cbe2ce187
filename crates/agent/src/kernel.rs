//! The seam to the kernel: what the loop needs of the data path, and nothing more. Everything behind it may block
//! for some milliseconds; the loop runs on a thread of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cellwall_abi::{Counter, Direction, Event, Reason};
use cellwall_datapath::{AttachError, Features, ImportError, OpenError, RunError, TableError};
use cellwall_policy::plan::Op;
use cellwall_policy::wanted::Observed;

mod real;

/// How the programs are on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `tcx` or `clsact`.
    pub kind: &'static str,
    /// Nobody else's program is before ours, in either direction.
    pub first: bool,
}

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Name.
    pub table: &'static str,
    /// Rows in use.
    pub used: u64,
    /// Rows it has room for.
    pub capacity: u64,
}

/// Packets of one reason and direction.
pub type Count = (Reason, Direction, Counter);

/// The kernel, as far as the loop acts on it.
pub trait Kernel {
    /// Key of the hash behind the ids in the tables.
    fn secret(&self) -> [u64; 2];
    /// The clock of the tables.
    fn now_tick(&self) -> u32;
    /// What the kernel offers.
    fn features(&self) -> Features;
    /// What the tables hold.
    fn observe(&mut self) -> Result<Observed, TableError>;
    /// Performs the writes in order; an error leaves the rest undone.
    fn run_all(&mut self, ops: &[Op]) -> Result<(), RunError>;
    /// Takes over the running connections of pods (address to interface index) that are about to be enforced for the
    /// first time; how many.
    fn import(&mut self, pods: &BTreeMap<IpAddr, u32>) -> Result<usize, ImportError>;
    /// Where our programs are, by interface index.
    fn attached(&mut self) -> Result<BTreeMap<u32, Hook>, AttachError>;
    /// Puts both programs on an interface, or takes over those that are there.
    fn attach(&mut self, ifindex: u32) -> Result<(), AttachError>;
    /// Takes both programs off; fine when the interface is gone.
    fn detach(&mut self, ifindex: u32) -> Result<(), AttachError>;
    /// Interfaces with the program of those that are no pod's.
    fn attached_node(&mut self) -> Result<BTreeMap<u32, Hook>, AttachError>;
    /// Puts that program on an interface.
    fn attach_node(&mut self, ifindex: u32) -> Result<(), AttachError>;
    /// Takes it off; fine when the interface is gone.
    fn detach_node(&mut self, ifindex: u32) -> Result<(), AttachError>;
    /// True as long as programs of another ABI version may enforce what an earlier agent wrote.
    fn has_others(&self) -> bool;
    /// Takes them away, with their tables.
    fn remove_others(&mut self) -> Result<(), OpenError>;
    /// What became of packets since the tables were made.
    fn counters(&mut self) -> Result<Vec<Count>, TableError>;
    /// How full the tables are.
    fn usage(&mut self) -> Result<Vec<Usage>, TableError>;
    /// Hands over what the programs reported since the last call.
    fn events(&mut self, see: &mut dyn FnMut(&Event));
    /// Removes connections that have ended; how many.
    fn sweep(&mut self) -> Result<u64, TableError>;
}
