//! Pods between which many connections run, and others that must not reach each other.

use std::net::IpAddr;

use cellwall_testkit::net::{Host, Namespace};
use cellwall_testkit::traffic::{Ends, received, sent_again};
use serde_json::{Value, json};

use crate::site::Site;

/// The pods: a server with its client; a stranger and a vault that nobody may reach; a prisoner who may reach nobody, and
/// somebody whom it tries to reach.
const NAMES: [&str; 6] = ["flow-server", "flow-client", "stranger", "vault", "prisoner", "outside"];

/// Four of them make more than the 5,000 denied packets a second of the claim, where the machine has the time.
pub(crate) const SENDERS: usize = 4;

pub(crate) struct Rig {
    pods: [(Namespace, [IpAddr; 2]); 6],
}

impl Rig {
    /// The pods and their policies, which are enforced when this returns.
    pub(crate) fn new(site: &Site) -> Self {
        let client = json!([{"from": [{"podSelector": {"matchLabels": {"app": "flow-client"}}}]}]);
        apply(site, "flow-server", &json!({"policyTypes": ["Ingress"], "ingress": client}));
        apply(site, "vault", &json!({"policyTypes": ["Ingress"]}));
        apply(site, "prisoner", &json!({"policyTypes": ["Egress"]}));
        let pods = NAMES.map(|name| {
            site.starts_a_pod(name);
            let addresses = site.addresses(name);
            (site.cluster.pod(addresses[0]).expect("it runs"), addresses)
        });
        for policy in ["flow-server", "vault", "prisoner"] {
            site.until_all_enforce(policy);
        }
        Self { pods }
    }

    fn hosts(&self) -> [Host<'_>; 6] {
        self.pods.each_ref().map(|(namespace, addresses)| Host { namespace, addresses: *addresses })
    }

    pub(crate) fn ends(&self) -> Ends<'_> {
        let [server, client, stranger, vault, prisoner, outside] = self.hosts();
        let denied = vec![(stranger, vault), (prisoner, outside), (stranger, vault), (prisoner, outside)];
        assert_eq!(denied.len(), SENDERS);
        Ends { client, server, denied }
    }

    /// Packets that arrived where none may: into a pod, and out of another.
    pub(crate) fn leaked(&self) -> [u64; 2] {
        let [_, _, _, vault, _, outside] = self.hosts();
        [received(vault), received(outside)]
    }

    /// Segments that the ends of the flows sent more than once.
    pub(crate) fn sent_again(&self) -> u64 {
        let [server, client, ..] = self.hosts();
        sent_again(server) + sent_again(client)
    }
}

/// From now on nobody may reach the server.
pub(crate) fn close(site: &Site) {
    apply(site, "flow-server", &json!({"policyTypes": ["Ingress"]}));
}

/// A policy of the pod of its name.
fn apply(site: &Site, name: &str, rules: &Value) {
    let mut spec = rules.clone();
    spec["podSelector"] = json!({"matchLabels": {"app": name}});
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name},
        "spec": spec});
    site.cluster.kubectl(&["apply", "-f", "-"], &policy.to_string()).expect("kubectl succeeds");
}
