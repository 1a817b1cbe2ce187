//! Policies between nodes, asked as somebody would who has kubectl and nothing else: so it runs against any cluster with
//! Cellwall in it that KUBECONFIG names. Without one it makes a cluster of two nodes, and another one beside it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use cellwall_e2e::agent::ask;
use cellwall_e2e::cluster::Cluster;
use cellwall_e2e::flavour::{Families, Flavour};
use cellwall_e2e::programs::program;
use cellwall_e2e::target::{Target, agnhost, why_not_below};
use serde_json::{Value, json};

/// How long something may take that has no promise. Machines are shared.
const PATIENCE: Duration = Duration::from_mins(2);
const PROGRAM: &str = env!("CARGO_BIN_EXE_cluster");
/// Who asks: beside the server, and on another node where there is one.
const CLIENTS: [&str; 2] = ["near", "far"];

/// For each client and each address of the server, whether they connect.
type Matrix = BTreeMap<(&'static str, String), bool>;

/// A namespace with a server and its clients. It goes with this value.
struct Scene {
    target: Target,
    namespace: String,
    addresses: Vec<String>,
}

#[test]
fn policies_hold_between_pods_of_one_node_and_of_two_in_each_family() {
    let target = match Target::other().expect("KUBECONFIG names a file") {
        Some(other) => other,
        None if why_not_below().is_some() => {
            println!("skipped: {}", why_not_below().expect("just asked"));
            return;
        }
        None => {
            let flavour = Flavour { nodes: 2, families: Families::DualIpv6, ..Flavour::default() };
            Target::start(Path::new(PROGRAM), flavour, true).expect("a cluster")
        }
    };
    let scene = Scene::new(target);
    scene.until("before there is a policy", |_| true);
    scene.apply(&scene.policy("Ingress", "server", "from", "far"));
    scene.until("only the other node's pod is allowed", |client| client == "far");
    scene.apply(&scene.policy("Ingress", "server", "from", "near"));
    scene.until("only the same node's pod is allowed", |client| client == "near");
    scene.apply(&scene.policy("Egress", "near", "to", "far"));
    scene.until("and that one may not ask", |_| false);
    scene.shows_every_node();
    scene.waits_for_every_node();
    scene.kubectl("delete networkpolicy --all");
    scene.until("after the policies", |_| true);
}

#[test]
fn a_second_cluster_stands_beside_the_first_and_leaves_nothing() {
    if let Some(why) = why_not_below() {
        println!("skipped: {why}");
        return;
    }
    let start = |nodes| Cluster::start(Path::new(PROGRAM), Flavour { nodes, ..Flavour::default() });
    let first = start(1).expect("a cluster");
    let second = start(2).expect("another one");
    let uid = |cluster: &Cluster| {
        let question = ["get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"];
        cluster.kubectl(&question, "").expect("it answers")
    };
    assert_ne!(uid(&first), uid(&second));
    let nodes = second.kubectl(&["get", "nodes", "-o", "name"], "").expect("it answers");
    assert_eq!(nodes, "node/node-1\nnode/node-2\n");

    let (name, folder) = (second.name().to_owned(), second.folder());
    assert!(folder.exists());
    assert!(!cgroups(&name).is_empty());
    drop(second);
    assert!(!folder.exists(), "{}", folder.display());
    assert_eq!(cgroups(&name), [""; 0]);
    assert_eq!(processes(&name), "");
    uid(&first);
}

impl Scene {
    fn new(target: Target) -> Self {
        let nodes = target.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"], "");
        let nodes = nodes.expect("the cluster answers");
        let mut nodes: Vec<&str> = nodes.split_whitespace().collect();
        if nodes.len() == 1 {
            println!("skipped: pods of two nodes, since the cluster has one");
            nodes.push(nodes[0]);
        }
        let namespace = format!("cellwall-nodes-{}", std::process::id());
        let mut scene = Self { target, namespace, addresses: Vec::new() };
        scene.target.kubectl(&["create", "namespace", &scene.namespace], "").expect("kubectl succeeds");
        scene.kubectl("wait --for=create serviceaccount/default --timeout=60s");
        for (name, node) in [("server", nodes[0]), ("near", nodes[0]), ("far", nodes[1])] {
            scene.apply(&pod(name, node));
        }
        scene.kubectl("wait --for=condition=Ready pod --all --timeout=180s");
        let addresses = scene.kubectl("get pod server -o jsonpath={.status.podIPs[*].ip}");
        scene.addresses = addresses.split_whitespace().map(str::to_owned).collect();
        println!("the server is {addresses} on {}", nodes[0]);
        scene
    }

    /// Whoever has a kubeconfig sees every node, also one that has no agent.
    fn shows_every_node(&self) {
        let Some(cluster) = self.target.own() else {
            println!("skipped: a node without an agent in the overview, since the cluster is not ours");
            return;
        };
        let status = || {
            let mut cellwall = cluster.outside(program("cellwall").expect("it is built"));
            cellwall.args(["status", "--cluster", "-o", "json", "--kubeconfig"]);
            let output = cellwall.arg(cluster.folder().join("kubeconfig")).output().expect("it runs");
            let said = String::from_utf8_lossy(&output.stderr);
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
            let nodes = answer["nodes"].as_array().expect("a list").iter();
            let told = |node: &Value| format!("{} {} {}", node["name"], node["ready"], node["reason"]);
            (output.status.code(), nodes.map(told).collect::<Vec<_>>())
        };
        // Agents write at most every ten seconds.
        let until = |wanted: (i32, &[&str])| {
            let begun = Instant::now();
            loop {
                let (code, nodes) = status();
                if code == Some(wanted.0) && nodes == wanted.1 {
                    return;
                }
                assert!(begun.elapsed() < PATIENCE, "{code:?}: {nodes:?}");
                thread::sleep(Duration::from_millis(200));
            }
        };
        let [first, second] = [r#""node-1" true null"#, r#""node-2" true null"#];
        until((0, &[first, second]));
        self.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-3"}}));
        until((3, &[first, second, r#""node-3" false "no agent has written its CellwallNode""#]));
        self.kubectl("delete node node-3");
    }

    /// Who waits for a policy waits for every node, also for one that has none of its pods, and is told which is missing.
    fn waits_for_every_node(&self) {
        let Some(cluster) = self.target.own() else {
            println!("skipped: an agent that hangs while somebody waits for a policy, since it is not ours");
            return;
        };
        let wait = |time: &str| {
            let question = format!("wait policy/near -n {} --timeout {time}", self.namespace);
            ask(cluster, &question)
        };
        let enforced = wait("60s").expect("all nodes come to enforce it");
        assert_eq!((&enforced["enforced"], &enforced["nodes"]), (&true.into(), &2.into()), "{enforced}");

        let other = &self.target.agents()[1];
        other.halt(true).expect("it runs");
        self.apply(&self.policy("Egress", "near", "to", "nobody"));
        let late = wait("15s").expect_err("one node does not know of it");
        assert!(late.to_string().contains("1 of 2 nodes enforce generation 2"), "{late}");
        assert!(late.to_string().contains("node-2, which has none of its pods: it enforces"), "{late}");
        other.halt(false).expect("it runs");
        let enforced = wait("60s").expect("it catches up");
        assert_eq!(
            (&enforced["enforced"], &enforced["generation"]),
            (&true.into(), &"2".into()),
            "{enforced}"
        );
    }

    fn kubectl(&self, arguments: &str) -> String {
        let arguments = ["-n", &self.namespace].into_iter().chain(arguments.split(' '));
        self.target.kubectl(&arguments.collect::<Vec<&str>>(), "").expect("kubectl succeeds")
    }

    fn apply(&self, object: &Value) {
        let apply = ["-n", &self.namespace, "apply", "-f", "-"];
        self.target.kubectl(&apply, &object.to_string()).expect("kubectl succeeds");
    }

    /// A policy that leaves `who` one peer in one direction.
    fn policy(&self, direction: &str, who: &str, peers: &str, peer: &str) -> Value {
        let selector = |app: &str| json!({"matchLabels": {"app": app}});
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": who, "namespace": self.namespace},
            "spec": {"podSelector": selector(who), "policyTypes": [direction],
                direction.to_lowercase(): [{peers: [{"podSelector": selector(peer)}]}]}})
    }

    /// Waits until those clients connect, and no others, to all addresses.
    fn until(&self, when: &str, may: impl Fn(&str) -> bool) {
        let pairs = || CLIENTS.iter().flat_map(|client| self.addresses.iter().map(move |to| (*client, to)));
        let wanted: Matrix = pairs().map(|(client, to)| ((client, to.clone()), may(client))).collect();
        let begun = Instant::now();
        loop {
            let is: Matrix =
                pairs().map(|(client, to)| ((client, to.clone()), self.connects(client, to))).collect();
            if is == wanted {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{when}: {is:?}");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// True when the client connects; false when it gets no answer.
    fn connects(&self, client: &str, to: &str) -> bool {
        let target = SocketAddr::new(to.parse().expect("an address"), 8080).to_string();
        let namespace = ["-n", &self.namespace];
        let connect = ["exec", client, "--", "/agnhost", "connect", &target, "--timeout=2s"];
        match self.target.kubectl(&[&namespace[..], &connect].concat(), "") {
            Ok(_) => true,
            Err(error) => {
                assert!(error.to_string().contains("TIMEOUT"), "dropped silently, nothing else: {error}");
                false
            }
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.target.kubectl(&["delete", "namespace", &self.namespace, "--wait=false"], "");
    }
}

fn pod(name: &str, node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": {
        "nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [
            {"name": "main", "image": agnhost(), "args": ["netexec", "--http-port=8080"]}]}})
}

/// The cgroups of a cluster, in the hierarchies of version 1 or in the one of version 2.
fn cgroups(cluster: &str) -> Vec<String> {
    let Ok(hierarchies) = fs::read_dir("/sys/fs/cgroup") else { return Vec::new() };
    let folders = hierarchies.flatten().map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]);
    let inside = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let names = inside.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(cluster)).collect()
}

fn processes(cluster: &str) -> String {
    let output = Command::new("pgrep").args(["-f", &format!("node {cluster}")]).output().expect("pgrep runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
