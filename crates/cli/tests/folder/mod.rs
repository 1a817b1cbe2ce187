//! Running `cellwall check` on manifests of a test.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// What a run printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// The answers that were printed.
    pub(crate) fn answers(&self) -> Vec<Value> {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs `cellwall check`; what is read from standard input is nobody's error when it is not read.
pub(crate) fn run(args: &[&str], stdin: &str) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cellwall"));
    let command = command.arg("check").args(args).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it was built");
    let mut input = child.stdin.take().expect("piped");
    let text = stdin.to_owned();
    let writer = std::thread::spawn(move || {
        let _: Result<(), _> = input.write_all(text.as_bytes());
    });
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("it does not panic");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Run { code: output.status.code().expect("no signal"), out: text(output.stdout), err: text(output.stderr) }
}

/// A folder with these files.
pub(crate) fn manifests(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("the folder is ours");
    }
    folder
}

/// Asks about flows between the objects of one file.
pub(crate) fn check(objects: &str, flows: &Value) -> Run {
    let folder = manifests(&[("all.yaml", objects)]);
    let path = folder.path().to_str().expect("UTF-8");
    run(&["-f", path, "--flows", "-", "-o", "json"], &flows.to_string())
}

/// A flow: `namespace/name` is a pod, anything else an address; `TCP/80`, or `ICMP`.
pub(crate) fn flow(src: &str, dst: &str, port: &str) -> Value {
    let end = |text: &str| if text.contains('/') { json!({"pod": text}) } else { json!({"ip": text}) };
    let mut flow = json!({"src": end(src), "dst": end(dst), "protocol": port});
    if let Some((protocol, port)) = port.split_once('/') {
        flow["protocol"] = json!(protocol);
        flow["port"] = json!(port.parse::<i64>().expect("a number"));
    }
    flow
}
