//! The switch on the node, without any agent.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use cellwall_cni::entry::Entry;
use cellwall_cni::files::install;

const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp"}]}"#;

/// Runs `cellwall node` on a node that is a folder: nothing is mounted there, so nothing is pinned.
fn node(folder: &Path, command: &str) -> Output {
    let path = |name: &str| folder.join(name);
    let mut cellwall = Command::new(env!("CARGO_BIN_EXE_cellwall"));
    cellwall.args(["node", command, "--wait", "0", "--cni-conf-dir"]).arg(path("net.d"));
    cellwall.arg("--bpffs").arg(path("bpf")).arg("--disabled-file").arg(path("state/disabled"));
    cellwall.arg("--socket").arg(path("run/agent.sock")).output().expect("it was built")
}

#[track_caller]
fn said(output: &Output, word: &str) {
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && out.contains(word), "{output:?}");
}

#[test]
fn the_switch_outlives_agents_and_leaves_the_configuration_as_it_was() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root has the rights that are asked for first");
        return;
    }
    let folder = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    for name in ["net.d", "run"] {
        fs::create_dir(path(name)).expect("ours");
    }
    let list = path("net.d/10-pods.conflist");
    fs::write(&list, LIST).expect("ours");
    install(&path("net.d"), &Entry::default()).expect("a list");

    said(&node(folder.path(), "disable"), "until `cellwall node enable`");
    assert!(path("state/disabled").exists());
    assert_eq!(fs::read_to_string(&list).expect("there"), LIST);
    assert!(!path("net.d/cellwall.installed").exists(), "a plugin that is left lets pods start");
    said(&node(folder.path(), "disable"), "disabled");
    let mut status = Command::new(env!("CARGO_BIN_EXE_cellwall"));
    status.args(["status", "--socket"]).arg(path("run/agent.sock"));
    let status = status.env("CELLWALL_DISABLED_FILE", path("state/disabled")).output().expect("it was built");
    assert_eq!(status.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&status.stderr).contains("this node is disabled"), "{status:?}");
    said(&node(folder.path(), "enable"), "enforces again");
    assert!(!path("state/disabled").exists());
    said(&node(folder.path(), "enable"), "was not disabled");

    install(&path("net.d"), &Entry::default()).expect("a list");
    for name in ["run/agent.sock", "run/announced.json"] {
        fs::write(path(name), "").expect("ours");
    }
    said(&node(folder.path(), "disable"), "disabled");
    said(&node(folder.path(), "cleanup"), "removed");
    let left: Vec<_> =
        fs::read_dir(folder.path()).expect("there").map(|e| e.expect("one").file_name()).collect();
    assert_eq!(left, ["net.d"]);
    assert_eq!(fs::read_dir(path("net.d")).expect("there").count(), 1);
    said(&node(folder.path(), "cleanup"), "removed");
}

#[test]
fn a_switch_that_cannot_be_set_changes_nothing() {
    let output = Command::new(env!("CARGO_BIN_EXE_cellwall"))
        .args([
            "node",
            "disable",
            "--disabled-file",
            "/proc/nothing/disabled",
            "--cni-conf-dir",
            "/nonexistent",
        ])
        .output()
        .expect("it was built");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing was changed"), "{output:?}");
}
