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
    /// An address of each family of three pods, with a port.
    fn backends(&self, family: usize, ports: [(&str, u16); 3]) -> [SocketAddr; 3] {
        ports.map(|(pod, port)| SocketAddr::new(self.pod(pod)[family], port))
    }

    /// Where port `web` of a Service of the pods `in: mixed` leads.
    fn mixed(&self, family: usize) -> [SocketAddr; 3] {
        self.backends(family, [("good", 8080), ("other-port", 9090), ("bad", 8080)])
    }

    /// Cluster addresses, named target ports that differ per pod, several ports, both protocols.
    pub(crate) fn mixed_backends(&self) {
        let cluster = self.serve("mixed", &json!({"selector": {"in": "mixed"}}));
        both(|family| {
            let to = |port: u16| SocketAddr::new(cluster[family], port);
            self.judges("a named port", to(80), Transport::Tcp, &self.mixed(family));
            let fixed = self.backends(family, [("good", 8081), ("other-port", 8081), ("bad", 8081)]);
            self.judges("UDP", to(81), Transport::Udp, &fixed);
        });
    }

    /// Two TCP ports of one Service, with no backend that is denied: then every attempt must be answered, also one that
    /// leaves no trace in nf_conntrack.
    pub(crate) fn allowed_backends(&self) {
        let cluster = self.serve("allowed", &json!({"selector": {"app": "good"}}));
        both(|family| {
            let backend = [SocketAddr::new(self.pod("good")[family], 8080)];
            for port in [80, 82] {
                for _ in 0..ROUNDS {
                    let to = SocketAddr::new(cluster[family], port);
                    self.judges("allowed", to, Transport::Tcp, &backend);
                }
            }
        });
    }

    pub(crate) fn external_addresses(&self) {
        let external = ["198.51.100.7", "2001:db8::7"];
        self.serve("external", &json!({"selector": {"in": "mixed"}, "externalIPs": external}));
        both(|family| {
            let to = SocketAddr::new(external[family].parse().expect("an address"), 80);
            self.judges("an external address", to, Transport::Tcp, &self.mixed(family));
        });
    }

    pub(crate) fn node_ports(&self) {
        self.serve("node-port", &json!({"selector": {"in": "mixed"}, "type": "NodePort"}));
        let number =
            self.kubectl("get service node-port -o jsonpath={.spec.ports[?(@.name=='web')].nodePort}", "");
        let number: u16 = number.parse().expect("a port");
        both(|family| {
            let to = SocketAddr::new(node(family), number);
            self.judges("a node port", to, Transport::Tcp, &self.mixed(family));
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

    /// The positive control: with the policy taken away every backend answers, and nobody is still nobody.
    pub(crate) fn without_the_policy(&self) {
        self.kubectl("delete networkpolicy client", "");
        self.until_isolated(false);
        let [mixed, nobody] = ["mixed", "nobody"].map(|service| self.cluster_addresses(service));
        both(|family| {
            let to = SocketAddr::new(mixed[family], 80);
            let mut led = BTreeSet::new();
            let attempts = self.attempts(to, Transport::Tcp, ATTEMPTS);
            let table = self.connections();
            for attempt in attempts {
                assert_eq!(attempt.outcome, Outcome::Answered, "{to} without a policy: {attempt:?}");
                led.extend(attempt.chosen(&table, to, Transport::Tcp));
            }
            assert_eq!(led.len(), 3, "{led:?}");
            let to = SocketAddr::new(nobody[family], 80);
            self.all_end("nobody, without a policy", to, Outcome::Refused, FEW);
        });
    }
}

fn node(family: usize) -> IpAddr {
    [ADDRESS, ADDRESS6][family].parse().expect("an address")
}
