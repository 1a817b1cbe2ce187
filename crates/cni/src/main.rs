//! `cellwall-cni`: the chained CNI plugin. A runtime calls it; a person has `cellwall`.

fn main() -> std::process::ExitCode {
    cellwall_cni::main()
}
