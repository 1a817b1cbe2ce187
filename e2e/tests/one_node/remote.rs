//! An agent is asked from outside its node: a real API server says who asks and leads there, through a real kubelet.

use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use cellwall_api::client::{Client, ClientError};
use cellwall_e2e::agent::{self, Agent};
use cellwall_e2e::cluster::Cluster;
use cellwall_e2e::image::AGNHOST;
use cellwall_e2e::places;
use cellwall_e2e::programs::program;
use cellwall_kube::remote::Tunnel;
use cellwall_kube::source;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use crate::{Node, PATIENCE};

const NAMESPACE: &str = "outside";

/// What the chart installs for readers, and the network of the agent's pod: the agent itself runs beside it.
struct Site<'a> {
    cluster: &'a Cluster,
}

impl<'a> Site<'a> {
    fn new(node: &'a Node) -> Self {
        let resource = places::workspace().join("deploy/helm/cellwall/files/cellwallnodes.yaml");
        node.kubectl(&format!("apply -f {}", resource.display()), "");
        node.kubectl(&format!("create namespace {NAMESPACE}"), "");
        let site = Self { cluster: &node.cluster };
        for account in ["cellwall-reader", "somebody"] {
            node.kubectl(&format!("-n {NAMESPACE} create serviceaccount {account}"), "");
        }
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent"}, "spec": {
            "hostNetwork": true, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": AGNHOST, "args": ["pause"]}]}});
        node.kubectl(&format!("-n {NAMESPACE} apply -f -"), &pod.to_string());
        node.kubectl(&format!("-n {NAMESPACE} wait --for=condition=Ready pod/agent --timeout=120s"), "");
        site
    }

    /// Lets a service account do what these rules say.
    fn allow(&self, account: &str, rules: &Value) {
        let name = format!("cellwall-e2e-{account}");
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name}, "rules": rules});
        let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}]});
        for object in [role, binding] {
            self.cluster.kubectl(&["apply", "-f", "-"], &object.to_string()).expect("kubectl succeeds");
        }
    }

    /// `cellwall` where the API server is reached and the agent's socket is not.
    fn cellwall(&self, kubeconfig: &str, question: &str) -> Output {
        let mut command: Command = self.cluster.outside(program("cellwall").expect("it is built"));
        command.args(question.split(' ')).args(["--node", "node-1", "-o", "json", "--kubeconfig"]);
        command.arg(self.cluster.folder().join(kubeconfig)).output().expect("it runs")
    }

    /// The answer, once there is one.
    fn answer(&self, question: &str) -> Value {
        let begun = Instant::now();
        loop {
            let output = self.cellwall("kubeconfig", question);
            if let Ok(answer) = serde_json::from_slice(&output.stdout) {
                return answer;
            }
            assert!(begun.elapsed() < PATIENCE, "{question}: {output:?}");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until it is refused in these words.
    fn is_refused(&self, kubeconfig: &str, words: &str) {
        let begun = Instant::now();
        loop {
            let output = self.cellwall(kubeconfig, "status");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            if said.contains(words) {
                assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
                println!("{}", said.trim());
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{words}: {output:?}");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// A kubeconfig of a service account beside the administrator's.
    fn writes_a_kubeconfig_of(&self, account: &str) {
        let own = std::fs::read_to_string(self.cluster.folder().join("kubeconfig")).expect("it is there");
        let mut config: Value = serde_json::from_str(&own).expect("JSON");
        let token = self.cluster.kubectl(&["-n", NAMESPACE, "create", "token", account], "");
        config["users"][0]["user"] = json!({"token": token.expect("kubectl succeeds").trim()});
        std::fs::write(self.cluster.folder().join(account), config.to_string()).expect("the folder is ours");
    }

    /// What the agent says to a token of the reader's that is for the API server.
    fn shows_another_token(&self) -> Result<(), ClientError> {
        let token = self.cluster.kubectl(&["-n", NAMESPACE, "create", "token", "cellwall-reader"], "");
        let token = token.expect("kubectl succeeds");
        let kubeconfig = self.cluster.folder().join("kubeconfig");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let ask = async {
            let client = source::client(Some(&kubeconfig), None).await.expect("the kubeconfig is usable");
            let tunnel = Tunnel::open(&client, "node-1").await.expect("the administrator may");
            let mut agent = Client::over(tunnel.stream, &tunnel.certificate, token.trim()).await?;
            agent.status().await.map(drop)
        };
        // Its sockets are made on the thread that it runs on.
        self.cluster.on_node(|| runtime.block_on(ask)).expect("the node's network")
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        for what in [
            &["namespace", NAMESPACE][..],
            &["clusterrole,clusterrolebinding", "cellwall-e2e-cellwall-reader", "cellwall-e2e-somebody"],
            &["customresourcedefinition", "cellwallnodes.cellwall.dev"],
        ] {
            let delete = [&["delete", "--ignore-not-found", "--wait=false"][..], what].concat();
            let _ = self.cluster.kubectl(&delete, "");
        }
    }
}

#[test]
fn an_agent_is_asked_from_wherever_kubectl_works_by_those_who_may() {
    let Some(mut guard) = Node::take() else { return };
    // Another one takes its place, which is gone in the end: the next test starts its own.
    guard.as_mut().expect("just made").agent.take().expect("just started").kill().expect("it was running");
    let node = guard.as_ref().expect("just made");
    let site = Site::new(node);
    let pod = ["--pod-namespace", NAMESPACE, "--pod-name", "agent"];
    let agent = Agent::start_with(&node.cluster, &pod).expect("the agent starts");
    node.until("status", |status| status["ready"] == true);

    site.is_refused(
        "kubeconfig",
        "system:serviceaccount:outside:cellwall-reader may not ask the agent of node-1",
    );
    let nodes = |verbs: &[&str], what: &str| json!({"apiGroups": ["cellwall.dev"], "resources": [what], "verbs": verbs});
    site.allow("cellwall-reader", &json!([nodes(&["get"], "cellwallnodes/agent")]));
    let far = site.answer("status");
    assert_eq!((&far["node"], &far["ready"]), (&json!("node-1"), &json!(true)), "{far}");

    let pods = node.pods("seen");
    pods.deny();
    let near = node.until("endpoints -n seen", |answer| crate::server(answer)["ingress"]["isolated"] == true);
    assert_eq!(crate::server(&site.answer("endpoints -n seen")), crate::server(&near));
    let near = agent::ask(&node.cluster, "policies -n seen").expect("the agent answers");
    assert_eq!(site.answer("policies -n seen"), near);
    let waited = site.answer("wait policy/deny -n seen");
    assert_eq!((&waited["enforced"], &waited["nodes"]), (&json!(true), &json!(1)), "{waited}");

    let refused = site.shows_another_token();
    let is_unknown = matches!(&refused, Err(ClientError::Call { code, .. }) if code == "Unauthenticated");
    assert!(is_unknown, "a token for the API server: {refused:?}");

    site.writes_a_kubeconfig_of("somebody");
    site.is_refused("somebody", "you may not get cellwallnodes/node-1: ");
    let get = nodes(&["get"], "cellwallnodes");
    site.allow("somebody", &json!([get]));
    site.is_refused(
        "somebody",
        "you may not create a token of the service account outside/cellwall-reader: ",
    );
    let token = json!({"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]});
    site.allow("somebody", &json!([get, token]));
    site.is_refused("somebody", "you may not forward port 9965 of the agent's pod outside/agent: ");
    let forward = json!({"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]});
    site.allow("somebody", &json!([get, token, forward]));
    let begun = Instant::now();
    while site.cellwall("somebody", "status").status.code() != Some(0) {
        assert!(begun.elapsed() < PATIENCE, "{:?}", site.cellwall("somebody", "status"));
    }

    // Without an agent nobody answers there, and it is said so.
    agent.kill().expect("it was running");
    site.is_refused("kubeconfig", "does not lead to its agent's port");
}
