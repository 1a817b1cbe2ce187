//! Connections to Services that a real kube-proxy translates, judged on the backend that it chose.
//!
//! What it chose is read from nf_conntrack: every single attempt is answered exactly when the policy of its client allows
//! the address and port that its connection was led to. In the end, without the policy, every one is.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use cellwall_e2e::agent::{self, Agent};
use cellwall_e2e::attempt::{self, Attempt, Transport};
use cellwall_e2e::cluster::Cluster;
use cellwall_e2e::flavour::{Flavour, Network, Proxy};
use cellwall_e2e::heartbeat::{self, Heartbeat};
use cellwall_e2e::image::AGNHOST;
use cellwall_e2e::node::{ADDRESS, ADDRESS6, OUTSIDE};
use cellwall_e2e::target::why_not_below;
use serde_json::{Value, json};

/// How long something may take that has no promise. Machines are shared.
const PATIENCE: Duration = Duration::from_mins(2);
/// Attempts at once where kube-proxy chooses between backends; there are more until it has chosen each.
const ATTEMPTS: usize = 40;
/// How often a Service is asked that has nothing to choose.
const ROUNDS: usize = 5;
/// Port of the echo outside the cluster, and of that in the network of the first allowed pod.
const ECHO: u16 = 7;

/// Two clusters at once are too much for a small machine.
static ONE: Mutex<()> = Mutex::new(());

#[test]
fn with_nftables_and_routed_pods_the_chosen_backend_is_judged() {
    every_service(Flavour { proxy: Proxy::Nftables, network: Network::Routed, ..Flavour::default() });
}

#[test]
fn with_iptables_and_bridged_pods_the_chosen_backend_is_judged() {
    every_service(Flavour { proxy: Proxy::Iptables, network: Network::Bridge, ..Flavour::default() });
}

/// A cluster with pods behind Services, an agent, and a client whose egress is isolated.
struct Scene {
    cluster: Cluster,
    _agent: Agent,
    /// IPv4 and IPv6 address of each pod.
    pods: Vec<(&'static str, [IpAddr; 2])>,
}

/// Pods, their labels beside `app: <name>`, their ports, and more of their `spec`.
fn pods() -> Vec<(&'static str, Value, u16, Value)> {
    vec![
        ("client", json!({"in": "itself"}), 8080, json!({})),
        ("good", json!({"may": "yes", "in": "mixed"}), 8080, json!({})),
        // Its port `web` is another one, which the client may not ask.
        ("other-port", json!({"may": "yes", "in": "mixed"}), 9090, json!({})),
        ("bad", json!({"in": "mixed"}), 8080, json!({})),
        ("on-host", json!({"in": "host"}), 8090, json!({"hostNetwork": true})),
    ]
}

fn pod(name: &str, labels: &Value, port: u16, more: &Value) -> Value {
    let mut labels = labels.clone();
    labels["app"] = json!(name);
    let mut web = json!({"name": "web", "containerPort": port});
    if matches!(name, "good" | "bad") {
        web["hostPort"] = json!(if name == "good" { 8101 } else { 8102 });
    }
    let arguments = json!(["netexec", format!("--http-port={port}"), "--udp-port=8081"]);
    let mut spec = json!({"terminationGracePeriodSeconds": 0, "containers": [
        {"name": "main", "image": AGNHOST, "args": arguments, "ports": [web]}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec})
}

/// The client may ask pods with `may: yes` at 8080 and 8081, and the echo outside.
fn policy() -> Value {
    let outside: Vec<Value> = [format!("{}/32", OUTSIDE[0]), format!("{}/128", OUTSIDE[1])]
        .map(|cidr| json!({"ipBlock": {"cidr": cidr}}))
        .into();
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "client"}, "spec": {
        "podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"], "egress": [
            {"to": [{"podSelector": {"matchLabels": {"may": "yes"}}}],
             "ports": [{"port": 8080}, {"port": 8081, "protocol": "UDP"}]},
            {"to": outside, "ports": [{"port": ECHO}]}]}})
}

/// A Service of both families. `more` is put over its `spec`.
fn service(name: &str, more: &Value) -> Value {
    let mut spec = json!({"ipFamilyPolicy": "RequireDualStack", "ports": [
        {"name": "web", "port": 80, "targetPort": "web"},
        {"name": "udp", "port": 81, "protocol": "UDP", "targetPort": 8081},
        {"name": "fixed", "port": 82, "targetPort": 8080}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

/// A hand-written slice of the Service `written`.
fn slice(name: &str, addresses: &[IpAddr], port: u16) -> Value {
    let family = if addresses[0].is_ipv4() { "IPv4" } else { "IPv6" };
    let endpoints: Vec<Value> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "written"}},
        "ports": [{"name": "web", "port": port}], "endpoints": endpoints})
}

fn every_service(flavour: Flavour) {
    if let Some(why) = why_not_below() {
        println!("skipped: {why}");
        return;
    }
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let scene = Scene::new(flavour);
    scene.mixed_backends();
    scene.allowed_backends();
    scene.addresses_of_other_kinds();
    scene.written_slices();
    scene.what_ends_on_the_node();
    scene.nobody_and_oneself();
    scene.live_connections();
    scene.without_the_policy();
}

impl Scene {
    fn new(flavour: Flavour) -> Self {
        let cluster = Cluster::start(Path::new(env!("CARGO_BIN_EXE_cluster")), flavour).expect("a cluster");
        let agent = Agent::start(&cluster).expect("the agent starts");
        let mut scene = Self { cluster, _agent: agent, pods: Vec::new() };
        scene.until("status", |status| status["ready"] == true);
        scene.kubectl("wait --for=create serviceaccount/default --timeout=60s", "");
        for (name, labels, port, more) in pods() {
            scene.apply(&pod(name, &labels, port, &more));
        }
        scene.kubectl("wait --for=condition=Ready pod --all --timeout=180s", "");
        for (name, ..) in pods() {
            scene.pods.push((name, scene.addresses(name)));
        }
        scene.apply(&policy());
        scene.until("endpoints", |answer| {
            let endpoints = answer["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
            endpoints.iter().any(|e| e["pod"]["name"] == "client" && e["egress"]["isolated"] == true)
        });
        for address in OUTSIDE {
            scene.echo(address.parse().expect("an address"));
        }
        scene.echo(scene.pod("good")[0]);
        // So that an attempt ends long after its last SYN, which may be led elsewhere than the first.
        let few = || std::fs::write("/proc/sys/net/ipv4/tcp_syn_retries", "1");
        scene
            .cluster
            .in_pod(scene.pod("client")[0], few)
            .expect("its network")
            .expect("a setting of its own");
        scene
    }

    /// An echo at [`ECHO`] in the network that has this address, until the process ends.
    fn echo(&self, address: IpAddr) {
        let listener = self.cluster.in_pod(address, || TcpListener::bind((address, ECHO)));
        heartbeat::echo(listener.expect("its network").expect("a free port"));
    }

    fn kubectl(&self, arguments: &str, input: &str) -> String {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        self.cluster.kubectl(&arguments, input).expect("kubectl succeeds")
    }

    fn apply(&self, object: &Value) {
        self.kubectl("apply -f -", &object.to_string());
    }

    fn until(&self, question: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        agent::until(&self.cluster, question, PATIENCE, wanted).expect("the agent comes to say so")
    }

    fn addresses(&self, pod: &str) -> [IpAddr; 2] {
        let text = self.kubectl(&format!("get pod {pod} -o jsonpath={{.status.podIPs[*].ip}}"), "");
        let addresses: Vec<IpAddr> = text.split(' ').map(|text| text.parse().expect("an address")).collect();
        addresses.try_into().expect("one of each family")
    }

    fn pod(&self, name: &str) -> [IpAddr; 2] {
        self.pods.iter().find(|(other, _)| *other == name).expect("it was made").1
    }

    /// Applies a Service; its two cluster addresses.
    fn serve(&self, name: &str, more: &Value) -> [IpAddr; 2] {
        self.apply(&service(name, more));
        let text = self.kubectl(&format!("get service {name} -o jsonpath={{.spec.clusterIPs[*]}}"), "");
        let addresses: Vec<IpAddr> = text.split(' ').map(|text| text.parse().expect("an address")).collect();
        addresses.try_into().expect("one of each family")
    }

    /// What policy says about a connection of the client to there.
    fn is_allowed(&self, to: SocketAddr, transport: Transport) -> bool {
        let is_of = |name: &str| self.pod(name).contains(&to.ip());
        let asked = match transport {
            Transport::Tcp => 8080,
            Transport::Udp => 8081,
        };
        (is_of("good") || is_of("other-port")) && to.port() == asked
            || is_of("client")
            || OUTSIDE.iter().any(|outside| outside.parse() == Ok(to.ip())) && to.port() == ECHO
    }

    fn attempts(&self, to: SocketAddr, transport: Transport, count: usize) -> Vec<Attempt> {
        let from = self.pod("client")[usize::from(to.is_ipv6())];
        let attempts = self.cluster.in_pod(from, || attempt::ask(from, to, transport, count));
        attempts.expect("the client's network").expect("sockets")
    }

    fn is_answered(&self, to: SocketAddr) -> bool {
        self.attempts(to, Transport::Tcp, 1)[0].is_answered
    }

    /// Asks until the proxy has led to each of `backends`; each attempt is answered exactly when where it was led is allowed.
    fn judges(&self, what: &str, to: SocketAddr, transport: Transport, backends: &[SocketAddr]) {
        let begun = Instant::now();
        while !self.is_translated(to, transport) {
            assert!(begun.elapsed() < PATIENCE, "{what}: kube-proxy does not translate {to}");
            thread::sleep(Duration::from_millis(100));
        }
        let is_denied = |backend: &SocketAddr| !self.is_allowed(*backend, transport);
        let expected: BTreeSet<SocketAddr> = backends.iter().copied().collect();
        let (mut led, mut count) = (BTreeSet::new(), 0);
        while led != expected {
            assert!(begun.elapsed() < PATIENCE, "{what}: {to} led to {led:?} and not to {expected:?}");
            let attempts = self.attempts(to, transport, if backends.len() == 1 { 5 } else { ATTEMPTS });
            let table = self.connections();
            for attempt in attempts {
                count += 1;
                match attempt.chosen(&table, to, transport) {
                    Some(chosen) => {
                        let is_right =
                            attempt.is_answered != is_denied(&chosen) && expected.contains(&chosen);
                        assert!(is_right, "{what}: {to} led to {chosen}: {attempt:?}; {}", self.drops());
                        led.insert(chosen);
                    }
                    // A bridge asks for a neighbour before nf_conntrack has written the connection down, and there it
                    // was dropped already.
                    None => assert!(
                        !attempt.is_answered && backends.iter().any(is_denied),
                        "{what}: {to} led nowhere: {attempt:?}; {}",
                        self.drops()
                    ),
                }
            }
        }
        println!("{what}: {count} attempts at {to} ({transport:?}) led to {led:?}");
    }

    fn is_translated(&self, to: SocketAddr, transport: Transport) -> bool {
        let attempts = self.attempts(to, transport, 1);
        attempts[0].chosen(&self.connections(), to, transport).is_some_and(|chosen| chosen != to)
    }

    /// What was dropped, by reason and direction.
    fn drops(&self) -> Value {
        let status = agent::ask(&self.cluster, "status").expect("the agent answers");
        let counters = status["counters"].as_array().map_or(&[][..], Vec::as_slice);
        counters.iter().filter(|c| c["drop"] == true && c["packets"] != "0").cloned().collect()
    }

    fn connections(&self) -> String {
        let output = self.cluster.command("cat").arg("/proc/net/nf_conntrack").output().expect("cat runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// An address of each family of three pods, with a port.
    fn backends(&self, family: usize, ports: [(&str, u16); 3]) -> [SocketAddr; 3] {
        ports.map(|(pod, port)| SocketAddr::new(self.pod(pod)[family], port))
    }

    /// Where port `web` of a Service of the pods `in: mixed` leads.
    fn mixed(&self, family: usize) -> [SocketAddr; 3] {
        self.backends(family, [("good", 8080), ("other-port", 9090), ("bad", 8080)])
    }

    /// Cluster addresses, named target ports that differ per pod, several ports, both protocols and families.
    fn mixed_backends(&self) {
        let cluster = self.serve("mixed", &json!({"selector": {"in": "mixed"}}));
        for (family, address) in cluster.into_iter().enumerate() {
            let to = |port: u16| SocketAddr::new(address, port);
            self.judges("a named port", to(80), Transport::Tcp, &self.mixed(family));
            let fixed = self.backends(family, [("good", 8081), ("other-port", 8081), ("bad", 8081)]);
            self.judges("UDP", to(81), Transport::Udp, &fixed);
        }
    }

    /// Two TCP ports of one Service, with no backend that is denied: then every attempt must be answered, also one that
    /// leaves no trace in nf_conntrack.
    fn allowed_backends(&self) {
        let cluster = self.serve("allowed", &json!({"selector": {"app": "good"}}));
        for (family, address) in cluster.into_iter().enumerate() {
            let backend = [SocketAddr::new(self.pod("good")[family], 8080)];
            for port in [80, 82] {
                for _ in 0..ROUNDS {
                    self.judges("allowed", SocketAddr::new(address, port), Transport::Tcp, &backend);
                }
            }
        }
    }

    /// External addresses, node ports, host ports.
    fn addresses_of_other_kinds(&self) {
        let external = ["198.51.100.7", "2001:db8::7"];
        self.serve("external", &json!({"selector": {"in": "mixed"}, "externalIPs": external}));
        for (family, address) in external.into_iter().enumerate() {
            let to = SocketAddr::new(address.parse().expect("an address"), 80);
            self.judges("an external address", to, Transport::Tcp, &self.mixed(family));
        }
        self.serve("node-port", &json!({"selector": {"in": "mixed"}, "type": "NodePort"}));
        let number =
            self.kubectl("get service node-port -o jsonpath={.spec.ports[?(@.name=='web')].nodePort}", "");
        let number: u16 = number.parse().expect("a port");
        for (family, address) in [ADDRESS, ADDRESS6].into_iter().enumerate() {
            let to = SocketAddr::new(address.parse().expect("an address"), number);
            self.judges("a node port", to, Transport::Tcp, &self.mixed(family));
        }
        for (pod, port) in [("good", 8101), ("bad", 8102)] {
            let to = SocketAddr::new(ADDRESS.parse().expect("an address"), port);
            self.judges("a host port", to, Transport::Tcp, &[SocketAddr::new(self.pod(pod)[0], 8080)]);
        }
    }

    /// Slices that a person wrote: two for one Service, to pods and to a machine outside.
    fn written_slices(&self) {
        let cluster = self.serve("written", &json!({"ports": [{"name": "web", "port": 80}]}));
        for (family, address) in cluster.into_iter().enumerate() {
            let outside: IpAddr = OUTSIDE[family].parse().expect("an address");
            let pods = ["good", "bad"].map(|name| self.pod(name)[family]);
            self.apply(&slice(&format!("pods-{family}"), &pods, 8080));
            self.apply(&slice(&format!("outside-{family}"), &[outside], ECHO));
            let [good, bad] = pods.map(|pod| SocketAddr::new(pod, 8080));
            let backends = [good, bad, SocketAddr::new(outside, ECHO)];
            self.judges("slices by hand", SocketAddr::new(address, 80), Transport::Tcp, &backends);
        }
    }

    /// A backend in the node's network is judged at the source: nothing else sees the packet.
    fn what_ends_on_the_node(&self) {
        let cluster = self.serve("host", &json!({"selector": {"in": "host"}}));
        for (family, address) in cluster.into_iter().enumerate() {
            let to = SocketAddr::new(address, 80);
            assert!(!self.is_answered(to), "the node is not allowed");
            self.allow_node(true);
            let begun = Instant::now();
            while !self.is_answered(to) {
                assert!(
                    begun.elapsed() < PATIENCE,
                    "the node is allowed and {to} does not answer (family {family})"
                );
            }
            self.allow_node(false);
            let begun = Instant::now();
            while self.is_answered(to) {
                assert!(begun.elapsed() < PATIENCE, "the node is not allowed any more and answers at {to}");
            }
        }
    }

    fn allow_node(&self, allowed: bool) {
        let mut policy = policy();
        policy["metadata"]["name"] = json!("node");
        let blocks = [format!("{ADDRESS}/32"), format!("{ADDRESS6}/128")]
            .map(|cidr| json!({"ipBlock": {"cidr": cidr}}));
        policy["spec"]["egress"] = json!([{"to": blocks}]);
        if allowed {
            self.apply(&policy);
        } else {
            self.kubectl("delete networkpolicy node", "");
        }
    }

    /// Without endpoints nobody answers; a pod reaches itself through its Service whatever its policy (S64).
    fn nobody_and_oneself(&self) {
        let nobody = self.serve("nobody", &json!({"selector": {"in": "nothing"}}));
        let oneself = self.serve("itself", &json!({"selector": {"in": "itself"}}));
        for (family, address) in oneself.into_iter().enumerate() {
            assert!(!self.is_answered(SocketAddr::new(nobody[family], 80)));
            let client = SocketAddr::new(self.pod("client")[family], 8080);
            self.judges("itself", SocketAddr::new(address, 80), Transport::Tcp, &[client]);
        }
    }

    /// A connection that runs stays with its backend when the Service leaves it.
    fn live_connections(&self) {
        let ports = json!([{"name": "echo", "port": 80, "targetPort": ECHO}]);
        let [address, _] = self.serve("live", &json!({"selector": {"app": "good"}, "ports": ports}));
        let mut wider = policy();
        wider["metadata"]["name"] = json!("echo");
        wider["spec"]["egress"] = json!([{"to": [{"podSelector": {"matchLabels": {"app": "good"}}}],
            "ports": [{"port": ECHO}]}]);
        self.apply(&wider);
        let (from, to) = (self.pod("client")[0], SocketAddr::new(address, 80));
        let begun = Instant::now();
        let stream = loop {
            let stream = self.cluster.in_pod(from, || attempt::connect(from, to)).expect("its network");
            match stream {
                Ok(stream) => break stream,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "the echo behind {to}: {error}"),
            }
        };
        let heartbeat = Heartbeat::over(stream).expect("a connection");
        heartbeat.until_answered_after(Instant::now(), PATIENCE).expect("it works");
        self.serve("live", &json!({"selector": {"app": "bad"}, "ports": ports}));
        while self.kubectl(
            "get endpointslices -l kubernetes.io/service-name=live -o jsonpath={..targetRef.name}",
            "",
        ) != "bad bad"
        {
            assert!(begun.elapsed() < PATIENCE, "the Service has another backend");
            thread::sleep(Duration::from_millis(100));
        }
        let moved = Instant::now();
        while moved.elapsed() < Duration::from_secs(3) {
            heartbeat.until_answered_after(Instant::now(), Duration::from_secs(1)).expect("it goes on");
            thread::sleep(Duration::from_millis(20));
        }
        // Policy still holds it.
        self.kubectl("delete networkpolicy echo", "");
        heartbeat.until_silent(Instant::now(), PATIENCE).expect("it is cut with its policy");
    }

    /// The positive control: with the policy taken away every backend answers.
    fn without_the_policy(&self) {
        self.kubectl("delete networkpolicy client", "");
        self.until("endpoints", |answer| {
            let endpoints = answer["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
            endpoints.iter().any(|e| e["pod"]["name"] == "client" && e["egress"]["isolated"] != true)
        });
        let text = self.kubectl("get service mixed -o jsonpath={.spec.clusterIPs[*]}", "");
        for address in text.split(' ') {
            let to = SocketAddr::new(address.parse().expect("an address"), 80);
            let mut led = BTreeSet::new();
            let attempts = self.attempts(to, Transport::Tcp, ATTEMPTS);
            let table = self.connections();
            for attempt in attempts {
                assert!(attempt.is_answered, "{to} without a policy: {attempt:?}");
                led.extend(attempt.chosen(&table, to, Transport::Tcp));
            }
            assert_eq!(led.len(), 3, "{led:?}");
        }
    }
}
