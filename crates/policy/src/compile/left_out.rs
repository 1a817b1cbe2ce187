//! Objects for which a table has no room: the rest is enforced, and nothing is open because of them.
//!
//! - Of a policy the rules are left out, not what it isolates. Where it denies, or passes on what others may deny, it
//!   denies everything.
//! - Of a Service, or of the host ports of a pod, the rows are left out that say where packets are translated. An isolated
//!   pod that sent there would reach backends that nobody has judged, so it reaches nothing at those addresses.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;

use crate::flow::Direction;
use crate::model::{
    Action, Block, Cluster, Kind, NamespaceMatch, ObjectKey, Peer, Policy, PolicyKind, Problem, Rule,
    Selector, Subject, Tier,
};

/// Objects that are left out, each with the reason and the remedy.
pub type LeftOut = BTreeMap<ObjectKey, String>;

/// What is asked instead of the policies that are left out.
pub(crate) fn reduced(cluster: &Cluster, left_out: &LeftOut) -> BTreeMap<ObjectKey, Policy> {
    let policies = left_out.keys().filter_map(|key| cluster.policies.get(key));
    policies
        .map(|policy| {
            let rules = Direction::ALL.map(|direction| denies(policy, direction).into_iter().collect());
            let isolates = policy.isolates.map(|isolates| isolates && !crate::planted("left-out-is-open"));
            (policy.key.clone(), Policy { isolates, rules, ..policy.clone() })
        })
        .collect()
}

/// A rule that denies everything, where some rule does more than accept.
fn denies(policy: &Policy, direction: Direction) -> Option<Rule> {
    let rule = policy.rules[direction as usize].iter().find(|rule| rule.action != Action::Accept)?;
    Some(Rule { peers: None, ports: None, action: Action::Deny, index: rule.index })
}

/// A policy in the name of every Service, or pod with host ports, that is left out: nobody's egress is isolated by it, and
/// whose is cannot reach its addresses.
pub(crate) fn unreachable(cluster: &Cluster, left_out: &LeftOut) -> Vec<Policy> {
    let closed = left_out.keys().map(|key| (key, addresses(cluster, key)));
    closed
        .filter(|(_, addresses)| !addresses.is_empty() && !crate::planted("left-out-services-are-addresses"))
        .map(|(key, addresses)| Policy {
            key: key.clone(),
            kind: PolicyKind::ClusterNetworkPolicy,
            uid: String::new(),
            generation: 0,
            tier: Tier::Admin,
            priority: i32::MIN,
            subject: Subject {
                namespaces: NamespaceMatch::Labels(Selector::everything()),
                pods: Selector::everything(),
            },
            isolates: [false, false],
            rules: [Vec::new(), vec![deny(addresses)]],
        })
        .collect()
}

fn deny(addresses: BTreeSet<IpAddr>) -> Rule {
    let block = |address| Peer::Block(Block { cidr: IpNet::from(address), except: Vec::new() });
    let peers = addresses.into_iter().map(block).collect();
    Rule { peers: Some(peers), ports: None, action: Action::Deny, index: 0 }
}

/// Where packets would be translated.
fn addresses(cluster: &Cluster, key: &ObjectKey) -> BTreeSet<IpAddr> {
    let nodes = || cluster.node_addresses.iter().filter(|address| !address.is_loopback()).copied();
    if let Some(pod) = cluster.pods.get(key).filter(|pod| !pod.host_ports.is_empty()) {
        return nodes().filter(|_| pod.node == cluster.node_name).collect();
    }
    let Some(service) = cluster.services.get(key) else { return BTreeSet::new() };
    let own = service.cluster_addresses.iter().chain(&service.external_addresses).copied();
    let has_node_ports = service.ports.iter().any(|port| port.node_port.is_some());
    own.chain(nodes().filter(|_| has_node_ports)).collect()
}

/// True where its own node and what is left out are asked about: nothing is closed to a pod that no policy is about.
pub(crate) fn applies(policies: &[&Policy], direction: Direction) -> bool {
    let d = direction as usize;
    direction == Direction::Egress && policies.iter().any(|p| p.isolates[d] || !p.rules[d].is_empty())
}

/// What is said about every object that is left out.
pub(crate) fn problems(left_out: &LeftOut) -> impl Iterator<Item = Problem> + '_ {
    left_out.iter().map(|(key, why)| {
        let follows = match key.kind {
            Kind::NetworkPolicy | Kind::ClusterNetworkPolicy => {
                "its rules are left out on this node: the pods that it isolates are closed where no other policy allows \
                 something, and what it denies in part it denies whole"
            }
            Kind::Node => "what pods may send to their own node is left out",
            _ => "it is left out on this node: isolated pods reach nothing at its addresses",
        };
        let message = format!("{why}; until then {follows}");
        Problem { object: key.clone(), field: String::new(), message }
    })
}
