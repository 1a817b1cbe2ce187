//! `cellwall-agent`: enforces the cluster's network policies on the pods of one node.

use std::process::ExitCode;

use cellwall_agent::args::Args;
use cellwall_agent::{log, start};
use clap::Parser;

fn main() -> ExitCode {
    let args = Args::parse();
    log::init(args.log);
    match start::start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
