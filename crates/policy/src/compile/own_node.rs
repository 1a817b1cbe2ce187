//! The setting that keeps a pod's own node open to it (S62). The documentation of NetworkPolicy says that traffic to and from
//! the node of a pod is always allowed, its section on isolation excepts only what comes in. Here policy decides, unless
//! whoever runs the cluster asks for the first.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;

use crate::flow::Direction;
use crate::model::{
    Action, Block, Cluster, Kind, NamespaceMatch, ObjectKey, Peer, Policy, PolicyKind, Rule, Selector,
    Subject, Tier,
};

/// A policy in the name of the node: what it allows is allowed as by any other NetworkPolicy, and it isolates nobody. None
/// where the setting is off.
pub(crate) fn own_node(cluster: &Cluster) -> Option<Policy> {
    cluster.egress_to_own_node.then(|| Policy {
        key: ObjectKey::cluster(Kind::Node, &cluster.node_name),
        kind: PolicyKind::NetworkPolicy,
        uid: String::new(),
        generation: 0,
        tier: Tier::NetworkPolicy,
        priority: 0,
        subject: Subject {
            namespaces: NamespaceMatch::Labels(Selector::everything()),
            pods: Selector::everything(),
        },
        isolates: [false, false],
        rules: [Vec::new(), vec![to_node(cluster)]],
    })
}

fn to_node(cluster: &Cluster) -> Rule {
    let named = cluster.nodes.get(&cluster.node_name).into_iter().flat_map(|node| &node.addresses);
    let addresses: BTreeSet<IpAddr> = cluster.node_addresses.iter().chain(named).copied().collect();
    let block = |address: IpAddr| Peer::Block(Block { cidr: IpNet::from(address), except: Vec::new() });
    let peers = addresses.into_iter().filter(|address| !address.is_loopback()).map(block).collect();
    let peers = if crate::planted("the-own-node-is-everybody") { None } else { Some(peers) };
    Rule { peers, ports: None, action: Action::Accept, index: 0 }
}

/// True when its rule is asked: where nothing isolates a pod, everything is open.
pub(crate) fn applies(policies: &[&Policy], direction: Direction) -> bool {
    direction == Direction::Egress && policies.iter().any(|policy| policy.isolates[direction as usize])
}
