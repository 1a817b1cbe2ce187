//! Policies in one normal form: what every dialect is lowered to before anything is compiled.

use alloc::string::String;
use alloc::vec::Vec;

use ipnet::IpNet;

use super::{ObjectKey, Selector};
use crate::flow::{Direction, Protocol};

/// Which dialect a policy was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    ClusterNetworkPolicy,
}

/// Evaluation order: Admin, then NetworkPolicy, then Baseline, then allow (C1). The order of the variants is the
/// order of evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Before NetworkPolicy.
    Admin,
    /// NetworkPolicy: a union of allows, and deny for what is isolated and not allowed.
    NetworkPolicy,
    /// After NetworkPolicy, for pods that no NetworkPolicy isolates in this direction.
    Baseline,
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Allowed, final for this direction.
    Accept,
    /// Denied, final.
    Deny,
    /// Leaves the rest of this tier (C6).
    Pass,
}

/// Which namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceMatch {
    /// The namespace of this name.
    Named(String),
    /// Those whose labels match.
    Labels(Selector),
}

/// The pods that a policy is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Their namespaces.
    pub namespaces: NamespaceMatch,
    /// Their labels.
    pub pods: Selector,
}

/// A CIDR without its exceptions (S51).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// The CIDR, host bits masked (S57).
    pub cidr: IpNet,
    /// What is taken out of it, host bits masked, each inside `cidr`, sorted.
    pub except: Vec<IpNet>,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Pods by the labels of their namespace and their own.
    Pods(NamespaceMatch, Selector),
    /// Addresses, pods' included (S53).
    Block(Block),
    /// Addresses of nodes.
    Nodes(Selector),
    /// Not understood: matches nothing under Accept; a Deny or a Pass with it denies everything (C26).
    Unknown,
}

/// Ports `low` to `high`, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// First port.
    pub low: u16,
    /// Last port.
    pub high: u16,
}

impl PortRange {
    /// All ports.
    pub const ALL: Self = Self { low: 0, high: u16::MAX };
}

/// Destination ports that a rule names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// By number.
    Range(Protocol, PortRange),
    /// By the name of a container port of the destination pod. `None`: any protocol it is declared with (C23).
    Named(String, Option<Protocol>),
}

/// One rule of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `None`: any address (S31). An empty list matches nothing.
    pub peers: Option<Vec<Peer>>,
    /// `None`: all ports of all protocols (S32). An empty list matches nothing.
    pub ports: Option<Vec<Port>>,
    /// What happens.
    pub action: Action,
    /// Position in the object's list of this direction, from 0.
    pub index: u32,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Kind, namespace (empty for cluster-wide ones) and name.
    pub key: ObjectKey,
    /// Dialect.
    pub kind: PolicyKind,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`; 0 when not known.
    pub generation: i64,
    /// Tier.
    pub tier: Tier,
    /// Order within the tier, lower first; 0 for NetworkPolicy.
    pub priority: i32,
    /// Its pods.
    pub subject: Subject,
    /// Per [`Direction`]: true when the policy isolates its pods in this direction (NetworkPolicy only, S2).
    pub isolates: [bool; 2],
    /// Per [`Direction`]: the rules in order.
    pub rules: [Vec<Rule>; 2],
}

/// Names one rule of one policy: what a verdict points to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleRef {
    /// The policy.
    pub policy: ObjectKey,
    /// Which of its lists.
    pub direction: Direction,
    /// Position in that list, from 0.
    pub index: u32,
}
