//! The command line.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use crate::{compare, growth, run};

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

/// Does what the command line says.
pub(crate) fn run() -> Result<()> {
    match Task::parse() {
        Task::Run { quick, part } => run::run(quick, part),
        Task::Compare { objects } => compare::run(&objects),
        Task::Point { axis, count } => run::point(axis, count),
    }
}
