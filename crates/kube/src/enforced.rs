//! How far a cluster is with one NetworkPolicy: what the nodes' objects say, beside where the pods are that it selects.

mod follow;

use std::collections::{BTreeMap, BTreeSet};

use cellwall_policy::model::Kind;
use thiserror::Error;

use crate::node_object::CellwallNodeStatus;

pub use follow::follow;

/// Why nobody can wait for a policy.
#[derive(Debug, Error)]
pub enum WaitError {
    /// The policy is not there, or not any more.
    #[error("there is no NetworkPolicy {0}")]
    NoSuchPolicy(String),
    /// The API server knows no `cellwallnodes`.
    #[error(
        "no node says what it enforces, since the API server does not know cellwallnodes.cellwall.dev; install the chart's CRDs"
    )]
    NotServed,
    /// The API server did not answer as it should.
    #[error("cannot ask the API server: {0}")]
    Failed(String),
}

/// How far the cluster is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// `metadata.generation` of the policy.
    pub generation: i64,
    /// How many nodes count: those that have said something, and those with selected pods.
    pub nodes: usize,
    /// The nodes that do not enforce it, by name.
    pub waiting: BTreeMap<String, Waiting>,
}

impl Progress {
    /// Every node enforces it. Where no node counts, nobody does.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        self.nodes > 0 && self.waiting.is_empty()
    }
}

/// A node that does not enforce it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// It has pods that the policy selects.
    pub selects: bool,
    /// Why it does not.
    pub reason: String,
}

/// A version of a policy, and where its pods are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `namespace/name`.
    pub policy: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// The nodes with pods that it selects.
    pub selected: BTreeSet<String>,
}

impl Target {
    /// How far the cluster is when its nodes say this. A node without selected pods counts as well: it may get one at any
    /// moment.
    #[must_use]
    pub fn progress(&self, nodes: &BTreeMap<String, CellwallNodeStatus>) -> Progress {
        let names: BTreeSet<&String> = if cellwall_policy::planted("only-nodes-with-selected-pods-count") {
            self.selected.iter().collect()
        } else {
            self.selected.iter().chain(nodes.keys()).collect()
        };
        let waiting = |name: &&String| {
            let reason = match nodes.get(*name) {
                None => "no agent has written its CellwallNode".to_owned(),
                Some(status) => self.missing(status)?,
            };
            Some(((*name).clone(), Waiting { selects: self.selected.contains(*name), reason }))
        };
        Progress {
            generation: self.generation,
            nodes: names.len(),
            waiting: names.iter().filter_map(waiting).collect(),
        }
    }

    /// Why the node does not enforce it; none where it does.
    fn missing(&self, status: &CellwallNodeStatus) -> Option<String> {
        let kind = Kind::NetworkPolicy.name();
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        let enforced = status.enforced.iter().find(|version| version.kind == kind);
        let enforced = enforced.map(|version| version.resource_version.as_str()).unwrap_or_default();
        if status.mode == "audit" && !cellwall_policy::planted("an-audited-node-enforces") {
            return Some("it is in audit mode: what policies deny passes".to_owned());
        }
        match ready {
            Some(ready) if ready.status == "True" => {}
            Some(ready) => return Some(format!("it is not ready: {}: {}", ready.reason, ready.message)),
            None => return Some("it has not said that it is ready".to_owned()),
        }
        if is_at_least(enforced, &self.resource_version) {
            return self.problem(status);
        }
        let seen = if enforced.is_empty() { "none" } else { enforced };
        Some(format!("it enforces resourceVersion {seen}, and the policy has {}", self.resource_version))
    }

    /// The policy is there, and not in force as it is written.
    fn problem(&self, status: &CellwallNodeStatus) -> Option<String> {
        if cellwall_policy::planted("what-is-left-out-is-enforced") {
            return None;
        }
        match &status.not_as_written {
            None => Some("it has problems with more policies than it can name".to_owned()),
            Some(policies) if policies.contains(&self.policy) => {
                Some("it has a problem with this policy, which `cellwall policies` names there".to_owned())
            }
            Some(_) => None,
        }
    }
}

/// Whether everything of `target` was there when a list or watch was at `seen`. resourceVersions of a resource are numbers
/// that grow (KEP-5504, Kubernetes 1.35; etcd's always were); others are only equal or not.
fn is_at_least(seen: &str, target: &str) -> bool {
    match (seen.parse::<u64>(), target.parse::<u64>()) {
        (Ok(seen), Ok(target)) => seen >= target,
        _ => seen == target,
    }
}
