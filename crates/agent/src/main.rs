//! The program `cellwall-agent`.

fn main() -> std::process::ExitCode {
    cellwall_agent::main()
}
