//! The one binary of the container image: which program it is, is the name that it is called by. The programs share most of
//! their libraries, so one file is smaller than several.

mod hook;
mod install;
mod programs;

use std::process::ExitCode;

fn main() -> ExitCode {
    programs::main()
}
