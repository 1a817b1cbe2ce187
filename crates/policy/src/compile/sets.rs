//! Peer sets: the peers of one rule, as one question to an address.
//!
//! A set is a whole list of peers and not one peer, so a rule with ten thousand CIDRs is one set and its addresses
//! are one class.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::flow::Protocol;
use crate::model::{Block, Cluster, NamespaceMatch, Node, Peer, Pod, Selector};

/// A named port of a destination pod, resolved to one number: of the peers only those pods on which the name means
/// this number (S43).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Resolved {
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) number: u16,
}

/// What makes two sets the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerSet {
    /// Sorted, without duplicates, without peers that match nothing.
    pub(crate) peers: Vec<Peer>,
    /// Only pods on which this name means this number.
    pub(crate) port: Option<Resolved>,
    /// A pod whose namespace is not known yet is in it when it would be in some namespace: of a Deny, and where
    /// peers are not named at all.
    pub(crate) unknown_too: bool,
}

impl PeerSet {
    pub(crate) fn new(peers: &[Peer], port: Option<Resolved>, unknown_too: bool) -> Self {
        let mut peers: Vec<Peer> = peers.iter().filter(|peer| **peer != Peer::Unknown).cloned().collect();
        peers.sort();
        peers.dedup();
        Self { peers, port, unknown_too }
    }

    /// Every pod on which a name means a number: the peers of a rule that names no peers but such a port (S45).
    pub(crate) fn all_pods(port: Resolved) -> Self {
        let everyone = Peer::Pods(NamespaceMatch::Labels(Selector::everything()), Selector::everything());
        Self { peers: alloc::vec![everyone], port: Some(port), unknown_too: true }
    }

    /// The blocks of a set that addresses of no pod can be in.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Block> {
        let any_address = self.port.is_none();
        self.peers.iter().filter_map(move |peer| match peer {
            Peer::Block(block) if any_address => Some(block),
            _ => None,
        })
    }

    /// True when a pod is in the set by its labels, or, where only pods can be, by its address.
    pub(crate) fn has_pod(&self, cluster: &Cluster, pod: &Pod, address: IpAddr) -> bool {
        let port_holds =
            self.port.as_ref().is_none_or(|p| pod.port(&p.name, p.protocol).is_some_and(|n| n == p.number));
        port_holds
            && self.peers.iter().any(|peer| match peer {
                Peer::Pods(namespaces, pods) => {
                    let is_unknown = !cluster.namespaces.contains_key(&pod.namespace);
                    pods.matches(&pod.labels)
                        && ((self.unknown_too && is_unknown)
                            || cluster.has_namespace(namespaces, &pod.namespace))
                }
                Peer::Block(block) => self.port.is_some() && has_address(block, address),
                Peer::Nodes(_) | Peer::Unknown => false,
            })
    }

    /// True when a node's addresses are in the set by its labels.
    pub(crate) fn has_node(&self, node: &Node) -> bool {
        self.port.is_none()
            && self
                .peers
                .iter()
                .any(|peer| matches!(peer, Peer::Nodes(selector) if selector.matches(&node.labels)))
    }
}

/// True when an address is in a block and in none of its exceptions.
fn has_address(block: &Block, address: IpAddr) -> bool {
    block.cidr.contains(&address) && !block.except.iter().any(|except| except.contains(&address))
}
