//! `demo`: enforcement between namespaces on this machine, for people to watch.

use std::process::ExitCode;

fn main() -> ExitCode {
    match cellwall_e2e::demo::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
