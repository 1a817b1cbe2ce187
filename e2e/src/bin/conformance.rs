//! `conformance`: the upstream tests of NetworkPolicy against Cellwall.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cellwall_e2e::conformance::run(&cellwall_e2e::conformance::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
