//! How far a cluster is with one NetworkPolicy: what the nodes' objects say, beside where the pods are that it selects. And
//! what each node says for itself.

mod follow;
mod overview;

use std::collections::{BTreeMap, BTreeSet};

use cellwall_policy::model::Kind;
use thiserror::Error;

use crate::node_object::CellwallNodeStatus;

pub use follow::follow;
pub use overview::{NodeState, overview};

/// What is missing where there is no object of a node.
const NO_OBJECT: &str = "no agent has written its CellwallNode";

/// Why nobody can say how far the nodes are.
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
    /// How many nodes count: all of the cluster but those of other systems.
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
    /// The nodes of the cluster.
    pub nodes: BTreeSet<String>,
    /// The pods that it selects, as `namespace/name`, by node.
    pub selected: BTreeMap<String, BTreeSet<String>>,
}

impl Target {
    /// How far the cluster is at `now`, in seconds of Unix time, when its nodes say this. A node without selected pods counts
    /// as well: it may get one at any moment.
    #[must_use]
    pub fn progress(&self, said: &BTreeMap<String, CellwallNodeStatus>, now: i64) -> Progress {
        let others =
            (!cellwall_policy::planted("only-nodes-with-selected-pods-count")).then_some(&self.nodes);
        let names: BTreeSet<&String> = self.selected.keys().chain(others.into_iter().flatten()).collect();
        let waiting = |name: &&String| {
            let reason = match said.get(*name) {
                None => NO_OBJECT.to_owned(),
                Some(status) => self.missing(name, status, now)?,
            };
            Some(((*name).clone(), Waiting { selects: self.selected.contains_key(*name), reason }))
        };
        Progress {
            generation: self.generation,
            nodes: names.len(),
            waiting: names.iter().filter_map(waiting).collect(),
        }
    }

    /// Why the node does not enforce it; none where it does.
    fn missing(&self, node: &str, status: &CellwallNodeStatus, now: i64) -> Option<String> {
        if status.mode == "audit" && !cellwall_policy::planted("an-audited-node-enforces") {
            return Some("it is in audit mode: what policies deny passes".to_owned());
        }
        if let Some(trouble) = status.trouble(now) {
            return Some(trouble);
        }
        let kind = Kind::NetworkPolicy.name();
        let enforced = status.enforced.iter().find(|version| version.kind == kind);
        let enforced = enforced.map_or("", |version| &version.resource_version);
        if !is_at_least(enforced, &self.resource_version) {
            let seen = if enforced.is_empty() { "none" } else { enforced };
            return Some(format!(
                "it enforces resourceVersion {seen}, and the policy has {}",
                self.resource_version
            ));
        }
        if cellwall_policy::planted("what-is-left-out-is-enforced") {
            None
        } else {
            self.left_out(node, status)
        }
    }

    /// The policy, or a pod of it, is known there, and not enforced as it is written.
    fn left_out(&self, node: &str, status: &CellwallNodeStatus) -> Option<String> {
        let (Some(policies), Some(pods)) = (&status.policies_with_problems, &status.pods_not_enforced) else {
            return Some(
                "it has problems with more policies, or does not enforce more pods, than it can name"
                    .to_owned(),
            );
        };
        if policies.contains(&self.policy) {
            return Some(
                "it has a problem with this policy, which `cellwall policies` names there".to_owned(),
            );
        }
        let selected = self.selected.get(node);
        let pod = pods.iter().find(|&pod| selected.is_some_and(|selected| selected.contains(pod)))?;
        Some(format!("its pod {pod} is audited, or its interface is not known"))
    }
}

/// Whether everything of `target` was there when a list or watch was at `seen`. resourceVersions of a resource are numbers
/// that grow (KEP-5504, Kubernetes 1.35; etcd's always were); others are only equal or not.
fn is_at_least(seen: &str, target: &str) -> bool {
    match (seen.parse::<u64>(), target.parse::<u64>()) {
        (Ok(seen), Ok(target)) => seen >= target,
        _ => !seen.is_empty() && seen == target,
    }
}
