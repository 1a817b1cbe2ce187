//! `cellwall check` as nobody: no root, no capability, no network, and nothing of what the kernel shows of itself.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// What only root could open, what a network would be, and where eBPF objects are pinned.
const PROBE: &str = "id -u; cat /etc/shadow; cat /proc/net/dev; ls /sys/fs /run/cellwall; \
                     for net in /sys/class/net/*; do test -e \"$net\" && echo \"$net\"; done; echo probed";

/// Runs a program of a folder that everybody may read. Root gives away what it is: /proc and /sys are empty, there is no network
/// but a loopback that is down, memory cannot be locked, and the user is nobody. Another user has nothing to give away.
fn as_nobody(folder: &Path, program: &str, args: &[&str]) -> Output {
    let is_root = rustix::process::getuid().is_root();
    let mut command = Command::new(if is_root { "unshare" } else { program });
    if is_root {
        let script = "mount -t tmpfs none /sys && mount -t tmpfs none /run && mount -t tmpfs none /proc && ulimit -l 0 && \
                      exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs \"$@\"";
        command.args(["--net", "--mount", "--ipc", "sh", "-c", script, "sh", program]);
    }
    command.args(args).current_dir(folder).env_clear().env("PATH", "/usr/bin:/bin");
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// The command and the files that it reads, where nobody can read them.
fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let open = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o755)).expect("it is ours");
    let examples = folder.path().join("examples");
    fs::create_dir(&examples).expect("the folder is ours");
    for entry in fs::read_dir(root.join("examples")).expect("it is there") {
        let entry = entry.expect("a file");
        let copy = examples.join(entry.file_name());
        fs::copy(entry.path(), &copy).expect("the folder is ours");
        open(&copy);
    }
    let command = folder.path().join("cellwall");
    fs::copy(env!("CARGO_BIN_EXE_cellwall"), &command).expect("it was built");
    for path in [folder.path(), &examples, &command] {
        open(path);
    }
    folder
}

#[test]
fn nobody_gets_the_answers_of_the_documentation() {
    let folder = folder();
    let probed = as_nobody(folder.path(), "sh", &["-c", PROBE]);
    let said = String::from_utf8_lossy(&probed.stdout);
    let lines: Vec<&str> = said.lines().collect();
    if rustix::process::getuid().is_root() {
        assert_eq!(lines, ["65534", "probed"], "{probed:?}");
    } else {
        println!("not root: only the user is another");
        assert!(!lines.contains(&"0") && lines.last() == Some(&"probed"), "{probed:?}");
    }

    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/check.md");
    let page = fs::read_to_string(page).expect("it is there");
    let blocks: Vec<&str> =
        page.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [flows, answers] = blocks[..] else { panic!("{} examples", blocks.len()) };
    let file = folder.path().join("flows.json");
    fs::write(&file, flows).expect("the folder is ours");
    fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("it is ours");

    let args = ["check", "-f", "examples", "--flows", "flows.json", "-o", "json"];
    let output = as_nobody(folder.path(), "./cellwall", &args);
    assert_eq!(output.status.code(), Some(2), "one of the flows is an error: {output:?}");
    let [found, expected] = [&output.stdout[..], answers.as_bytes()].map(serde_json::from_slice::<Value>);
    assert_eq!(found.expect("JSON"), expected.expect("JSON"));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
