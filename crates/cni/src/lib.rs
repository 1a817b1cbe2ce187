//! The chained CNI plugin: a pod's first container starts when the pod is enforced, and not before.
//!
//! ```text
//! runtime ─ stdin, CNI_* ─► command ─ WaitEndpoint ─► agent ─► programs and tables
//!                              └─ prevResult, as it came, or an error ─► stdout
//! ```
//!
//! It is the last plugin of the list: the ones before it have made the interface and chosen the addresses. It touches
//! neither. [`files`] and [`conflist`] are the other half: how the agent puts it into the list that a runtime reads, and
//! takes it out again. [`entry`] is what both halves agree on.
//!
//! Written after the CNI specification, versions 0.3.1 to 1.1.0: <https://www.cni.dev/docs/spec/>.

mod agent;
pub mod command;
pub mod conflist;
pub mod entry;
mod environment;
pub mod error;
pub mod files;
mod json;
mod network;
mod previous;

use std::process::ExitCode;

/// Does what this process was called for: what `cellwall-cni` is, and one of the programs that the image's one binary can be.
pub fn main() -> ExitCode {
    let answer = command::run(std::io::stdin().lock(), |name| std::env::var_os(name));
    for note in &answer.notes {
        eprintln!("cellwall-cni: {note}");
    }
    // Nobody is left to tell when the runtime has closed its end.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), answer.text.as_bytes());
    if answer.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
