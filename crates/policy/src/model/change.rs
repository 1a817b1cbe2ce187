//! One step of what is known.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use cellwall_abi::Mac;

use super::{Announced, EndpointSlice, Namespace, Node, Pod, Policy, Problem, Service};

/// The resources that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Namespace.
    Namespace,
    /// Node.
    Node,
    /// Pod.
    Pod,
    /// Service.
    Service,
    /// EndpointSlice.
    EndpointSlice,
    /// NetworkPolicy.
    NetworkPolicy,
    /// ClusterNetworkPolicy.
    ClusterNetworkPolicy,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::NetworkPolicy,
        Self::ClusterNetworkPolicy,
    ];

    /// The kind as in a manifest.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }
}

/// Names one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Kind.
    pub kind: Kind,
    /// Namespace; empty for cluster-wide objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// Of an object in a namespace.
    #[must_use]
    pub fn namespaced(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_string(), name: name.to_string() }
    }

    /// Of a cluster-wide object.
    #[must_use]
    pub fn cluster(kind: Kind, name: &str) -> Self {
        Self::namespaced(kind, "", name)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind.name(), self.name)
        } else {
            write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
        }
    }
}

/// An interface of this node whose other end is in another network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index of the host side.
    pub ifindex: u32,
    /// Name of the host side.
    pub name: String,
    /// Addresses of the other end, link-local ones left out. Once they have told which pod is there they stay what they were.
    pub addresses: Vec<IpAddr>,
    /// Ethernet address of the other end, or unknown.
    pub mac: Mac,
    /// True when the interface was there when this agent, or an earlier one, first looked: its pod may have live
    /// connections whose beginning nobody saw.
    pub preexisting: bool,
}

/// One step of what is known. Sources and the netlink watch emit it; [`super::Cluster::apply`] takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A namespace is new or different.
    Namespace(Namespace),
    /// A node is new or different.
    Node(Node),
    /// A pod is new or different.
    Pod(Pod),
    /// A Service is new or different.
    Service(Service),
    /// Backends of a Service are new or different.
    EndpointSlice(EndpointSlice),
    /// A policy is new or different, with what is wrong with it.
    Policy(Policy, Vec<Problem>),
    /// An object could not be understood at all. The last version that was understood stays in force.
    Bad(Problem),
    /// An object is gone, with its problems.
    Gone(ObjectKey),
    /// A list of this kind is complete: objects of the kind that are not among these names are gone.
    Listed(Kind, Vec<ObjectKey>),
    /// An interface is new or different.
    Link(Link),
    /// An interface is gone.
    LinkGone(u32),
    /// A pod of this node is being started.
    Announced(Announced),
    /// Addresses of this node's own interfaces: never an unknown pod. Replaces the earlier list.
    NodeAddresses(Vec<IpAddr>),
}
