//! A real API server, a real kubelet, real pods, and the agent on their node. One cluster serves all tests, one after
//! the other; it ends with this process.

mod claims;
mod remote;
mod restarted;
mod source;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use cellwall_e2e::agent::{self, Agent};
use cellwall_e2e::binaries::{KUBERNETES, major_and_minor};
use cellwall_e2e::cluster::Cluster;
use cellwall_e2e::flavour::Flavour;
use cellwall_e2e::heartbeat::{self, Heartbeat};
use cellwall_e2e::image::AGNHOST;
use cellwall_e2e::target::why_not_below;
use serde_json::Value;

/// How long something may take that has no promise. Machines are shared.
const PATIENCE: Duration = Duration::from_mins(1);
/// The promise.
const WITHIN: Duration = Duration::from_secs(1);
/// Port of the echo that tests put into the server's network, beside the 8080 of its own program.
const ECHO: u16 = 7;

static NODE: Mutex<Option<Node>> = Mutex::new(None);

struct Node {
    cluster: Cluster,
    agent: Option<Agent>,
}

/// A namespace of the cluster with a server and a client.
struct Pods<'a> {
    cluster: &'a Cluster,
    namespace: &'static str,
    server: [IpAddr; 2],
    client: [IpAddr; 2],
}

impl Node {
    /// The node, with an agent that is ready. None, and said so, where none can be had.
    fn take() -> Option<MutexGuard<'static, Option<Self>>> {
        if let Some(why) = why_not_below() {
            println!("skipped: {why}");
            return None;
        }
        // A test that failed must not fail the others.
        let mut guard = NODE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let node = guard.get_or_insert_with(|| {
            let cluster = Cluster::start(Path::new(env!("CARGO_BIN_EXE_cluster")), Flavour::default())
                .expect("a cluster");
            Self { cluster, agent: None }
        });
        if node.agent.is_none() {
            node.start_agent();
        }
        Some(guard)
    }

    fn start_agent(&mut self) {
        self.agent = Some(Agent::start(&self.cluster).expect("the agent starts"));
        self.until("status", |status| status["ready"] == true);
    }

    fn until(&self, question: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        agent::until(&self.cluster, question, PATIENCE, wanted).expect("the agent comes to say so")
    }

    fn kubectl(&self, arguments: &str, input: &str) -> String {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        self.cluster.kubectl(&arguments, input).expect("kubectl succeeds")
    }

    /// A server and a client in a new namespace, both running and known to the agent.
    fn pods(&self, namespace: &'static str) -> Pods<'_> {
        self.kubectl(&format!("create namespace {namespace}"), "");
        self.kubectl(&format!("-n {namespace} wait --for=create serviceaccount/default --timeout=60s"), "");
        for (name, arguments) in
            [("server", r#"["netexec", "--http-port=8080"]"#), ("client", r#"["pause"]"#)]
        {
            let pod = format!(
                r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}", "labels": {{"app": "{name}"}}}},
                "spec": {{"containers": [{{"name": "main", "image": "{AGNHOST}", "args": {arguments}}}],
                "terminationGracePeriodSeconds": 0}}}}"#
            );
            self.kubectl(&format!("-n {namespace} apply -f -"), &pod);
        }
        self.kubectl(
            &format!("-n {namespace} wait --for=condition=Ready pod/server pod/client --timeout=120s"),
            "",
        );
        self.until(&format!("endpoints -n {namespace}"), |answer| list(answer, "endpoints").len() == 2);
        let [server, client] = ["server", "client"].map(|pod| self.addresses(namespace, pod));
        let pods = Pods { cluster: &self.cluster, namespace, server, client };
        let listener = pods.cluster.in_pod(server[0], || TcpListener::bind((server[0], ECHO)));
        heartbeat::echo(listener.expect("the server's network").expect("a free port"));
        pods
    }

    fn addresses(&self, namespace: &str, pod: &str) -> [IpAddr; 2] {
        let text =
            self.kubectl(&format!("-n {namespace} get pod {pod} -o jsonpath={{.status.podIPs[*].ip}}"), "");
        let addresses: Vec<IpAddr> =
            text.split(' ').map(|address| address.parse().expect("an address")).collect();
        addresses.try_into().expect("one of each family")
    }
}

impl Pods<'_> {
    /// A policy that lets nothing into the server.
    fn deny(&self) {
        let policy = r#"{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny"},
            "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]}}"#;
        self.cluster.kubectl(&["-n", self.namespace, "apply", "-f", "-"], policy).expect("kubectl succeeds");
    }

    fn allow(&self) {
        let delete = ["-n", self.namespace, "delete", "networkpolicy", "deny"];
        self.cluster.kubectl(&delete, "").expect("kubectl succeeds");
    }

    /// An open connection from the client to the server.
    fn heartbeat(&self) -> Heartbeat {
        let address = SocketAddr::new(self.server[0], ECHO);
        let stream = self.cluster.in_pod(self.client[0], || TcpStream::connect_timeout(&address, WITHIN));
        Heartbeat::over(stream.expect("the client's network").expect("they can connect"))
            .expect("a connection")
    }

    /// True when the client's own program connects to the server's; false when it gets no answer.
    fn connects(&self, server: IpAddr) -> bool {
        self.reaches(SocketAddr::new(server, 8080), "tcp")
    }

    /// True when the client's program is answered there; false when it hears nothing.
    fn reaches(&self, to: SocketAddr, protocol: &str) -> bool {
        let answer = self.ask(to, protocol);
        let is_silent = answer.as_ref().is_none_or(|error| error.contains("TIMEOUT"));
        assert!(is_silent, "dropped silently, nothing else: {answer:?}");
        answer.is_none()
    }

    /// Asks there: why it was not answered, if it was not.
    fn ask(&self, to: SocketAddr, protocol: &str) -> Option<String> {
        let (to, protocol) = (to.to_string(), format!("--protocol={protocol}"));
        let connect = [
            "-n",
            self.namespace,
            "exec",
            "client",
            "--",
            "/agnhost",
            "connect",
            &to,
            "--timeout=2s",
            &protocol,
        ];
        self.cluster.kubectl(&connect, "").err().map(|error| error.to_string())
    }
}

impl Drop for Pods<'_> {
    fn drop(&mut self) {
        let _ = self.cluster.kubectl(&["delete", "namespace", self.namespace, "--wait=false"], "");
    }
}

#[test]
fn a_deny_policy_cuts_a_pod_off_within_a_second_and_its_deletion_connects_it_again() {
    let Some(node) = Node::take() else { return };
    let node = node.as_ref().expect("just made");
    let pods = node.pods("cut");
    assert_eq!(pods.server.map(|server| pods.connects(server)), [true, true]);
    let heartbeat = pods.heartbeat();
    heartbeat.until_answered_after(Instant::now(), PATIENCE).expect("the connection works");

    let begun = Instant::now();
    pods.deny();
    let applied = begun.elapsed();
    let cut = heartbeat.until_silent(begun, PATIENCE).expect("the connection is cut");
    let (applied_ms, cut_ms) = (applied.as_millis(), cut.as_millis());
    println!("kubectl apply took {applied_ms} ms; the last answer came {cut_ms} ms after its start");
    assert!(cut < applied + WITHIN, "{cut_ms} ms");
    assert_eq!(pods.server.map(|server| pods.connects(server)), [false, false]);

    let policies = node.until("policies -n cut", |answer| list(answer, "policies").len() == 1);
    assert_eq!(names(&policies["policies"][0]["selects"]), ["cut/server"]);
    let endpoints = node.until("endpoints -n cut", |answer| server(answer)["ingress"]["isolated"] == true);
    assert_eq!(names(&server(&endpoints)["ingress"]["policies"]), ["cut/deny"]);
    assert_ne!(server(&endpoints)["egress"]["isolated"], true);

    pods.allow();
    heartbeat.until_answered_after(Instant::now(), PATIENCE).expect("the connection goes on");
    assert_eq!(pods.server.map(|server| pods.connects(server)), [true, true]);
    node.until("policies -n cut", |answer| list(answer, "policies").is_empty());
}

#[test]
fn a_killed_agent_leaves_flows_and_denials_and_its_successor_changes_nothing() {
    let Some(mut guard) = Node::take() else { return };
    let node = guard.as_mut().expect("just made");
    let agent = node.agent.take().expect("just started");
    let node = &*node;
    let (open, shut) = (node.pods("open"), node.pods("shut"));
    shut.deny();
    node.until("endpoints -n shut", |answer| server(answer)["ingress"]["isolated"] == true);
    let heartbeat = open.heartbeat();
    heartbeat.until_answered_after(Instant::now(), PATIENCE).expect("the connection works");
    let settled = node.until("status", |status| status["ready"] == true);

    agent.kill().expect("it was running");
    assert!(agent::ask(&node.cluster, "status").is_err(), "nobody answers");
    assert!(!shut.connects(shut.server[0]), "what was denied stays denied without an agent");
    assert!(open.connects(open.server[0]), "what was allowed stays allowed");
    works(&heartbeat, Duration::from_secs(2));

    let successor = Agent::start(&node.cluster).expect("the agent starts");
    let status = node.until("status", |status| status["ready"] == true);
    works(&heartbeat, Duration::from_secs(2));
    assert!(!shut.connects(shut.server[0]));
    assert_eq!(status["revision"], settled["revision"], "nothing had changed, so nothing was written");
    drop((open, shut));
    guard.as_mut().expect("just made").agent = Some(successor);
}

#[test]
fn a_resource_that_is_not_served_counts_as_empty_and_an_object_that_does_not_parse_is_named() {
    let Some(node) = Node::take() else { return };
    let node = node.as_ref().expect("just made");
    let status = node.until("status", |status| status["ready"] == true);
    assert_ne!(source(&status)["served"], true, "the cluster has no such resource yet");

    node.kubectl("apply -f -", CLUSTER_NETWORK_POLICY);
    node.kubectl("wait --for=condition=Established crd/clusternetworkpolicies.policy.networking.k8s.io", "");
    let nonsense = r#"{"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "nonsense"}, "spec": {"tier": 7, "subject": [], "ingress": "all"}}"#;
    node.kubectl("apply -f -", nonsense);
    let status = node
        .until("status", |status| source(status)["served"] == true && !list(status, "problems").is_empty());
    let objects: Value = list(&status, "problems").iter().map(|problem| problem["object"].clone()).collect();
    assert_eq!(names(&objects), ["/nonsense"]);

    // The rest is enforced.
    let pods = node.pods("rest");
    assert!(pods.connects(pods.server[0]));
    pods.deny();
    node.until("endpoints -n rest", |answer| server(answer)["ingress"]["isolated"] == true);
    assert!(!pods.connects(pods.server[0]));

    node.kubectl("delete crd clusternetworkpolicies.policy.networking.k8s.io", "");
    node.until("status", |status| list(status, "problems").is_empty());
}

/// What the programs say about their version is what is built.
#[test]
fn the_binaries_tell_the_version_that_is_built() {
    let modules = include_str!("../../binaries/go.mod");
    assert!(modules.contains(&format!("k8s.io/kubernetes {KUBERNETES}\n")), "{KUBERNETES}");
    assert_eq!(major_and_minor(), ("1", "37"));
}

/// A definition that checks nothing.
const CLUSTER_NETWORK_POLICY: &str = r#"{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    "metadata": {"name": "clusternetworkpolicies.policy.networking.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
    "spec": {"group": "policy.networking.k8s.io", "scope": "Cluster",
        "names": {"kind": "ClusterNetworkPolicy", "plural": "clusternetworkpolicies"},
        "versions": [{"name": "v1alpha2", "served": true, "storage": true, "schema": {"openAPIV3Schema":
            {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}}"#;

/// The connection is answered all the time.
fn works(heartbeat: &Heartbeat, time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        heartbeat.until_answered_after(Instant::now(), WITHIN).expect("the connection works");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A list in an answer; protocol buffers leave out an empty one.
fn list<'a>(answer: &'a Value, field: &str) -> &'a [Value] {
    answer[field].as_array().map_or(&[], Vec::as_slice)
}

fn names(objects: &Value) -> Vec<String> {
    let objects = objects.as_array().map_or(&[][..], Vec::as_slice);
    let text = |object: &Value, field: &str| object[field].as_str().unwrap_or_default().to_owned();
    objects.iter().map(|object| format!("{}/{}", text(object, "namespace"), text(object, "name"))).collect()
}

fn server(endpoints: &Value) -> &Value {
    let found = list(endpoints, "endpoints").iter().find(|endpoint| endpoint["pod"]["name"] == "server");
    found.unwrap_or(&Value::Null)
}

fn source(status: &Value) -> &Value {
    let found = list(status, "sources").iter().find(|source| source["kind"] == "ClusterNetworkPolicy");
    found.unwrap_or(&Value::Null)
}
