//! The programs, and which of them is meant.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use crate::hook;

/// What a program does with the command line of this process.
type Program = fn() -> ExitCode;

/// The programs, by name.
const PROGRAMS: [(&str, Program); 4] = [
    ("cellwall-agent", cellwall_agent::main),
    ("cellwall", cellwall_cli::main),
    ("cellwall-cni", cellwall_cni::main),
    ("cellwall-hook", hook::main),
];

/// Runs the program that this process is called by.
pub(crate) fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    if let Some(program) = program(&called) {
        return program();
    }
    let names = PROGRAMS.map(|(name, _)| name).join(", ");
    eprintln!(
        "error: {} is not a name of one of the programs in this file; make a link to it with one of: {names}",
        Path::new(&called).display()
    );
    ExitCode::from(2)
}

fn program(called: &OsStr) -> Option<Program> {
    let name = Path::new(called).file_name()?;
    PROGRAMS.into_iter().find(|(program, _)| name == *program).map(|(_, main)| main)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_part_of_the_name_decides() {
        for (called, known) in [
            ("cellwall", true),
            ("/bin/cellwall-agent", true),
            ("./cellwall-hook", true),
            ("/opt/cni/bin/cellwall-cni", true),
            ("cellwall-multicall", false),
            ("cellwall/", true),
            ("", false),
        ] {
            assert_eq!(program(called.as_ref()).is_some(), known, "{called:?}");
        }
    }
}
