//! Says where the build script of `cellwall-datapath` left the objects: the floors, and what is shipped.

fn main() {
    for name in ["FLOORS", "OBJECT"] {
        match std::env::var(format!("DEP_CELLWALL_EBPF_{name}")) {
            Ok(path) => println!("cargo::rustc-env=CELLWALL_{name}={path}"),
            Err(error) => println!("cargo::error=cellwall-datapath did not say where {name} is: {error}"),
        }
    }
}
