//! The objects of a measurement, as an API server would send them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use crate::drive;

/// The node that is measured.
pub(crate) const NODE: &str = "measured";
/// The namespace of every object.
pub(crate) const NAMESPACE: &str = "bench";

/// Who may talk to the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peers {
    /// So many blocks of one address each, of each family.
    Blocks(u32),
    /// So many blocks of one IPv4 address each.
    Blocks4(u32),
    /// So many pods of other nodes, by their label.
    Pods(u32),
}

impl Peers {
    /// How many.
    pub(crate) const fn count(self) -> u32 {
        match self {
            Self::Blocks(count) | Self::Blocks4(count) | Self::Pods(count) => count,
        }
    }
}

/// The address of a peer by its number: in 10.0.0.0/8.
pub(crate) fn peer4(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 | drive::address(number))
}

/// The same in `2001:db8::/96`.
pub(crate) fn peer6(number: u32) -> Ipv6Addr {
    let low = u128::from(0x0a00_0000 | drive::address(number));
    Ipv6Addr::from(0x2001_0db8_u128 << 96 | low)
}

/// The namespace.
pub(crate) fn namespace() -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } })
}

/// A pod that runs, with the label `app: <app>`.
pub(crate) fn pod(name: &str, app: &str, node: &str, addresses: &[IpAddr]) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": NAMESPACE, "uid": name, "labels": { "app": app } },
        "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "i" }] },
        "status": { "phase": "Running", "podIP": addresses.first(), "podIPs": ips },
    })
}

/// A pod of another node that is a peer.
pub(crate) fn peer_pod(number: u32) -> Value {
    pod(&format!("peer-{number}"), "peer", "other", &[peer4(number).into(), peer6(number).into()])
}

/// Isolates the pods `app: <app>` in both directions, but for these peers on so many TCP ports from `first_port` on,
/// every other one.
pub(crate) fn policy(name: &str, app: &str, peers: Peers, first_port: u16, ports: u16) -> Value {
    let ports: Vec<Value> =
        (0..ports).map(|n| json!({ "protocol": "TCP", "port": first_port + 2 * n })).collect();
    policy_of(name, app, &listed(peers), &ports)
}

/// The same for TCP and UDP to one port, and with one more block.
pub(crate) fn one_port(name: &str, app: &str, peers: Peers, block: &str, port: u16) -> Value {
    let mut peers = listed(peers);
    peers.push(json!({ "ipBlock": { "cidr": block } }));
    let ports = ["TCP", "UDP"].map(|protocol| json!({ "protocol": protocol, "port": port }));
    policy_of(name, app, &peers, &ports)
}

/// A policy of one rule, with a block and a port of its own.
pub(crate) fn rule(number: u32) -> Value {
    let block = json!({ "ipBlock": { "cidr": format!("{}/32", peer4(number)) } });
    let port = json!({ "protocol": "TCP", "port": 1000 + number % 50_000 });
    policy_of(&format!("rule-{number}"), "isolated", &[block], &[port])
}

fn listed(peers: Peers) -> Vec<Value> {
    match peers {
        Peers::Blocks(count) => (0..count)
            .flat_map(|number| {
                [format!("{}/32", peer4(number)), format!("{}/128", peer6(number))]
                    .map(|cidr| json!({ "ipBlock": { "cidr": cidr } }))
            })
            .collect(),
        Peers::Blocks4(count) => (0..count)
            .map(|number| json!({ "ipBlock": { "cidr": format!("{}/32", peer4(number)) } }))
            .collect(),
        Peers::Pods(_) => vec![json!({ "podSelector": { "matchLabels": { "app": "peer" } } })],
    }
}

fn policy_of(name: &str, app: &str, peers: &[Value], ports: &[Value]) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "podSelector": { "matchLabels": { "app": app } },
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{ "from": peers, "ports": ports }],
            "egress": [{ "to": peers, "ports": ports }],
        },
    })
}
