//! The node agent: one owner, one loop.
//!
//! ```text
//! objects ───► ┐                                             ┌─► kernel (Kernel: the one seam)
//! interfaces ► ├─► run ─► Node: apply ► compile ► plan ► run ┤
//! timers ────► ┘                                             └─► Snapshot ─► gRPC, /readyz, /metrics
//! ```
//!
//! [`run`] drains inputs into [`node`], which alone knows what is known and what is written; nothing is locked.
//! [`report`](node::Node::snapshot) makes what others read, and they never reach further than that. What goes wrong
//! with objects is a problem in the status; what goes wrong with the kernel leaves the old state in force and is
//! tried again; what is broken in ourselves panics, and pinned programs enforce meanwhile.

mod announcements;
pub mod args;
pub mod chain;
mod confirm;
mod disabled;
mod http;
mod inputs;
pub mod kernel;
pub mod log;
pub mod metrics;
pub mod node;
mod node_object;
mod remote;
mod report;
pub mod run;
pub mod sources;
pub mod start;
pub mod stats;
mod waits;

use std::process::ExitCode;

use clap::Parser;

/// Runs the command line of this process: what `cellwall-agent` is, and one of the programs that the image's one binary
/// can be.
pub fn main() -> ExitCode {
    let args = args::Args::parse();
    log::init(args.log);
    match start::start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
