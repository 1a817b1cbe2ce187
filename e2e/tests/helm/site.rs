//! A cluster with two pods that are there before the chart is: a server whose port 8080 a policy closes, and a client that
//! has a connection to another of its ports all the time.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cellwall_e2e::cluster::Cluster;
use cellwall_e2e::flavour::Flavour;
use cellwall_e2e::heartbeat::{self, Heartbeat};
use cellwall_e2e::helm::{NAMESPACE, ask, load_image, said};
use cellwall_e2e::image::AGNHOST;
use cellwall_e2e::node::CNI_CONF_DIR;
use cellwall_e2e::target::why_not_below;
use serde_json::{Value, json};

/// How long something may take that has no promise. Machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
/// Port of the echo, which the policy leaves open.
const ECHO: u16 = 7;

/// Two clusters at once are too much for a small machine.
static ONE: Mutex<()> = Mutex::new(());

pub(crate) struct Site {
    pub(crate) cluster: Cluster,
    server: IpAddr,
    heartbeat: Heartbeat,
    _one: MutexGuard<'static, ()>,
}

impl Site {
    /// None, and said so, where no cluster can be had.
    pub(crate) fn new() -> Option<Self> {
        if let Some(why) = why_not_below() {
            println!("skipped: {why}");
            return None;
        }
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = Cluster::start(Path::new(env!("CARGO_BIN_EXE_cluster")), Flavour::default());
        let cluster = cluster.expect("a cluster");
        load_image(&cluster).expect("the image is loaded");
        for (name, arguments) in
            [("server", json!(["netexec", "--http-port=8080"])), ("client", json!(["pause"]))]
        {
            cluster
                .kubectl(&["apply", "-f", "-"], &pod(name, &arguments).to_string())
                .expect("kubectl succeeds");
        }
        let ready = ["wait", "--for=condition=Ready", "pod/server", "pod/client", "--timeout=120s"];
        cluster.kubectl(&ready, "").expect("the pods start");
        let [server, client] = ["server", "client"].map(|pod| addresses(&cluster, pod)[0]);
        let heartbeat = connection(&cluster, server, client);
        Some(Self { cluster, server, heartbeat, _one: one })
    }

    /// A policy that leaves the server only the port of the echo.
    pub(crate) fn isolate(&self) {
        assert!(self.connects(), "nothing is isolated yet");
        let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "echo"},
            "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"port": ECHO}]}]}});
        self.cluster.kubectl(&["apply", "-f", "-"], &policy.to_string()).expect("kubectl succeeds");
    }

    pub(crate) fn until_enforced(&self) {
        let begun = Instant::now();
        loop {
            let answer = ask(&self.cluster, "endpoints -n default").expect("the agent answers");
            let endpoints = answer["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
            if endpoints.iter().any(|e| e["pod"]["name"] == "server" && e["ingress"]["isolated"] == true) {
                return self.is_enforced();
            }
            assert!(begun.elapsed() < PATIENCE, "{answer:#}\n{}", state(&self.cluster));
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The policy is in force, and what it allows goes on.
    pub(crate) fn is_enforced(&self) {
        assert!(!self.connects(), "the policy is in force");
        self.connection_goes_on();
    }

    /// The policy is still there, and nobody enforces it.
    pub(crate) fn is_open(&self) {
        assert!(self.connects(), "traffic is as it was before");
        self.connection_goes_on();
    }

    fn connection_goes_on(&self) {
        self.heartbeat.until_answered_after(Instant::now(), PATIENCE).expect("the connection goes on");
    }

    /// True when the client connects to the server; false when it gets no answer.
    fn connects(&self) -> bool {
        let target = SocketAddr::new(self.server, 8080).to_string();
        let connect = ["exec", "client", "--", "/agnhost", "connect", &target, "--timeout=2s"];
        match self.cluster.kubectl(&connect, "") {
            Ok(_) => true,
            Err(error) => {
                assert!(error.to_string().contains("TIMEOUT"), "dropped silently, nothing else: {error}");
                false
            }
        }
    }

    /// Which pods there are in the namespace of the test, and how often their containers were started again.
    pub(crate) fn pods(&self) -> Vec<(String, u64)> {
        let pods: Value = serde_json::from_str(&self.kubectl("get pods -o json")).expect("JSON");
        let pod = |pod: &Value| {
            let uid = pod["metadata"]["uid"].as_str().expect("each has one").to_owned();
            let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
            (uid, restarts.expect("they run"))
        };
        pods["items"].as_array().expect("a list").iter().map(pod).collect()
    }

    /// The configuration that containerd reads.
    pub(crate) fn conflist(&self) -> String {
        said(self.cluster.command("cat").arg(format!("{CNI_CONF_DIR}/10-pods.conflist")))
            .expect("it is there")
    }

    /// One that does nothing.
    pub(crate) fn makes_a_pod(&self, name: &str) {
        self.cluster
            .kubectl(&["apply", "-f", "-"], &pod(name, &json!(["pause"])).to_string())
            .expect("kubectl succeeds");
    }

    pub(crate) fn starts_a_pod(&self, name: &str) {
        self.makes_a_pod(name);
        self.kubectl(&format!("wait --for=condition=Ready pod/{name} --timeout=60s"));
    }

    pub(crate) fn addresses(&self, pod: &str) -> [IpAddr; 2] {
        addresses(&self.cluster, pod)
    }

    /// Waits until the node enforces this policy of the test's namespace.
    pub(crate) fn until_all_enforce(&self, policy: &str) {
        let wait = format!("wait policy/{policy} -n default --timeout 60s");
        ask(&self.cluster, &wait).unwrap_or_else(|error| panic!("{error:#}\n{}", state(&self.cluster)));
    }

    pub(crate) fn ends_pods(&self, names: &[&str]) {
        self.kubectl(&format!("delete pod {} --timeout=60s", names.join(" ")));
    }

    pub(crate) fn kubectl(&self, arguments: &str) -> String {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        self.cluster
            .kubectl(&arguments, "")
            .unwrap_or_else(|error| panic!("{error:#}\n{}", state(&self.cluster)))
    }
}

/// Of IPv4 and of IPv6.
fn addresses(cluster: &Cluster, pod: &str) -> [IpAddr; 2] {
    let text = cluster.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIPs[*].ip}"], "");
    let text = text.expect("kubectl succeeds");
    let addresses: Vec<IpAddr> = text.split(' ').map(|text| text.parse().expect("an address")).collect();
    addresses.try_into().expect("one of each family")
}

fn pod(name: &str, arguments: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": AGNHOST, "args": arguments}],
        "terminationGracePeriodSeconds": 0}})
}

fn connection(cluster: &Cluster, server: IpAddr, client: IpAddr) -> Heartbeat {
    let listener = cluster.in_pod(server, || TcpListener::bind((server, ECHO)));
    heartbeat::echo(listener.expect("the server's network").expect("a free port"));
    let address = SocketAddr::new(server, ECHO);
    let stream = cluster.in_pod(client, || TcpStream::connect_timeout(&address, PATIENCE));
    Heartbeat::over(stream.expect("the client's network").expect("they can connect")).expect("a connection")
}

/// What somebody would look at to see why it does not work.
pub(crate) fn state(cluster: &Cluster) -> String {
    let questions = [
        "get pods -A -o wide",
        "describe pods",
        "get events",
        "logs daemonset/cellwall --tail=30",
        "logs pod/cellwall-test",
    ];
    let answer = |question: &str| {
        let arguments: Vec<&str> = ["-n", NAMESPACE].into_iter().chain(question.split(' ')).collect();
        let said = cluster.kubectl(&arguments, "").unwrap_or_else(|error| error.to_string());
        format!("--- {question}\n{said}\n")
    };
    questions.map(answer).concat()
}
