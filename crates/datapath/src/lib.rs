//! The data path as the agent sees it: the kernel programs, their tables, the interfaces they are at.
//!
//! The only crate that calls bpf(2) and names aya.

mod clock;
mod error;
mod features;
mod grace;
mod pins;
mod prefix;
mod programs;
mod settings;
mod sys;
mod table;
mod tables;

pub use clock::{now_ns, now_tick};
pub use error::{AttachError, OpenError, RunError, TableError, TestRunError, WatchError};
pub use features::Features;
pub use settings::{Attach, Settings};
