//! The command itself: what it prints where, and how it exits.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::Instant;

use cellwall_api::v1alpha1::{Endpoint, NodeStatus, ObjectReference, Policy};
use cellwall_api::{Limits, Publisher, Snapshot, Socket, serve};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::mpsc;

/// Runs `cellwall` with a socket.
async fn cellwall(socket: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cellwall"));
    command.env("CELLWALL_SOCKET", socket).args(args).output().await.expect("it was built")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder")
}

fn snapshot(ready: bool) -> Snapshot {
    let pod = |namespace: &str| ObjectReference {
        kind: "Pod".to_owned(),
        namespace: namespace.to_owned(),
        name: "web".to_owned(),
    };
    let endpoint = |namespace: &str| Endpoint {
        pod: Some(pod(namespace)),
        attached: true,
        labels: [("team".to_owned(), namespace.to_owned())].into(),
        ..Endpoint::default()
    };
    let policy = |namespace: &str| Policy {
        policy: Some(ObjectReference {
            kind: "NetworkPolicy".to_owned(),
            name: format!("of-{namespace}"),
            ..pod(namespace)
        }),
        selects: vec![pod(namespace)],
        ..Policy::default()
    };
    let of_nobody = Policy { selects: Vec::new(), ..policy("c") };
    let policies = Arc::new(vec![policy("a"), policy("b"), of_nobody]);
    let status = NodeStatus {
        node: "n1".to_owned(),
        agent_version: "0.1.0".to_owned(),
        ready,
        ..NodeStatus::default()
    };
    let unknown = Endpoint { interface: "veth0".to_owned(), ..Endpoint::default() };
    let endpoints = Arc::new(vec![unknown, endpoint("a"), endpoint("b")]);
    Snapshot { taken: Instant::now(), status, endpoints, policies }
}

#[tokio::test]
async fn without_an_agent_it_names_the_remedy() {
    let folder = folder();
    let output = cellwall(&folder.path().join("agent.sock"), &["status"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).contains("is cellwall-agent running on this node?"), "{output:?}");
}

#[tokio::test]
async fn a_wrong_command_line_is_2_and_what_needs_no_agent_asks_none() {
    let nowhere = Path::new("/nonexistent/agent.sock");
    assert_eq!(cellwall(nowhere, &["stauts"]).await.status.code(), Some(2));
    assert_eq!(cellwall(nowhere, &["endpoints", "-n", "a", "-A"]).await.status.code(), Some(2));
    let version = cellwall(nowhere, &["version", "--client"]).await;
    assert_eq!((version.status.code(), text(&version.stdout)), (Some(0), "Client: 0.1.0\n"));
    let completion = cellwall(nowhere, &["completion", "bash"]).await;
    assert!(completion.status.success() && text(&completion.stdout).contains("_cellwall"));
}

#[tokio::test]
async fn answers_and_exit_codes() {
    let folder = folder();
    let path = folder.path().join("agent.sock");
    let socket = Socket::bind(&path).expect("the folder is ours");
    let publisher = Publisher::new(snapshot(false));
    tokio::spawn(serve(
        socket,
        publisher.subscribe(),
        mpsc::channel(1).0,
        Limits::default(),
        std::future::pending(),
    ));

    let status = cellwall(&path, &["status"]).await;
    assert_eq!(status.status.code(), Some(3), "not ready");
    assert!(text(&status.stdout).contains("Ready:       no\n"), "{status:?}");
    publisher.publish(snapshot(true));
    assert_eq!(cellwall(&path, &["status", "-o", "json"]).await.status.code(), Some(0));

    let names = cellwall(&path, &["endpoints", "-n", "b", "-o", "name"]).await;
    assert_eq!((names.status.code(), text(&names.stdout)), (Some(0), "pod/web\n"));
    let all = cellwall(&path, &["endpoints", "-A", "-o", "name"]).await;
    assert_eq!(text(&all.stdout), "interface/veth0\npod/web\npod/web\n");
    let labelled = cellwall(&path, &["endpoints", "-l", "team!=a", "-o", "wide"]).await;
    let lines: Vec<&str> = text(&labelled.stdout).lines().collect();
    assert!(lines.len() == 2 && lines[1].starts_with("b "), "{labelled:?}");
    let policies = async |args: &[&str]| {
        let output = cellwall(&path, &[&["policies", "-o", "name"], args].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        text(&output.stdout).to_owned()
    };
    assert_eq!(policies(&[]).await.lines().count(), 3);
    assert_eq!(policies(&["-l", "team=b"]).await, "networkpolicy/of-b\n");
    assert_eq!(policies(&["-l", "team"]).await, "networkpolicy/of-a\nnetworkpolicy/of-b\n");
    assert_eq!(policies(&["-l", "team=b", "-n", "a"]).await, "");
    let version = cellwall(&path, &["version"]).await;
    assert_eq!(text(&version.stdout), "Client: 0.1.0\nAgent:  0.1.0\n");
}

#[tokio::test]
async fn a_watch_prints_changes_until_the_agent_ends() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let folder = folder();
    let path = folder.path().join("agent.sock");
    let socket = Socket::bind(&path).expect("the folder is ours");
    let publisher = Publisher::new(snapshot(false));
    let server = tokio::spawn(serve(
        socket,
        publisher.subscribe(),
        mpsc::channel(1).0,
        Limits::default(),
        std::future::pending(),
    ));
    let mut watch = Command::new(env!("CARGO_BIN_EXE_cellwall"))
        .args(["status", "--watch", "-o", "json", "--socket"])
        .arg(&path)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it was built");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let mut next_ready = async || loop {
        let line = lines.next_line().await.expect("readable")?;
        if line.contains("\"ready\"") {
            return Some(line.contains("true"));
        }
    };
    assert_eq!(next_ready().await, Some(false));
    publisher.publish(snapshot(true));
    assert_eq!(next_ready().await, Some(true));
    drop(publisher);
    assert_eq!(next_ready().await, None);
    assert_eq!(watch.wait().await.expect("ours").code(), Some(1));
    server.abort();
}
