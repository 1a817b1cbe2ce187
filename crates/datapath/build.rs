//! Builds `ebpf/` for `bpfel-unknown-none` and leaves the object in `OUT_DIR`.
//!
//! Where the tools come from: `BPF_OBJECT_DIR` (a folder with a ready object, nothing is built), else
//! `target/bpf-tools/env` (written by `scripts/bpf-tools.sh`), else bpf-linker on PATH and a toolchain with
//! rust-src.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const OBJECT: &str = "cellwall";
/// What `cellwall-bench` measures against. Not part of this crate: its path is told to those who depend on it.
const FLOORS: &str = "floors";
const HOW: &str =
    "run `make setup` once (of it, scripts/bpf-tools.sh makes these tools), or set BPF_OBJECT_DIR";

struct Tools {
    rustc: PathBuf,
    build_std: bool,
    linker: PathBuf,
}

impl Tools {
    /// What `scripts/bpf-tools.sh` found.
    fn prepared(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let get = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
        let tools = Self {
            rustc: get("RUSTC")?.into(),
            build_std: get("BUILD_STD")? == "1",
            linker: get("LINKER")?.into(),
        };
        (tools.rustc.is_file() && tools.linker.is_file()).then_some(tools)
    }

    /// An ordinary aya set-up: the active toolchain or nightly, whichever has rust-src.
    fn on_path() -> Option<Self> {
        let linker =
            env::split_paths(&env::var_os("PATH")?).map(|d| d.join("bpf-linker")).find(|p| p.is_file())?;
        let active = sysroot(Command::new(env::var_os("RUSTC")?));
        let mut nightly = Command::new("rustup");
        nightly.args(["run", "nightly", "rustc"]);
        let root = [active, sysroot(nightly)]
            .into_iter()
            .flatten()
            .find(|s| s.join("lib/rustlib/src/rust/library/core").is_dir())?;
        Some(Self { rustc: root.join("bin/rustc"), build_std: true, linker })
    }
}

fn sysroot(mut rustc: Command) -> Option<PathBuf> {
    let output = rustc.args(["--print", "sysroot"]).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().into())
}

/// The flags of every crate in the object. Paths are remapped, so that the object does not depend on where it
/// was built.
fn rustflags(tools: &Tools, root: &Path, target: &Path) -> String {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    let mut flags = vec![
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // Else every zeroed field is a call of memset, byte by byte, with a frame of its own.
        "-Clink-arg=--disable-expand-memcpy-in-order".into(),
        format!("-Clinker={}", tools.linker.display()),
    ];
    // The last match wins, so the widest comes first.
    let mut remap =
        |from: &Path, to: &str| flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    if let Some(sysroot) = sysroot(Command::new(&tools.rustc)) {
        remap(&sysroot, "/rust");
    }
    if let Some(home) = env::var_os("CARGO_HOME") {
        remap(Path::new(&home), "/cargo");
    }
    remap(root, "/cellwall");
    remap(target, "/target");
    flags.join("\x1f")
}

/// The settings of the outer cargo (of clippy, of a cross build) must not reach the inner one; its network and
/// registry settings must.
fn clean(command: &mut Command) {
    const KEPT: [&str; 4] = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR"];
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let cargo = name.starts_with("CARGO") && !KEPT.iter().any(|k| name.starts_with(k));
        // LD_LIBRARY_PATH: rustup points it at its own toolchain, and another compiler would load that one's LLVM.
        if cargo || name.starts_with("RUSTC") || name.starts_with("RUSTFLAGS") || name == "LD_LIBRARY_PATH" {
            command.env_remove(name);
        }
    }
}

fn build(root: &Path, out: &Path, tools: &Tools) -> Result<(), String> {
    // A target folder of its own: the outer cargo holds the lock of the other.
    let target = out.join("ebpf-target");
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets it"));
    clean(&mut cargo);
    cargo.current_dir(root.join("ebpf")).env("RUSTC", &tools.rustc).env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rustflags(tools, root, &target));
    cargo.env("RUSTC_WRAPPER", root.join("ebpf/.cargo/rustc.sh"));
    cargo
        .args(["build", "--release", "--locked", "--target", "bpfel-unknown-none", "--target-dir"])
        .arg(&target);
    if tools.build_std {
        cargo.args(["-Z", "build-std=core"]);
    }
    match cargo.status() {
        Ok(status) if status.success() => {}
        Ok(_) => return Err(format!("building ebpf/ failed, see above; if it is about the tools: {HOW}")),
        Err(error) => return Err(format!("cargo cannot be started: {error}")),
    }
    copy(&target.join("bpfel-unknown-none/release"), OBJECT, out)?;
    copy(&target.join("bpfel-unknown-none/release"), FLOORS, out)
}

fn copy(from: &Path, name: &str, out: &Path) -> Result<(), String> {
    let from = from.join(name);
    fs::copy(&from, out.join(name)).map(|_| ()).map_err(|e| format!("{}: {e}", from.display()))
}

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace exists");
    for name in ["BPF_OBJECT_DIR", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let prepared = root.join("target/bpf-tools/env");
    for path in [
        "ebpf/src",
        "ebpf/.cargo",
        "ebpf/Cargo.toml",
        "ebpf/Cargo.lock",
        "crates/abi",
        "crates/verdict",
        "Cargo.toml",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    println!("cargo::rerun-if-changed={}", prepared.display());
    println!("cargo::metadata=FLOORS={}", out.join(FLOORS).display());
    println!("cargo::metadata=OBJECT={}", out.join(OBJECT).display());

    let result = match env::var_os("BPF_OBJECT_DIR") {
        Some(folder) => {
            println!("cargo::rerun-if-changed={}", Path::new(&folder).join(OBJECT).display());
            let folder = Path::new(&folder);
            let floors = if folder.join(FLOORS).is_file() { copy(folder, FLOORS, &out) } else { Ok(()) };
            floors.and_then(|()| copy(folder, OBJECT, &out))
        }
        None => match Tools::prepared(&prepared).or_else(Tools::on_path) {
            Some(tools) => build(&root, &out, &tools),
            None => Err(format!("no tools to build the kernel programs: {HOW}")),
        },
    };
    if let Err(message) = result {
        println!("cargo::error={message}");
    }
}
