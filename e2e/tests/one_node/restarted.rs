//! The API server is killed and started again. Without it everything stays as it is, and the agent says what it lacks; what
//! changes before the agent watches again it finds by listing, since a new server answers 410 Gone to a watch that goes on
//! from where the old one was.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use cellwall_e2e::agent::log_of;
use cellwall_e2e::cluster::Cluster;
use cellwall_e2e::helm::said;
use cellwall_e2e::node::layout::FIRST;
use serde_json::Value;

use crate::{Node, PATIENCE, Pods, WITHIN, list, server, works};

/// Where the agent has its metrics, on its node.
const METRICS: &str = "127.0.0.1:9964";
/// The kinds that every cluster serves, which are watched all the time.
const KINDS: [&str; 6] = ["Namespace", "Node", "Pod", "Service", "EndpointSlice", "NetworkPolicy"];

/// The API server of a cluster. One that was killed runs again when this value ends: other tests need it.
struct ApiServer<'a> {
    cluster: &'a Cluster,
    /// Its program and what stands behind it.
    command: Vec<String>,
    runs: bool,
}

impl<'a> ApiServer<'a> {
    fn of(cluster: &'a Cluster) -> Self {
        let pid = said(cluster.command("pgrep").args(["-x", "kube-apiserver"])).expect("it runs");
        let line = said(cluster.command("cat").arg(format!("/proc/{}/cmdline", pid.trim())));
        let command = line.expect("it runs").split_terminator('\0').map(str::to_owned).collect();
        Self { cluster, command, runs: true }
    }

    fn kill(&mut self) {
        said(self.cluster.command("pkill").args(["-KILL", "-x", "kube-apiserver"])).expect("it runs");
        self.runs = false;
    }

    /// Starts it with its own arguments, as a child of the node's process 1, with which it ends.
    fn start(&mut self) -> std::io::Result<()> {
        let log = self.cluster.folder().join("log/kube-apiserver.log");
        let log = fs::OpenOptions::new().append(true).open(log)?;
        let mut command = self.cluster.command("sh");
        command.args(["-c", r#""$@" &"#, "sh"]).args(&self.command).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log).status()?;
        self.runs = true;
        Ok(())
    }

    fn until_ready(&self) {
        let start = Instant::now();
        while let Err(error) = self.cluster.kubectl(&["get", "--raw", "/readyz"], "") {
            assert!(start.elapsed() < PATIENCE, "the API server does not come back: {error}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for ApiServer<'_> {
    fn drop(&mut self) {
        if !self.runs {
            let _ = self.start();
        }
    }
}

#[test]
fn what_changed_while_the_api_server_was_away_is_found_when_it_is_back() {
    let Some(guard) = Node::take() else { return };
    let node = guard.as_ref().expect("just made");
    let agent = node.agent.as_ref().expect("just started");
    let (open, shut) = (node.pods("away-open"), node.pods("away-shut"));
    let (live, revoked) = (open.heartbeat(), shut.heartbeat());
    revoked.until_answered_after(Instant::now(), PATIENCE).expect("the connection works");
    shut.deny();
    revoked.until_silent(Instant::now(), PATIENCE).expect("the connection is cut");
    node.until("status", |status| status["ready"] == true && failing(status).is_empty());

    // The new server knows no history before its start, and this is behind all that the agent has watched.
    for n in 0..5 {
        node.kubectl(&format!("-n away-open create configmap later-{n}"), "");
    }
    let (errors, heard) = (errors(node), fs::read(log_of(&node.cluster, FIRST)).expect("a log").len());
    let mut api = ApiServer::of(&node.cluster);
    api.kill();
    let killed = Instant::now();
    node.until("status", |status| KINDS.iter().all(|kind| failing(status).contains(kind)));
    stands(&open, &shut);

    let refused =
        |s: &Value| KINDS.iter().all(|kind| unwatched(s).contains(&format!("{kind} cannot be watched: ")));
    let away = node.until("status", |status| status["ready"] != true && refused(status));
    assert!(unwatched(&away).contains("Connection refused"), "{away:#}");
    attempts_are_bounded(node, &errors, killed);
    stands(&open, &shut);
    works(&live, Duration::from_secs(2));
    assert_eq!(revoked.until_silent(killed, PATIENCE).expect("cut"), Duration::ZERO, "no answer since");

    // Nothing of this is said to the agent, which watches again only when all is done.
    agent.halt(true).expect("it runs");
    api.start().expect("it ran before");
    api.until_ready();
    shut.allow();
    open.deny();
    agent.halt(false).expect("it runs");
    let cut = Instant::now();
    live.until_silent(cut, PATIENCE).expect("a new policy takes hold");
    node.until("endpoints -n away-shut", |answer| server(answer)["ingress"]["isolated"] != true);
    assert!(reaches(&shut), "the policy that was deleted has gone");
    assert!(!reaches(&open));
    node.until("status", |status| status["ready"] == true && failing(status).is_empty());
    println!("watched again {} ms after the agent went on", cut.elapsed().as_millis());
    gone(node, heard);

    // It is told again of what comes now.
    let told = Instant::now();
    open.allow();
    live.until_answered_after(told, PATIENCE).expect("the connection goes on");
    assert!([&open, &shut].iter().all(|pods| pods.connects(pods.server[1])));
}

/// Kinds that could not be listed or watched when it was last tried.
fn failing(status: &Value) -> Vec<&str> {
    let failing = list(status, "sources")
        .iter()
        .filter(|source| source["error"].as_str().is_some_and(|e| !e.is_empty()));
    failing.filter_map(|source| source["kind"].as_str()).collect()
}

/// What the condition says that the node is not ready for.
fn unwatched(status: &Value) -> &str {
    let is_it = |condition: &&Value| condition["type"] == "SourcesCurrent";
    list(status, "conditions")
        .iter()
        .find(is_it)
        .and_then(|found| found["message"].as_str())
        .unwrap_or_default()
}

/// What is allowed connects, and what is denied does not, without the API server.
fn stands(open: &Pods<'_>, shut: &Pods<'_>) {
    assert!(reaches(open), "what was allowed stays allowed");
    assert!(!reaches(shut), "what was denied stays denied");
}

/// True when the client connects to the server, over both families; false when it can over neither. A SYN that is lost is
/// sent again a second later.
fn reaches(pods: &Pods<'_>) -> bool {
    let connects = |family: usize| {
        let (from, to): (IpAddr, _) = (pods.client[family], SocketAddr::new(pods.server[family], 8080));
        pods.cluster.in_pod(from, || TcpStream::connect_timeout(&to, 3 * WITHIN).is_ok()).expect("a pod")
    };
    let [four, six] = [0, 1].map(connects);
    assert_eq!(four, six, "both families");
    four
}

/// Failed attempts to list or watch so far, by kind.
fn errors(node: &Node) -> Vec<u64> {
    let text = node.cluster.on_node(|| {
        let mut stream = TcpStream::connect(METRICS).expect("the agent serves it");
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("it listens");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        text
    });
    let text = text.expect("the node's network");
    let of_kind = |kind: &&str| {
        let name = format!("cellwall_source_errors_total{{kind=\"{kind}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&name));
        // A whole number, written as any other.
        value.map_or(0, |value| value.trim_end_matches(".0").parse().expect("a number"))
    };
    KINDS.iter().map(of_kind).collect()
}

/// One failure when the watch breaks, and one for each attempt that the delays have room for: a third of client-go's, which
/// begin with 0.8 s and double up to 30 s, before a random part is added.
fn attempts_are_bounded(node: &Node, before: &[u64], killed: Instant) {
    let failed: Vec<u64> = errors(node).iter().zip(before).map(|(now, before)| now - before).collect();
    let away = killed.elapsed();
    let mut most = 1;
    let (mut delay_s, mut passed_s) = (0.8, 0.8 / 3.0);
    while passed_s < away.as_secs_f64() {
        most += 1;
        delay_s = f64::min(2.0 * delay_s, 30.0);
        passed_s += delay_s / 3.0;
    }
    println!("away for {away:?}: {failed:?} failures of {KINDS:?}, at most {most} each");
    assert!(failed.iter().all(|failed| (3..=most).contains(failed)), "{failed:?}, and {most} at most");
}

/// The server's own word is in the log: it does not know any more what the agent wanted to go on from.
fn gone(node: &Node, heard: usize) {
    let log = fs::read(log_of(&node.cluster, FIRST)).expect("a log");
    let log = String::from_utf8_lossy(&log[heard..]);
    let gone: Vec<&str> = log.lines().filter(|line| line.contains("(410)")).collect();
    println!("{}", gone.join("\n"));
    assert!(!gone.is_empty(), "nobody was told that its version is too old:\n{log}");
}
