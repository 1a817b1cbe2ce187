//! What is known: the objects of the cluster and the interfaces of this node, as plain values.
//!
//! Objects arrive as [`Change`]s that are already understood: selectors are parsed, defaults applied, and what
//! could not be understood has become a [`Problem`] and something that never widens access.

mod announced;
mod change;
mod cluster;
mod namespace;
mod node;
mod pod;
mod policy;
mod problem;
mod selector;
mod service;

pub use announced::Announced;
pub use change::{Change, Kind, Link, ObjectKey};
pub use cluster::{Cluster, Left, Touched};
pub use namespace::Namespace;
pub use node::Node;
pub use pod::{HostPort, NamedPort, Phase, Pod};
pub use policy::{
    Action, Block, NamespaceMatch, Peer, Policy, PolicyKind, Port, PortRange, Rule, RuleRef, Subject, Tier,
};
pub use problem::Problem;
pub use selector::{Labels, Requirement, Selector};
pub use service::{
    BackendPort, EndpointSlice, Service, ServicePort, ServiceSelector, ServiceTarget, TargetPort,
};
