//! `cellwall wait`: until every node enforces a policy.

use std::fmt::Write as _;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use cellwall_api::client::Client;
use cellwall_api::v1alpha1::WaitEnforcedResponse;
use clap::Args as Group;
use futures::StreamExt;
use jiff::SignedDuration;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use crate::args::Format;
use crate::output::{Answer, render};
use crate::remote::Elsewhere;
use crate::table;

/// Nodes that a message names; there may be thousands.
const NAMED: usize = 20;

/// What to wait for.
#[derive(Debug, Group)]
pub(crate) struct Wait {
    /// The policy: `policy/NAME`; `networkpolicy/NAME` and `netpol/NAME` mean the same.
    #[arg(value_name = "policy/NAME", value_parser = parse_policy)]
    policy: String,
    /// Its namespace.
    #[arg(short, long, value_name = "NAME")]
    namespace: String,
    /// How long, as 30s or 5m.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    timeout: Duration,
    #[command(flatten)]
    pub(crate) elsewhere: Elsewhere,
}

fn parse_policy(text: &str) -> Result<String, &'static str> {
    let kinds = ["policy", "networkpolicy", "networkpolicies", "netpol"];
    match text.split_once('/') {
        Some((kind, name)) if kinds.contains(&kind) && !name.is_empty() => Ok(name.to_owned()),
        _ => Err("it is written policy/NAME"),
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let time: SignedDuration =
        text.parse().map_err(|error: jiff::Error| format!("{error}; write 30s or 5m"))?;
    Duration::try_from(time).map_err(|_| "it is less than nothing".to_owned())
}

/// Waits, and tells on the way to standard error what is missing.
pub(crate) async fn run(mut client: Client, wait: Wait, format: Format) -> Result<String> {
    let Wait { policy, namespace, timeout, .. } = wait;
    let deadline = Instant::now().checked_add(timeout);
    let mut answers = pin!(client.wait_enforced(&namespace, &policy).await?);
    let mut last: Option<WaitEnforcedResponse> = None;
    loop {
        let next = match deadline {
            Some(deadline) => timeout_at(deadline, answers.next()).await,
            None => Ok(answers.next().await),
        };
        let Ok(next) = next else {
            bail!("{namespace}/{policy} after {timeout:?}: {}", missing(last.as_ref()))
        };
        let Some(answer) = next else { bail!("the agent ended") };
        let answer = answer?;
        if answer.enforced {
            return render(&Enforced { namespace, policy, answer }, format);
        }
        eprintln!("{namespace}/{policy}: {}", missing(Some(&answer)));
        last = Some(answer);
    }
}

/// Which nodes are waited for, in lines.
fn missing(answer: Option<&WaitEnforcedResponse>) -> String {
    let Some(answer) = answer else { return "the agent has not said anything yet".to_owned() };
    if answer.nodes == 0 {
        return "the cluster has no node".to_owned();
    }
    let WaitEnforcedResponse { nodes, waiting, generation, .. } = answer;
    let enforce = *nodes as usize - waiting.len().min(*nodes as usize);
    let mut text = format!("{enforce} of {nodes} nodes enforce generation {generation}");
    for node in waiting.iter().take(NAMED) {
        let pods = if node.selects { "" } else { ", which has none of its pods" };
        let line = format!("\n  {}{pods}: {}", table::printable(&node.node), table::printable(&node.reason));
        // A string takes what is written to it.
        let _ = write!(text, "{line}");
    }
    if waiting.len() > NAMED {
        let _ = write!(text, "\n  and {} more", waiting.len() - NAMED);
    }
    text
}

/// The last answer.
#[derive(Serialize)]
struct Enforced {
    namespace: String,
    policy: String,
    #[serde(flatten)]
    answer: WaitEnforcedResponse,
}

impl Answer for Enforced {
    fn table(&self, _: bool, _: SystemTime) -> String {
        let WaitEnforcedResponse { generation, nodes, .. } = self.answer;
        format!("{}/{} enforced on {nodes} nodes (generation {generation})\n", self.namespace, self.policy)
    }

    fn names(&self) -> Vec<String> {
        vec![format!("networkpolicy/{}", self.policy)]
    }
}

#[cfg(test)]
mod tests {
    use cellwall_api::v1alpha1::WaitingNode;

    use super::*;

    #[test]
    fn a_policy_is_named_as_for_kubectl() {
        for text in ["policy/db", "networkpolicy/db", "netpol/db"] {
            assert_eq!(parse_policy(text).as_deref(), Ok("db"));
        }
        for text in ["db", "pod/db", "policy/", "/db"] {
            assert!(parse_policy(text).is_err(), "{text}");
        }
        assert_eq!(parse_time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_time("5m"), Ok(Duration::from_mins(5)));
        assert!(parse_time("-1s").is_err() && parse_time("soon").is_err());
    }

    #[test]
    fn who_is_waited_for_is_named_and_why() {
        let waiting = (0..22).map(|n| WaitingNode {
            node: format!("n{n}"),
            selects: n == 0,
            reason: "it is not ready".to_owned(),
        });
        let answer =
            WaitEnforcedResponse { enforced: false, generation: 2, nodes: 30, waiting: waiting.collect() };
        let text = missing(Some(&answer));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "8 of 30 nodes enforce generation 2");
        assert_eq!(lines[1], "  n0: it is not ready");
        assert_eq!(lines[2], "  n1, which has none of its pods: it is not ready");
        assert_eq!((lines.len(), lines[21]), (22, "  and 2 more"));
        assert!(missing(Some(&WaitEnforcedResponse::default())).starts_with("the cluster has no node"));
    }
}
