//! Tasks of those who work on the tree: `cargo run -p cellwall-xtask -- help`.

mod image;
mod tidy;
mod tree;

use std::process::ExitCode;

use clap::Parser;

/// Tasks of those who work on the tree.
#[derive(Debug, Parser)]
enum Task {
    /// Check what the tree promises about itself.
    Tidy,
    /// Pack the container image; `scripts/image.sh` builds what is packed.
    Image(image::Arguments),
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Tidy => tidy::run(),
        Task::Image(arguments) => image::run(arguments).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
