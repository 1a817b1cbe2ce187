//! `cellwall status --cluster`: every node, from wherever kubectl works.

use std::time::SystemTime;

use anyhow::Result;
use cellwall_kube::enforced::{NodeState, overview};
use clap::Args;
use serde::Serialize;

use crate::age::age;
use crate::output::Answer;
use crate::remote::Elsewhere;
use crate::table;

/// Whether all are asked.
#[derive(Debug, Args)]
pub(crate) struct WholeCluster {
    /// Show every node of the cluster in one line, as its agent last wrote it into its CellwallNode.
    ///
    /// Asks the API server and no agent, so it works wherever kubectl does. Needs the right to list nodes and cellwallnodes.
    /// Exits with 3 when a node is not ready, has no agent, or has said nothing for eleven minutes.
    #[arg(long, conflicts_with = "watch", group = "from")]
    pub(crate) cluster: bool,
}

/// All nodes.
#[derive(Debug, Serialize)]
pub(crate) struct Nodes {
    nodes: Vec<NodeState>,
}

impl Nodes {
    pub(crate) async fn of(elsewhere: &Elsewhere) -> Result<Self> {
        Ok(Self { nodes: overview(&elsewhere.cluster().await?).await? })
    }

    /// False also where there is none.
    pub(crate) fn are_all_ready(&self) -> bool {
        !self.nodes.is_empty() && self.nodes.iter().all(|node| node.ready)
    }
}

impl Answer for Nodes {
    fn table(&self, wide: bool, now: SystemTime) -> String {
        let shown = |node: &NodeState| {
            let said = node.status.as_ref();
            let number = |count: Option<i64>| count.map_or("-".to_owned(), |count| count.to_string());
            let heard = said.and_then(|said| said.heartbeat.as_ref()).map(|time| {
                let then = SystemTime::from(time.0);
                age(now.duration_since(then).unwrap_or_default())
            });
            let problems = said.map(|said| said.problems.join("; ")).unwrap_or_default();
            let why = node.reason.clone().unwrap_or(if wide { problems } else { String::new() });
            [
                node.name.clone(),
                table::yes(node.ready),
                table::or_dash(said.map(|said| said.mode.clone()).unwrap_or_default()),
                number(said.map(|said| said.endpoints.into())),
                number(said.map(|said| said.policies.into())),
                number(said.map(|said| said.problem_count.into())),
                number(said.map(|said| said.revision)),
                table::or_dash(said.map(|said| said.agent_version.clone()).unwrap_or_default()),
                table::or_dash(heard.unwrap_or_default()),
                table::or_dash(why),
            ]
        };
        let heading = [
            "NODE",
            "READY",
            "MODE",
            "ENDPOINTS",
            "POLICIES",
            "PROBLEMS",
            "REVISION",
            "AGENT",
            "HEARD",
            "WHY",
        ];
        table::rows(heading, self.nodes.iter().map(shown).collect())
    }

    fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("node/{}", node.name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cellwall_kube::node_object::{CellwallNodeStatus, time};
    use expect_test::expect;

    use super::*;

    #[test]
    fn each_node_has_a_line() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        let said = CellwallNodeStatus {
            agent_version: "0.1.0".to_owned(),
            mode: "enforce".to_owned(),
            revision: 17,
            endpoints: 12,
            policies: 5,
            problem_count: 1,
            problems: vec!["NetworkPolicy shop/db: no such\u{1b}[2J port".to_owned()],
            heartbeat: Some(time(now - Duration::from_secs(200))),
            ..CellwallNodeStatus::default()
        };
        let node = |name: &str, reason: Option<&str>, status| NodeState {
            name: name.to_owned(),
            ready: reason.is_none(),
            reason: reason.map(str::to_owned),
            status,
        };
        let nodes = Nodes { nodes: vec![node("a", None, Some(said)), node("b", Some("no agent"), None)] };
        expect![[r"
            NODE  READY  MODE     ENDPOINTS  POLICIES  PROBLEMS  REVISION  AGENT  HEARD  WHY
            a     yes    enforce  12         5         1         17        0.1.0  3m20s  -
            b     no     -        -          -         -         -         -      -      no agent
        "]]
        .assert_eq(&nodes.table(false, now));
        expect![[r"
            NODE  READY  MODE     ENDPOINTS  POLICIES  PROBLEMS  REVISION  AGENT  HEARD  WHY
            a     yes    enforce  12         5         1         17        0.1.0  3m20s  NetworkPolicy shop/db: no such\u{1b}[2J port
            b     no     -        -          -         -         -         -      -      no agent
        "]].assert_eq(&nodes.table(true, now));
        assert!(!nodes.are_all_ready());
        assert!(!Nodes { nodes: Vec::new() }.are_all_ready(), "nobody is");
    }
}
