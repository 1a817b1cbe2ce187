//! The program `cellwall`.

fn main() -> std::process::ExitCode {
    cellwall_cli::main()
}
