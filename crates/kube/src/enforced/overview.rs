//! Every node of a cluster, as its agent says it is.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde::Serialize;

use super::follow::{nodes, said};
use super::{NO_OBJECT, WaitError};
use crate::node_object::CellwallNodeStatus;

/// A node, and what its agent says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeState {
    /// Its name.
    pub name: String,
    /// Its agent lives and enforces what it knows.
    pub ready: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What its agent has said last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<CellwallNodeStatus>,
}

/// The nodes of the cluster, but those of other systems, by name. Asks for `nodes` and `cellwallnodes`, to list.
pub async fn overview(client: &Client) -> Result<Vec<NodeState>, WaitError> {
    Ok(states(&nodes(client).await?, said(client).await?, Timestamp::now().as_second()))
}

/// As it is at `now`, in seconds of Unix time.
fn states(
    nodes: &BTreeSet<String>,
    mut said: BTreeMap<String, CellwallNodeStatus>,
    now: i64,
) -> Vec<NodeState> {
    let state = |name: &String| {
        let status = said.remove(name);
        let reason = status.as_ref().map_or_else(|| Some(NO_OBJECT.to_owned()), |said| said.trouble(now));
        NodeState { name: name.clone(), ready: reason.is_none(), reason, status }
    };
    nodes.iter().map(state).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::node_object::{Condition, time};

    const NOW: i64 = 1_800_000_000;

    fn said(age_s: u64, status: &str) -> CellwallNodeStatus {
        let at = time(UNIX_EPOCH + Duration::from_secs(NOW.unsigned_abs() - age_s));
        let condition = Condition {
            type_: "Ready".to_owned(),
            status: status.to_owned(),
            reason: "Why".to_owned(),
            message: "because".to_owned(),
            last_transition_time: at.clone(),
            observed_generation: None,
        };
        CellwallNodeStatus {
            heartbeat: Some(at),
            conditions: vec![condition],
            ..CellwallNodeStatus::default()
        }
    }

    #[test]
    fn each_node_of_the_cluster_is_there_whether_its_agent_is_or_not() {
        let nodes = ["a", "b", "c", "d"].map(str::to_owned).into();
        let of = [
            ("a", said(300, "True")),
            ("b", said(0, "False")),
            ("c", said(700, "True")),
            ("gone", said(0, "True")),
        ];
        let states = states(&nodes, of.map(|(name, said)| (name.to_owned(), said)).into(), NOW);
        let reasons: Vec<_> =
            states.iter().map(|s| (s.name.as_str(), s.ready, s.reason.as_deref())).collect();
        assert_eq!(
            reasons,
            [
                ("a", true, None),
                ("b", false, Some("it is not ready: Why: because")),
                ("c", false, Some("its agent has said nothing for more than 11 minutes")),
                ("d", false, Some(NO_OBJECT)),
            ]
        );
    }
}
