//! `cellwall`: asks the agent of this node what it enforces, or what policies would do.

mod age;
mod args;
mod check;
mod endpoints;
mod node;
mod output;
mod policies;
mod run;
mod status;
mod table;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run::run(args::Args::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
