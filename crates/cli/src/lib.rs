//! `cellwall`: asks the agent of this node, or of another one, what it enforces, or what policies would do.

mod age;
mod args;
mod check;
mod cluster;
mod endpoints;
mod node;
mod output;
mod policies;
mod remote;
mod run;
mod status;
mod table;
mod wait;

use std::process::ExitCode;

use clap::Parser;

/// Runs the command line of this process: what `cellwall` is, and one of the programs that the image's one binary can be.
#[tokio::main(flavor = "current_thread")]
pub async fn main() -> ExitCode {
    match run::run(args::Args::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
