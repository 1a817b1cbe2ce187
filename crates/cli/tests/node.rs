//! The switch and taking everything away, where there is no agent and nothing is pinned. What is pinned is removed by the
//! data path, and its tests see to that.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use cellwall_cni::entry::Entry;
use cellwall_cni::files::install;

const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp"}]}"#;

/// Runs `cellwall node` on a node that is a folder.
fn node(folder: &Path, command: &str, arguments: &[&str]) -> Output {
    let path = |name: &str| folder.join(name);
    let mut cellwall = Command::new(env!("CARGO_BIN_EXE_cellwall"));
    cellwall.args(["node", command, "--wait", "0", "--cni-conf-dir"]).arg(path("net.d"));
    cellwall.arg("--bpffs").arg(path("bpf"));
    cellwall.arg("--socket").arg(path("run/agent.sock")).args(arguments).output().expect("it was built")
}

#[track_caller]
fn said(output: &Output, is_done: bool, words: &str) {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.success(), is_done, "{text}");
    assert!(text.contains(words), "{text}");
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: only root has the rights that are asked for first");
    }
    is_root
}

#[test]
fn the_socket_goes_and_its_folder_when_nothing_else_is_in_it() {
    if !is_root() {
        return;
    }
    let folder = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let cleanup = |arguments: &[&str]| node(folder.path(), "cleanup", arguments);
    said(&cleanup(&[]), false, "cannot look at");
    fs::create_dir(path("bpf")).expect("ours");
    said(&cleanup(&["--pin-name", "a.b"]), false, "not a plain file name");

    fs::create_dir(path("run")).expect("ours");
    for name in ["run/agent.sock", "run/announced.json", "run/other"] {
        fs::write(path(name), "").expect("ours");
    }
    said(&cleanup(&[]), true, "is not a BPF file system, so nothing was pinned there");
    let left: Vec<_> =
        fs::read_dir(path("run")).expect("there").map(|e| e.expect("one").file_name()).collect();
    assert_eq!(left, ["other"], "what is not ours stays");
    fs::remove_file(path("run/other")).expect("there");
    said(&cleanup(&[]), true, "nothing of cellwall is left in force");
    assert!(!path("run").exists());
    said(&cleanup(&[]), true, "programs at 0 interfaces, 0 pins");
}

#[test]
fn the_switch_outlives_agents_and_leaves_the_configuration_as_it_was() {
    if !is_root() {
        return;
    }
    let folder = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let node = |command| node(folder.path(), command, &[]);
    for name in ["net.d", "run", "bpf"] {
        fs::create_dir(path(name)).expect("ours");
    }
    let list = path("net.d/10-pods.conflist");
    fs::write(&list, LIST).expect("ours");
    install(&path("net.d"), &Entry::default()).expect("a list");

    said(&node("disable"), true, "until `cellwall node enable`");
    assert!(path("net.d/cellwall.disabled").exists());
    assert_eq!(fs::read_to_string(&list).expect("there"), LIST);
    assert!(!path("net.d/cellwall.installed").exists(), "a plugin that is left lets pods start");
    said(&node("disable"), true, "disabled");
    let mut status = Command::new(env!("CARGO_BIN_EXE_cellwall"));
    status.args(["status", "--socket"]).arg(path("run/agent.sock"));
    let status = status.env("CELLWALL_CNI_CONF_DIR", path("net.d")).output().expect("it was built");
    assert_eq!(status.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&status.stderr).contains("this node is disabled"), "{status:?}");
    said(&node("enable"), true, "enforces again");
    assert!(!path("net.d/cellwall.disabled").exists());
    said(&node("enable"), true, "was not disabled");

    install(&path("net.d"), &Entry::default()).expect("a list");
    said(&node("disable"), true, "disabled");
    assert!(install(&path("net.d"), &Entry::default()).is_err(), "an agent that is slow to let go");
    said(&node("cleanup"), true, "removed");
    let mut left: Vec<_> =
        fs::read_dir(folder.path()).expect("there").map(|e| e.expect("one").file_name()).collect();
    left.sort();
    assert_eq!(left, ["bpf", "net.d"]);
    assert_eq!(fs::read_dir(path("net.d")).expect("there").count(), 1);
    assert_eq!(fs::read_to_string(&list).expect("there"), LIST);
}

/// A list that is a link is left to who put it there; all else goes.
#[test]
fn a_list_that_cannot_be_changed_is_named_and_keeps_nothing_else_here() {
    if !is_root() {
        return;
    }
    let folder = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    for name in ["net.d", "run", "bpf"] {
        fs::create_dir(path(name)).expect("ours");
    }
    let with = path("list");
    fs::write(path("net.d/10-pods.conflist"), LIST).expect("ours");
    install(&path("net.d"), &Entry::default()).expect("a list");
    fs::rename(path("net.d/10-pods.conflist"), &with).expect("ours");
    std::os::unix::fs::symlink(&with, path("net.d/10-pods.conflist")).expect("ours");

    let output = node(folder.path(), "cleanup", &[]);
    said(&output, false, "is a link");
    said(&output, false, "is not a BPF file system, so nothing was pinned there");
    assert!(!path("net.d/cellwall.installed").exists(), "the plugin that is left lets pods start");
}

#[test]
fn a_switch_that_cannot_be_set_changes_nothing() {
    let folder = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
    let list = folder.path().join("net.d/10-pods.conflist");
    fs::create_dir(folder.path().join("net.d")).expect("ours");
    fs::write(&list, LIST).expect("ours");
    install(&folder.path().join("net.d"), &Entry::default()).expect("a list");
    let before = fs::read_to_string(&list).expect("there");
    fs::create_dir(folder.path().join("net.d/cellwall.disabled")).expect("ours");
    let output = node(folder.path(), "disable", &[]);
    assert_eq!(output.status.code(), Some(1));
    said(&output, false, "nothing was changed");
    assert_eq!(fs::read_to_string(&list).expect("there"), before);
}
