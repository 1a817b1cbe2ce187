//! `make bench`: what a packet, a table and a change cost, beside floors of the same run. Results are in
//! `benches/RESULTS.md`.

mod bars;
mod compare;
mod course;
#[path = "../../../ebpf/src/floors/drive.rs"]
#[expect(
    unreachable_pub,
    clippy::inline_always,
    clippy::cast_possible_truncation,
    reason = "the other object that this file is part of"
)]
mod drive;
mod driver;
mod executed;
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
mod vm;
mod wire;
mod world;

use std::path::PathBuf;

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
        /// Only one part, and no page: packets, wire, growth.
        #[arg(long)]
        part: Option<run::Part>,
    },
    /// Measure other builds of the kernel object beside the one in here: what a change is worth.
    Compare { objects: Vec<PathBuf> },
    /// Measure one point of what grows, for `run`.
    Point { axis: growth::Axis, count: u32 },
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Run { quick, part } => run::run(quick, part),
        Task::Compare { objects } => compare::run(&objects),
        Task::Point { axis, count } => run::point(axis, count),
    }
}
