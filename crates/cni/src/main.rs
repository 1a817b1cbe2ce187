//! `cellwall-cni`: the chained CNI plugin. A runtime calls it; a person has `cellwall`.

use std::process::ExitCode;

use cellwall_cni::command;

fn main() -> ExitCode {
    let answer = command::run(std::io::stdin().lock(), |name| std::env::var_os(name));
    for note in &answer.notes {
        eprintln!("cellwall-cni: {note}");
    }
    // Nobody is left to tell when the runtime has closed its end.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), answer.text.as_bytes());
    if answer.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
