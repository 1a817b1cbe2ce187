//! `cluster`: a Kubernetes cluster on this machine.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cellwall_e2e::commands::run(cellwall_e2e::commands::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
