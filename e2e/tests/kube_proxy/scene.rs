//! A cluster with pods behind Services, an agent, and a client that is isolated in both directions, as backends are.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use cellwall_abi::is_tunnel_port;
use cellwall_e2e::agent::{self, Agent};
use cellwall_e2e::attempt::{self, Attempt, Led, Outcome, Transport};
use cellwall_e2e::cluster::Cluster;
use cellwall_e2e::flavour::{Flavour, Network};
use cellwall_e2e::heartbeat;
use cellwall_e2e::node::OUTSIDE;
use serde_json::Value;

use crate::objects::{ECHO, doors, pod, pods, policy, service};

/// How long something may take that has no promise. Machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
/// Attempts at once where kube-proxy chooses between backends; there are more until it has chosen each.
pub(crate) const ATTEMPTS: usize = 40;
/// Attempts at once where there is nothing to choose.
pub(crate) const FEW: usize = 5;

pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    _agent: Agent,
    network: Network,
    /// IPv4 and IPv6 address of each pod.
    pods: Vec<(&'static str, [IpAddr; 2])>,
}

/// Most of what is tried waits for an answer that does not come.
pub(crate) fn at_once(tasks: &[&(dyn Fn() + Sync)]) {
    thread::scope(|scope| {
        for task in tasks {
            scope.spawn(task);
        }
    });
}

/// Both families at once.
pub(crate) fn both(each: impl Fn(usize) + Sync) {
    at_once(&[&|| each(0), &|| each(1)]);
}

impl Scene {
    pub(crate) fn new(flavour: Flavour) -> Self {
        let network = flavour.network;
        let cluster = Cluster::start(Path::new(env!("CARGO_BIN_EXE_cluster")), flavour).expect("a cluster");
        let agent = Agent::start(&cluster).expect("the agent starts");
        let mut scene = Self { cluster, _agent: agent, network, pods: Vec::new() };
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
        for door in doors() {
            scene.apply(&door);
        }
        scene.until_isolated(true);
        for address in OUTSIDE {
            scene.echo(address.parse().expect("an address"));
        }
        for address in scene.pod("good") {
            scene.echo(address);
        }
        scene.set_limits();
        scene
    }

    fn set_limits(&self) {
        // So that an attempt ends long after its last SYN, which may be led elsewhere than the first.
        let few = || fs::write("/proc/sys/net/ipv4/tcp_syn_retries", "1");
        let client = self.cluster.in_pod(self.pod("client")[0], few).expect("its network");
        client.expect("a setting of its own");
        // So that each attempt at nobody is told so, and not one in a second.
        let unlimited = || {
            fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0")?;
            fs::write("/proc/sys/net/ipv6/icmp/ratelimit", "0")
        };
        self.cluster.on_node(unlimited).expect("its network").expect("settings of its own");
    }

    /// An echo at [`ECHO`] in the network that has this address, until the process ends.
    fn echo(&self, address: IpAddr) {
        let listener = self.cluster.in_pod(address, || TcpListener::bind((address, ECHO)));
        heartbeat::echo(listener.expect("its network").expect("a free port"));
    }

    pub(crate) fn kubectl(&self, arguments: &str, input: &str) -> String {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        self.cluster.kubectl(&arguments, input).expect("kubectl succeeds")
    }

    pub(crate) fn apply(&self, object: &Value) {
        self.kubectl("apply -f -", &object.to_string());
    }

    pub(crate) fn until(&self, question: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        agent::until(&self.cluster, question, PATIENCE, wanted).expect("the agent comes to say so")
    }

    /// Waits until everybody is isolated whom the policies isolate, or nobody.
    pub(crate) fn until_isolated(&self, isolated: bool) {
        let wanted = [("client", "egress"), ("client", "ingress"), ("deaf", "ingress")];
        self.until("endpoints", |answer| {
            let endpoints = answer["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
            wanted.iter().all(|(pod, direction)| {
                let is_so = |e: &Value| (e[direction]["isolated"] == true) == isolated;
                endpoints.iter().any(|e| e["pod"]["name"] == *pod && is_so(e))
            })
        });
    }

    fn addresses(&self, pod: &str) -> [IpAddr; 2] {
        let text = self.kubectl(&format!("get pod {pod} -o jsonpath={{.status.podIPs[*].ip}}"), "");
        two(&text)
    }

    /// IPv4 and IPv6 address of a pod.
    pub(crate) fn pod(&self, name: &str) -> [IpAddr; 2] {
        self.pods.iter().find(|(other, _)| *other == name).expect("it was made").1
    }

    /// Applies a Service; its two cluster addresses.
    pub(crate) fn serve(&self, name: &str, more: &Value) -> [IpAddr; 2] {
        self.apply(&service(name, more));
        self.cluster_addresses(name)
    }

    pub(crate) fn cluster_addresses(&self, service: &str) -> [IpAddr; 2] {
        two(&self.kubectl(&format!("get service {service} -o jsonpath={{.spec.clusterIPs[*]}}"), ""))
    }

    /// What policies say about a connection of the client to there.
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

    /// Attempts of the client.
    pub(crate) fn attempts(&self, to: SocketAddr, transport: Transport, count: usize) -> Vec<Attempt> {
        let from = self.pod("client")[usize::from(to.is_ipv6())];
        let attempts = self.cluster.in_pod(from, || attempt::ask(from, to, transport, count));
        attempts.expect("the client's network").expect("sockets")
    }

    /// Waits until a connection to there ends like this.
    pub(crate) fn until_ends(&self, what: &str, to: SocketAddr, wanted: Outcome) {
        let begun = Instant::now();
        loop {
            let outcome = self.attempts(to, Transport::Tcp, 1)[0].outcome;
            if outcome == wanted {
                return;
            }
            let drops = || self.drops();
            assert!(
                begun.elapsed() < PATIENCE,
                "{what}: {to} is {outcome:?} and not {wanted:?}; {}",
                drops()
            );
        }
    }

    /// Every one of so many connections to there ends like this.
    pub(crate) fn all_end(&self, what: &str, to: SocketAddr, wanted: Outcome, count: usize) {
        for attempt in self.attempts(to, Transport::Tcp, count) {
            assert_eq!(attempt.outcome, wanted, "{what}: {to}: {attempt:?}; {}", self.drops());
        }
        println!("{what}: {count} attempts at {to} are {wanted:?}");
    }

    /// Asks until the proxy has led to each of `backends`; each attempt is answered exactly when where it was led is allowed.
    pub(crate) fn judges(&self, what: &str, to: SocketAddr, transport: Transport, backends: &[SocketAddr]) {
        let begun = Instant::now();
        while !self.is_translated(to, transport) {
            assert!(begun.elapsed() < PATIENCE, "{what}: kube-proxy does not translate {to}");
            thread::sleep(Duration::from_millis(100));
        }
        let is_denied = |backend: &SocketAddr| !self.is_allowed(*backend, transport);
        // In the client's place a node chooses any port, and what a pod sends to the port of a tunnel at a node is dropped.
        let is_tunnel = |led: &Led| transport == Transport::Udp && is_tunnel_port(led.answers_to);
        let right = |led: &Led| {
            if is_denied(&led.backend) || is_tunnel(led) { Outcome::Silent } else { Outcome::Answered }
        };
        let expected: BTreeSet<SocketAddr> = backends.iter().copied().collect();
        let (mut led, mut count) = (BTreeSet::new(), 0);
        while led != expected {
            assert!(begun.elapsed() < PATIENCE, "{what}: {to} led to {led:?} and not to {expected:?}");
            let attempts = self.attempts(to, transport, if backends.len() == 1 { FEW } else { ATTEMPTS });
            let table = self.connections();
            for attempt in attempts {
                count += 1;
                match attempt.led(&table, to, transport) {
                    Some(way) => {
                        let is_right = attempt.outcome == right(&way) && expected.contains(&way.backend);
                        assert!(
                            is_right,
                            "{what}: {to} led to {way:?}: {attempt:?}; {}",
                            self.seen_of(&attempt)
                        );
                        led.insert(way.backend);
                    }
                    // A bridge asks for a neighbour before nf_conntrack has written the connection down, and there it
                    // was dropped already.
                    None => assert!(
                        self.network == Network::Bridge
                            && attempt.outcome == Outcome::Silent
                            && backends.iter().any(is_denied),
                        "{what}: {to} led nowhere: {attempt:?}; {}",
                        self.seen_of(&attempt)
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
    pub(crate) fn drops(&self) -> Value {
        let status = agent::ask(&self.cluster, "status").expect("the agent answers");
        counters(&status).iter().filter(|c| c["drop"] == true && c["packets"] != "0").cloned().collect()
    }

    /// Does it, and waits until packets out of pods were counted with this reason, at least so many more.
    pub(crate) fn counts(&self, reason: &str, at_least: usize, what: impl FnOnce()) {
        let before = egress(&agent::ask(&self.cluster, "status").expect("the agent answers"), reason);
        what();
        self.until("status", |status| egress(status, reason) >= before + at_least);
    }

    /// What was dropped, and what nf_conntrack has of the client's port, for whoever has to find out why an attempt went wrong.
    fn seen_of(&self, attempt: &Attempt) -> String {
        let port = format!("port={} ", attempt.port);
        let table = self.connections();
        let lines: Vec<&str> = table.lines().filter(|line| line.contains(&port)).collect();
        format!("{}; of {} connections {lines:#?}", self.drops(), table.lines().count())
    }

    pub(crate) fn connections(&self) -> String {
        let output = self.cluster.command("cat").arg("/proc/net/nf_conntrack").output().expect("cat runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn counters(status: &Value) -> &[Value] {
    status["counters"].as_array().map_or(&[][..], Vec::as_slice)
}

/// How many packets out of pods were counted with this reason.
fn egress(status: &Value, reason: &str) -> usize {
    let is_it = |c: &&Value| c["reason"] == reason && c["direction"] == "DIRECTION_EGRESS";
    let packets = counters(status).iter().find(is_it).and_then(|c| c["packets"].as_str()?.parse().ok());
    packets.unwrap_or_default()
}

fn two(text: &str) -> [IpAddr; 2] {
    let addresses: Vec<IpAddr> = text.split(' ').map(|text| text.parse().expect("an address")).collect();
    addresses.try_into().expect("one of each family")
}
