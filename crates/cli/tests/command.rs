//! The command itself: what it prints where, and how it exits.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::Instant;

use cellwall_api::v1alpha1::{
    Endpoint, NodeStatus, ObjectReference, Policy, WaitEnforcedResponse, WaitingNode,
};
use cellwall_api::{Limits, Publisher, Receivers, Refusal, Snapshot, Socket, serve};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::mpsc;

/// Runs `cellwall` with a socket.
async fn cellwall(socket: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cellwall"));
    command.env("CELLWALL_SOCKET", socket).args(args).output().await.expect("it was built")
}

/// Takes nothing that the services pass on.
fn nobody() -> Receivers {
    Receivers { announcements: mpsc::channel(1).0, waits: mpsc::channel(1).0 }
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
async fn for_another_node_the_api_server_is_asked_and_no_socket() {
    let folder = folder();
    let kubeconfig = folder.path().join("config");
    let question = ["status", "--node", "n1", "--kubeconfig", kubeconfig.to_str().expect("UTF-8")];
    let output = cellwall(Path::new("/nonexistent/agent.sock"), &question).await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    let said = text(&output.stderr);
    assert!(said.contains(question[4]) && !said.contains("agent.sock"), "{said}");
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
    tokio::spawn(serve(socket, publisher.subscribe(), nobody(), Limits::default(), std::future::pending()));

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
        nobody(),
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

#[tokio::test]
async fn wait_tells_who_is_missing_and_ends_with_the_last_node_or_the_time() {
    let folder = folder();
    let path = folder.path().join("agent.sock");
    let socket = Socket::bind(&path).expect("the folder is ours");
    let publisher = Publisher::new(snapshot(true));
    let (waits, mut received) = mpsc::channel(1);
    let receivers = Receivers { waits, ..nobody() };
    let limits = Limits::default();
    tokio::spawn(serve(socket, publisher.subscribe(), receivers, limits, std::future::pending()));
    let waiting = WaitingNode { node: "n2".to_owned(), selects: true, reason: "it is not ready".to_owned() };
    let part = WaitEnforcedResponse { enforced: false, generation: 4, nodes: 2, waiting: vec![waiting] };
    let whole = WaitEnforcedResponse { enforced: true, waiting: Vec::new(), ..part.clone() };
    let wait =
        async |more: &[&str]| cellwall(&path, &[&["wait", "policy/db", "-n", "shop"], more].concat()).await;

    let answer = async |answers: Vec<Result<WaitEnforcedResponse, Refusal>>| {
        let asked = received.recv().await.expect("open");
        assert_eq!((asked.namespace.as_str(), asked.name.as_str()), ("shop", "db"));
        for answer in answers {
            asked.answers.send(answer).await.expect("somebody waits");
        }
        asked
    };
    let mut answer = answer;
    let (output, _) = tokio::join!(wait(&[]), answer(vec![Ok(part.clone()), Ok(whole.clone())]));
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), "shop/db enforced on 2 nodes (generation 4)\n")
    );
    assert_eq!(text(&output.stderr), "shop/db: 1 of 2 nodes enforce generation 4\n  n2: it is not ready\n");

    let (output, _) = tokio::join!(wait(&["--timeout", "300ms"]), answer(vec![Ok(part)]));
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    assert!(text(&output.stderr).contains("after 300ms: 1 of 2 nodes enforce"), "{output:?}");

    let refusal = Refusal::NotFound("there is no NetworkPolicy shop/db".to_owned());
    let (output, _) = tokio::join!(wait(&[]), answer(vec![Err(refusal)]));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("there is no NetworkPolicy shop/db"), "{output:?}");
    assert_eq!(wait(&["--timeout", "soon"]).await.status.code(), Some(2));
}
