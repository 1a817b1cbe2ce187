//! Says where the build script of `cellwall-datapath` left the object of the floors.

fn main() {
    match std::env::var("DEP_CELLWALL_EBPF_FLOORS") {
        Ok(path) => println!("cargo::rustc-env=CELLWALL_FLOORS={path}"),
        Err(error) => println!("cargo::error=cellwall-datapath did not say where the floors are: {error}"),
    }
}
