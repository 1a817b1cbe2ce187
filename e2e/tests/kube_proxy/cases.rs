//! Services of every kind, and their backends that are allowed and denied.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use cellwall_e2e::attempt::{Outcome, Transport};
use cellwall_e2e::node::{ADDRESS, ADDRESS6, OUTSIDE};
use serde_json::json;

use crate::objects::{ECHO, policy, slice};
use crate::scene::{ATTEMPTS, FEW, Scene, both};

/// How often a Service is asked that has nothing to choose.
const ROUNDS: usize = 5;

impl Scene {
    /// The addresses of four pods in a family, each with a port.
    fn backends(&self, family: usize, ports: [(&str, u16); 4]) -> [SocketAddr; 4] {
        ports.map(|(pod, port)| SocketAddr::new(self.pod(pod)[family], port))
    }

    /// Where port `web` of a Service of the pods `in: mixed` leads.
    fn mixed(&self, family: usize) -> [SocketAddr; 4] {
        self.backends(family, [("good", 8080), ("other-port", 9090), ("bad", 8080), ("deaf", 8080)])
    }

    /// Where port `udp` leads.
    fn mixed_udp(&self, family: usize) -> [SocketAddr; 4] {
        self.backends(family, ["good", "other-port", "bad", "deaf"].map(|pod| (pod, 8081)))
    }

    /// A Service with nobody behind it who is denied: then every attempt must be answered, also one that leaves no trace in
    /// nf_conntrack.
    fn all_are_answered(&self, what: &str, family: usize, to: impl Fn(u16) -> SocketAddr) {
        let good = self.pod("good")[family];
        for (port, transport, backend) in
            [(80, Transport::Tcp, 8080), (82, Transport::Tcp, 8080), (81, Transport::Udp, 8081)]
        {
            for _ in 0..ROUNDS {
                self.judges(what, to(port), transport, &[SocketAddr::new(good, backend)]);
            }
        }
    }

    /// Cluster addresses, named target ports that differ per pod, several ports, both protocols.
    pub(crate) fn mixed_backends(&self) {
        let cluster = self.serve("mixed", &json!({"selector": {"in": "mixed"}}));
        both(|family| {
            let to = |port: u16| SocketAddr::new(cluster[family], port);
            self.judges("a named port", to(80), Transport::Tcp, &self.mixed(family));
            self.judges("UDP", to(81), Transport::Udp, &self.mixed_udp(family));
        });
    }

    pub(crate) fn allowed_backends(&self) {
        let cluster = self.serve("allowed", &json!({"selector": {"app": "good"}}));
        both(|family| {
            self.all_are_answered("allowed", family, |port| SocketAddr::new(cluster[family], port));
        });
    }

    pub(crate) fn external_addresses(&self) {
        let mixed = ["198.51.100.7", "2001:db8::7"];
        let good = ["198.51.100.8", "2001:db8::8"];
        self.serve("external", &json!({"selector": {"in": "mixed"}, "externalIPs": mixed}));
        self.serve("external-good", &json!({"selector": {"app": "good"}, "externalIPs": good}));
        both(|family| {
            let [mixed, good] =
                [mixed, good].map(|addresses| addresses[family].parse::<IpAddr>().expect("an address"));
            let to = |port| SocketAddr::new(mixed, port);
            self.judges("an external address", to(80), Transport::Tcp, &self.mixed(family));
            self.judges("an external address, UDP", to(81), Transport::Udp, &self.mixed_udp(family));
            self.all_are_answered("an external address, allowed", family, |port| SocketAddr::new(good, port));
        });
    }

    /// The port of every node for the port of this name of a Service.
    fn node_port(&self, service: &str, name: &str) -> u16 {
        let path = format!("get service {service} -o jsonpath={{.spec.ports[?(@.name=='{name}')].nodePort}}");
        self.kubectl(&path, "").parse().expect("a port")
    }

    pub(crate) fn node_ports(&self) {
        self.serve("node-port", &json!({"selector": {"in": "mixed"}, "type": "NodePort"}));
        self.serve("node-port-good", &json!({"selector": {"app": "good"}, "type": "NodePort"}));
        let [web, udp] = ["web", "udp"].map(|name| self.node_port("node-port", name));
        let good = [(80, "web"), (81, "udp"), (82, "fixed")]
            .map(|(port, name)| (port, self.node_port("node-port-good", name)));
        both(|family| {
            let to = |port| SocketAddr::new(node(family), port);
            self.judges("a node port", to(web), Transport::Tcp, &self.mixed(family));
            self.judges("a node port, UDP", to(udp), Transport::Udp, &self.mixed_udp(family));
            let number = |port: u16| good.iter().find(|(of, _)| *of == port).expect("one of three").1;
            self.all_are_answered("a node port, allowed", family, |port| to(number(port)));
        });
    }

    /// These are the portmap plugin's and not kube-proxy's.
    pub(crate) fn host_ports(&self) {
        both(|family| {
            for (pod, port) in [("good", 8101), ("bad", 8102)] {
                let backend = [SocketAddr::new(self.pod(pod)[family], 8080)];
                self.judges("a host port", SocketAddr::new(node(family), port), Transport::Tcp, &backend);
            }
        });
    }

    /// Slices that a person wrote: two for one Service, to pods and to a machine outside.
    pub(crate) fn written_slices(&self) {
        let cluster = self.serve("written", &json!({"ports": [{"name": "web", "port": 80}]}));
        both(|family| {
            let outside: IpAddr = OUTSIDE[family].parse().expect("an address");
            let pods = ["good", "bad"].map(|name| self.pod(name)[family]);
            self.apply(&slice(&format!("pods-{family}"), &pods, 8080));
            self.apply(&slice(&format!("outside-{family}"), &[outside], ECHO));
            let [good, bad] = pods.map(|pod| SocketAddr::new(pod, 8080));
            let backends = [good, bad, SocketAddr::new(outside, ECHO)];
            self.judges("slices by hand", SocketAddr::new(cluster[family], 80), Transport::Tcp, &backends);
        });
    }

    /// A backend in the node's network is judged at the source: nothing else sees the packet.
    pub(crate) fn what_ends_on_the_node(&self) {
        let cluster = self.serve("host", &json!({"selector": {"in": "host"}}));
        let to = |family: usize| SocketAddr::new(cluster[family], 80);
        both(|family| {
            assert_ne!(self.attempts(to(family), Transport::Tcp, 1)[0].outcome, Outcome::Answered);
        });
        self.allow_node(true);
        both(|family| self.until_ends("the node is allowed", to(family), Outcome::Answered));
        self.allow_node(false);
        both(|family| {
            let what = "the node is not allowed";
            self.until_ends(what, to(family), Outcome::Silent);
            self.all_end(what, to(family), Outcome::Silent, FEW);
        });
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

    /// A pod reaches itself through its Service whatever its policy (S64).
    pub(crate) fn oneself(&self) {
        let cluster = self.serve("itself", &json!({"selector": {"in": "itself"}}));
        both(|family| {
            let client = SocketAddr::new(self.pod("client")[family], 8080);
            self.judges("itself", SocketAddr::new(cluster[family], 80), Transport::Tcp, &[client]);
        });
    }

    /// The positive control: with the policies taken away every backend answers, and nobody is still nobody.
    pub(crate) fn without_the_policy(&self) {
        self.kubectl("delete networkpolicy --all", "");
        self.until_isolated(false);
        let [mixed, nobody] = ["mixed", "nobody"].map(|service| self.cluster_addresses(service));
        let web = self.node_port("node-port", "web");
        both(|family| {
            self.leads_everywhere(SocketAddr::new(mixed[family], 80), 4);
            self.leads_everywhere(SocketAddr::new(node(family), web), 4);
            self.leads_everywhere(SocketAddr::new(node(family), 8102), 1);
            let to = SocketAddr::new(nobody[family], 80);
            self.all_end("nobody, without a policy", to, Outcome::Refused, FEW);
        });
    }

    /// Every attempt is answered, by so many backends.
    fn leads_everywhere(&self, to: SocketAddr, backends: usize) {
        let mut led = BTreeSet::new();
        let attempts = self.attempts(to, Transport::Tcp, ATTEMPTS);
        let table = self.connections();
        for attempt in attempts {
            assert_eq!(attempt.outcome, Outcome::Answered, "{to} without a policy: {attempt:?}");
            led.extend(attempt.chosen(&table, to, Transport::Tcp));
        }
        assert_eq!(led.len(), backends, "{to} led to {led:?}");
    }
}

fn node(family: usize) -> IpAddr {
    [ADDRESS, ADDRESS6][family].parse().expect("an address")
}
