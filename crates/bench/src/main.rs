//! `make bench`: what a packet, a table and a change cost, beside floors of the same run. Results are in
//! `benches/RESULTS.md`.

mod bars;
mod course;
#[path = "../../../ebpf/src/floors/drive.rs"]
#[expect(unreachable_pub, reason = "the other object that this file is part of")]
mod drive;
mod driver;
mod filters;
mod growth;
mod machine;
mod objects;
mod packet_socket;
mod packets;
mod program;
mod report;
mod revisions;
mod rig;
mod rights;
mod rows;
mod run;
mod sample;
mod wire;
mod world;

use anyhow::Result;
use clap::Parser;

/// Measures what Cellwall costs. As root.
#[derive(Debug, Parser)]
enum Task {
    /// Measure everything and write the results.
    Run {
        /// Fewer sizes and samples: some minutes.
        #[arg(long)]
        quick: bool,
    },
    /// Measure one point of what grows, for `run`.
    Point { axis: growth::Axis, count: u32 },
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Run { quick } => run::run(quick),
        Task::Point { axis, count } => run::point(axis, count),
    }
}
