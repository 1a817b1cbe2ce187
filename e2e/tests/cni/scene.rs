//! A cluster in which pods start one after the other, in a namespace whose policies are there before them.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cellwall_e2e::agent::{self, Agent};
use cellwall_e2e::cluster::Cluster;
use cellwall_e2e::flavour::Flavour;
use cellwall_e2e::helm::said;
use cellwall_e2e::image::AGNHOST;
use cellwall_e2e::node::{CNI_BIN_DIR, CNI_CONF_DIR};
use cellwall_e2e::programs::program;
use serde_json::{Value, json};

use crate::traffic::{HTTP, RECORDER, Traffic};

/// How long something may take that has no promise. Machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
/// What a pod sends: from its first instruction on, for two seconds.
const SEND: &str = "for i in {1..40}; do for to in $TARGETS; do echo $i > /dev/udp/$to; (echo $i > /dev/tcp/$to) & done; \
                    sleep 0.05; done 2>/dev/null; kill $(jobs -p); exit 0";

/// Two clusters at once are too much for a small machine.
static ONE: Mutex<()> = Mutex::new(());

pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    /// The pod whose word counts for nothing: nobody may send to it, and it may send to nobody.
    pub(crate) stranger: [IpAddr; 2],
    /// The pod that may ask those that are asked.
    friend: [IpAddr; 2],
    _one: MutexGuard<'static, ()>,
}

impl Scene {
    /// None, and said so, where no cluster can be had.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: a cluster needs root");
            return None;
        }
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = Cluster::start(Path::new(env!("CARGO_BIN_EXE_cluster")), Flavour::default());
        let nobody = [IpAddr::from([0, 0, 0, 0]); 2];
        let mut scene =
            Self { cluster: cluster.expect("a cluster"), stranger: nobody, friend: nobody, _one: one };
        for name in ["stranger", "friend"] {
            scene.make_pod("default", name);
        }
        scene.kubectl("wait --for=condition=Ready pod/stranger pod/friend --timeout=120s");
        scene.stranger = scene.addresses("default", "stranger");
        scene.friend = scene.addresses("default", "friend");
        for namespace in ["open", "start"] {
            scene.kubectl(&format!("create namespace {namespace}"));
            scene.kubectl(&format!("-n {namespace} wait --for=create serviceaccount/default --timeout=60s"));
        }
        Some(scene)
    }

    pub(crate) fn kubectl(&self, arguments: &str) -> String {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        self.cluster.kubectl(&arguments, "").unwrap_or_else(|error| panic!("{error:#}\n{}", self.state()))
    }

    fn apply(&self, object: &Value) {
        self.cluster.kubectl(&["apply", "-f", "-"], &object.to_string()).expect("kubectl succeeds");
    }

    /// A pod that does nothing.
    pub(crate) fn make_pod(&self, namespace: &str, name: &str) {
        self.apply(&pod(namespace, name, &json!({"app": name}), json!({"args": ["pause"]}), &json!([])));
    }

    /// An agent that is ready.
    pub(crate) fn agent(&self, more: &[&str]) -> Agent {
        let agent = self.agent_that_may_not_be_ready(more);
        self.until("status", |status| status["ready"] == true);
        agent
    }

    pub(crate) fn agent_that_may_not_be_ready(&self, more: &[&str]) -> Agent {
        Agent::start_with(&self.cluster, more).expect("the agent starts")
    }

    pub(crate) fn until(&self, question: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        agent::until(&self.cluster, question, PATIENCE, wanted).expect("the agent comes to say so")
    }

    /// Runs `cellwall` on the node.
    pub(crate) fn on_node(&self, arguments: &[&str]) -> String {
        let cellwall = program("cellwall").expect("it is built");
        said(self.cluster.command(cellwall).args(arguments)).expect("it succeeds")
    }

    pub(crate) fn install_plugin(&self) {
        let plugin = program("cellwall-cni").expect("it is built");
        said(self.cluster.command("cp").arg(plugin).arg(CNI_BIN_DIR)).expect("it is copied");
    }

    pub(crate) fn has_pins(&self) -> bool {
        let names = said(self.cluster.command("ls").arg("/sys/fs/bpf")).expect("it is mounted");
        names.lines().any(|name| name == "cellwall")
    }

    /// Takes away what is pinned, and with it every program: what a reboot leaves.
    pub(crate) fn forget_everything(&self) {
        said(self.cluster.command("rm").args(["-r", "/sys/fs/bpf/cellwall"])).expect("it was there");
    }

    pub(crate) fn conflist(&self) -> String {
        said(self.cluster.command("cat").arg(format!("{CNI_CONF_DIR}/10-pods.conflist")))
            .expect("it is there")
    }

    /// As tools that know what they do write a file.
    pub(crate) fn write_conflist(&self, text: &str) {
        let script = "cat > fresh && mv fresh 10-pods.conflist";
        let mut shell = self.cluster.command("sh");
        shell.args(["-c", &format!("cd {CNI_CONF_DIR} && {script}")]).stdin(Stdio::piped());
        let mut child = shell.spawn().expect("a shell");
        child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it reads");
        assert!(child.wait().expect("it ends").success());
    }

    /// Starts pods, and returns when all have done what they are for.
    pub(crate) fn start_pods(&self, namespace: &str, prefix: &str, count: usize, traffic: &Traffic) {
        let names = self.make_pods(namespace, prefix, count, traffic);
        self.until_all_have_done_theirs(namespace, &names);
    }

    /// Makes pods right after their policies: half of them senders, then listeners.
    pub(crate) fn make_pods(
        &self,
        namespace: &str,
        prefix: &str,
        count: usize,
        traffic: &Traffic,
    ) -> Vec<String> {
        traffic.expect(self.next_addresses(), count);
        let names: Vec<String> = (0..count).map(|n| format!("{prefix}-{n}")).collect();
        let (senders, listeners) = names.split_at(count / 2);
        let targets: Vec<String> =
            self.stranger.iter().map(|address| format!("{address}/{RECORDER}")).collect();
        let sender = |name: &String| {
            let main = json!({"command": ["/usr/bin/bash", "-c", SEND],
                "env": [{"name": "TARGETS", "value": targets.join(" ")}]});
            pod(namespace, name, &json!({"kind": "sender"}), main, &libraries())
        };
        let listener = |name: &String| {
            let main = json!({"args": ["netexec", format!("--http-port={HTTP}")]});
            pod(namespace, name, &json!({"kind": "listener"}), main, &json!([]))
        };
        let pods: Vec<Value> = senders.iter().map(sender).chain(listeners.iter().map(listener)).collect();
        let policies = if namespace == "start" { policies() } else { Vec::new() };
        let items: Vec<Value> = policies.into_iter().chain(pods).collect();
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}));
        names
    }

    /// Senders have sent all that they have, and listeners have answered their friend.
    pub(crate) fn until_all_have_done_theirs(&self, namespace: &str, names: &[String]) {
        let (senders, listeners) = names.split_at(names.len() / 2);
        for name in listeners {
            self.kubectl(&format!("-n {namespace} wait --for=condition=Ready pod/{name} --timeout=120s"));
            for address in self.addresses(namespace, name) {
                self.until_friend_is_answered(address);
            }
        }
        for name in senders {
            self.kubectl(&format!(
                "-n {namespace} wait --for=jsonpath={{.status.phase}}=Succeeded pod/{name} --timeout=120s"
            ));
        }
    }

    pub(crate) fn end_pods(&self, namespace: &str) {
        self.kubectl(&format!("-n {namespace} delete pods --all --timeout=120s"));
        // Not before: pods that end are still asked. An object with a grace period is there until the kubelet has ended its
        // pod; with none it goes at once, and a listener may outlive its policies.
        self.kubectl(&format!("-n {namespace} delete networkpolicies --all --timeout=120s"));
    }

    fn until_friend_is_answered(&self, address: IpAddr) {
        let target = SocketAddr::new(address, HTTP);
        let connect = || TcpStream::connect_timeout(&target, Duration::from_secs(1)).is_ok();
        let began = Instant::now();
        while !self.cluster.in_pod(self.friend[0], connect).expect("the friend's network") {
            assert!(began.elapsed() < PATIENCE, "{target} is allowed\n{}", self.state());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn addresses(&self, namespace: &str, pod: &str) -> [IpAddr; 2] {
        let text =
            self.kubectl(&format!("-n {namespace} get pod {pod} -o jsonpath={{.status.podIPs[*].ip}}"));
        let addresses: Vec<IpAddr> =
            text.split(' ').map(|address| address.parse().expect("an address")).collect();
        addresses.try_into().expect("one of each family")
    }

    /// What the plugin `host-local` gave last, in each family: the next pods have what comes after it.
    pub(crate) fn next_addresses(&self) -> [IpAddr; 2] {
        [0, 1].map(|range| {
            let file = format!("/run/cni-addresses/pods/last_reserved_ip.{range}");
            let text = said(self.cluster.command("cat").arg(file)).expect("pods have started");
            text.trim().parse().expect("an address")
        })
    }

    fn state(&self) -> String {
        let pods = self.cluster.kubectl(&["get", "pods", "-A", "-o", "wide"], "").unwrap_or_default();
        let events = self.cluster.kubectl(&["get", "events", "-A"], "").unwrap_or_default();
        format!("{pods}\n{events}")
    }
}

/// Senders may send to nobody, and listeners are asked by their friend.
fn policies() -> Vec<Value> {
    let policy = |name: &str, spec: Value| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "start"}, "spec": spec})
    };
    let friend = json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "friend"}}});
    vec![
        policy(
            "sends-nothing",
            json!({"podSelector": {"matchLabels": {"kind": "sender"}}, "policyTypes": ["Egress"]}),
        ),
        policy(
            "hears-its-friend",
            json!({"podSelector": {"matchLabels": {"kind": "listener"}}, "policyTypes": ["Ingress"],
                "ingress": [{"from": [friend]}]}),
        ),
    ]
}

/// The plugin is in the configuration that is read.
pub(crate) fn is_chained(status: &Value) -> bool {
    let conditions = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    conditions.iter().any(|condition| condition["type"] == "Chained" && condition["reason"] == "Chained")
}

fn pod(namespace: &str, name: &str, labels: &Value, mut main: Value, folders: &Value) -> Value {
    main["name"] = json!("main");
    main["image"] = json!(AGNHOST);
    let folders = folders.as_array().expect("a list");
    let volume = |path: &Value| json!({"name": name_of(path), "hostPath": {"path": path}});
    main["volumeMounts"] = folders
        .iter()
        .map(|path| {
            let at = path.as_str().unwrap_or_default();
            json!({"name": name_of(path), "mountPath": at.strip_prefix("/usr").unwrap_or(at), "readOnly": true})
        })
        .chain(folders.iter().map(|path| json!({"name": name_of(path), "mountPath": path, "readOnly": true})))
        .collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": [main], "volumes": folders.iter().map(volume).collect::<Value>(),
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}})
}

/// `/usr/bin` is `usr-bin`.
fn name_of(path: &Value) -> String {
    path.as_str().unwrap_or_default().trim_start_matches('/').replace('/', "-")
}

/// Folders of the machine with a shell and what it needs. Each is there at its own place, and without `/usr`, too.
fn libraries() -> Value {
    ["/usr/bin", "/usr/lib", "/usr/lib64"].into_iter().filter(|path| Path::new(path).exists()).collect()
}
