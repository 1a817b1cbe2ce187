//! Calls of the plugin, and an agent that says what a test has it say.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cellwall_api::v1alpha1::{Endpoint, NodeStatus, ObjectReference};
use cellwall_api::{Limits, Publisher, Receivers, Snapshot, Socket, serve};
use cellwall_policy::model::Announced;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::mpsc;

/// Only a hang takes longer.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// What the plugins before ours said, in their own hand.
pub(crate) const PREVIOUS: &str = r#"{ "cniVersion":"1.0.0", "interfaces":[{"name":"lo"},{"name":"eth0","sandbox":"/run/netns/x"}],
  "ips" : [{"address":"10.0.0.2/24","interface":1},{"address":"fd00::2/64"}], "x-unknown":1.50 }"#;

pub(crate) fn folder() -> TempDir {
    tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder")
}

/// An entry whose socket nobody listens on, with a patience of one second.
pub(crate) fn nobody(folder: &TempDir) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "type": "cellwall-cni",
        "timeoutSeconds": 1,
        "socket": folder.path().join("agent.sock"),
        "prevResult": "PREVIOUS",
    })
}

/// The pod that [`PREVIOUS`] is about, enforced.
pub(crate) fn endpoint() -> Endpoint {
    let pod =
        ObjectReference { kind: "Pod".to_owned(), namespace: "shop".to_owned(), name: "web-0".to_owned() };
    Endpoint {
        pod: Some(pod),
        pod_uid: "1234".to_owned(),
        ifindex: 1,
        interface: "lo".to_owned(),
        addresses: vec!["10.0.0.2".to_owned(), "fd00::2".to_owned()],
        attached: true,
        live: true,
        ..Endpoint::default()
    }
}

pub(crate) fn listed(endpoints: Vec<Endpoint>) -> Snapshot {
    let status = NodeStatus { node: "n1".to_owned(), revision: 7, ..NodeStatus::default() };
    Snapshot { taken: Instant::now(), status, endpoints: Arc::new(endpoints), policies: Arc::default() }
}

/// The state in which the pod is enforced.
pub(crate) fn answering() -> Snapshot {
    listed(vec![endpoint()])
}

/// The services of an agent.
pub(crate) struct Agent {
    pub(crate) publisher: Publisher,
    pub(crate) announced: mpsc::Receiver<Announced>,
    folder: Option<TempDir>,
}

impl Agent {
    /// One that knows of no pod.
    pub(crate) fn start() -> Self {
        let folder = folder();
        let agent = Self::at(&folder, listed(Vec::new()));
        Self { folder: Some(folder), ..agent }
    }

    pub(crate) fn at(folder: &TempDir, first: Snapshot) -> Self {
        let socket = Socket::bind(&folder.path().join("agent.sock")).expect("the folder is ours");
        let publisher = Publisher::new(first);
        let (announcements, announced) = mpsc::channel(8);
        let snapshots = publisher.subscribe();
        let receivers = Receivers { announcements, waits: mpsc::channel(1).0 };
        tokio::spawn(serve(socket, snapshots, receivers, Limits::default(), std::future::pending()));
        Self { publisher, announced, folder: None }
    }

    pub(crate) fn entry(&self) -> Value {
        nobody(self.folder.as_ref().expect("one of its own"))
    }
}

/// A call of the plugin.
pub(crate) struct Call {
    command: String,
    pub(crate) stdin: String,
    pub(crate) args: Option<&'static str>,
}

#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Call {
    pub(crate) fn new(command: &str, entry: &Value) -> Self {
        Self {
            command: command.to_owned(),
            stdin: entry.to_string().replace("\"PREVIOUS\"", PREVIOUS),
            args: Some("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=1234"),
        }
    }

    pub(crate) async fn run(self) -> Output {
        let start = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cellwall-cni"));
        command.env("CNI_COMMAND", self.command).envs(self.args.map(|args| ("CNI_ARGS", args)));
        command.env("CNI_CONTAINERID", "c").env("CNI_IFNAME", "eth0").env("CNI_NETNS", "/run/netns/x");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("it was built");
        let mut stdin = child.stdin.take().expect("piped");
        // It need not read all of it.
        let _ = stdin.write_all(self.stdin.as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await.expect("it ends");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Output {
            status: output.status.code().expect("no signal"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            took: start.elapsed(),
        }
    }
}
