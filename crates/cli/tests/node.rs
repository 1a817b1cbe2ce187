//! Taking everything away, where there is no agent and nothing is pinned. What is pinned is removed by the data path, and its
//! tests see to that.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `cellwall node cleanup` on a node that is a folder.
fn cleanup(folder: &Path, arguments: &[&str]) -> Output {
    let mut cellwall = Command::new(env!("CARGO_BIN_EXE_cellwall"));
    cellwall.args(["node", "cleanup", "--wait", "0", "--bpffs"]).arg(folder.join("bpf")).args(arguments);
    cellwall.arg("--socket").arg(folder.join("run/agent.sock")).output().expect("it was built")
}

#[track_caller]
fn said(output: &Output, is_done: bool, words: &str) {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.success(), is_done, "{text}");
    assert!(text.contains(words), "{text}");
}

#[test]
fn the_socket_goes_and_its_folder_when_nothing_else_is_in_it() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root has the rights that are asked for first");
        return;
    }
    let folder = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    said(&cleanup(folder.path(), &[]), false, "cannot look at");
    fs::create_dir(path("bpf")).expect("ours");
    said(&cleanup(folder.path(), &["--pin-name", "a.b"]), false, "not a plain file name");

    fs::create_dir(path("run")).expect("ours");
    for name in ["run/agent.sock", "run/other"] {
        fs::write(path(name), "").expect("ours");
    }
    said(&cleanup(folder.path(), &[]), true, "is not a BPF file system, so nothing was pinned there");
    assert!(!path("run/agent.sock").exists());
    assert!(path("run/other").exists(), "what is not ours stays");
    fs::remove_file(path("run/other")).expect("there");
    said(&cleanup(folder.path(), &[]), true, "nothing of cellwall is left in force");
    assert!(!path("run").exists());
    said(&cleanup(folder.path(), &[]), true, "programs at 0 interfaces, 0 pins");
}
