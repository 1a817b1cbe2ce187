//! The data path as the agent sees it: the kernel programs, their tables, the interfaces they are at. The only
//! crate that calls bpf(2) and names aya.
//!
//! [`Datapath`] opens, adopts, writes, reads back and attaches; [`links`] tells which interfaces lead to which
//! addresses. Reading order: `datapath` (what can be done), `pins` (what outlives the agent), `programs` and
//! `tables` (what is loaded), `run` and `observe` (plans), `tcx` and `clsact` (interfaces).

mod capabilities;
mod clock;
mod clsact;
mod conntrack;
mod count;
mod datapath;
mod error;
mod features;
mod grace;
mod helpers;
pub mod links;
mod memory;
mod netlink;
mod observe;
mod pins;
mod prefix;
mod programs;
mod remove;
mod run;
mod settings;
#[cfg(test)]
mod stack;
mod sweep;
mod sys;
mod table;
mod tables;
mod tcx;
mod test_run;

pub use clock::{now_ns, now_tick};
pub use count::Usage;
pub use datapath::{Attached, Datapath, before_reading};
pub use error::{AttachError, ImportError, OpenError, RunError, TableError, TestRunError, WatchError};
pub use features::Features;
pub use memory::memory;
pub use remove::{Removed, remove};
pub use settings::{Attach, Settings};
pub use sweep::{TCP_HALF_CLOSED_TICKS, TCP_IDLE_TICKS};
pub use test_run::{At, Runner};
