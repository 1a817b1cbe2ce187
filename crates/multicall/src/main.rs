//! The one binary of the container image: which program it is, is the name that it is called by. Agent and command share
//! most of their libraries, so one file is smaller than two.

mod hook;
mod programs;

use std::process::ExitCode;

fn main() -> ExitCode {
    programs::main()
}
