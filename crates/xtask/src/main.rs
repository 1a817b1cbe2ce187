//! Tasks of those who work on the tree: `cargo run -p cellwall-xtask -- help`.

mod tidy;
mod tree;

use std::process::ExitCode;

use clap::Parser;

/// Tasks of those who work on the tree.
#[derive(Debug, Parser)]
enum Task {
    /// Check what the tree promises about itself.
    Tidy,
}

fn main() -> ExitCode {
    let Task::Tidy = Task::parse();
    match tidy::run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
