//! The agents on the nodes of a cluster, and the questions it is asked.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cluster::{Cluster, child_of};
use crate::node::layout::{FIRST, Node};
use crate::places;
use crate::programs::program;

/// Where it answers, in the node's file systems.
const SOCKET: &str = "/run/cellwall/agent.sock";

/// A running agent. It ends with this value.
#[derive(Debug)]
pub struct Agent {
    /// `nsenter`, whose child is the agent.
    parent: Child,
}

impl Agent {
    /// Starts it on the first node.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        Self::start_on(cluster, FIRST)
    }

    /// The same with more arguments.
    pub fn start_with(cluster: &Cluster, more: &[&str]) -> Result<Self> {
        Self::start_on_with(cluster, FIRST, more)
    }

    /// Starts it on a node.
    pub fn start_on(cluster: &Cluster, node: Node) -> Result<Self> {
        Self::start_on_with(cluster, node, &[])
    }

    /// Starts it on a node, with the cluster's own kubeconfig and more arguments. Its log is with those of the cluster.
    pub fn start_on_with(cluster: &Cluster, node: Node, more: &[&str]) -> Result<Self> {
        let log = log_of(cluster, node);
        let log =
            OpenOptions::new().create(true).append(true).open(log).context("cannot open the agent's log")?;
        let mut command = cluster.command_on(node, program("cellwall-agent")?);
        command.args(["--node-name", &node.name(), "--socket", SOCKET, "--kubeconfig"]);
        command.arg(cluster.folder().join("kubeconfig")).args(more);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let parent = command.spawn().context("cannot start cellwall-agent")?;
        Ok(Self { parent })
    }

    /// Starts one on every node and returns when all are ready. They say what they enforce, as with the chart.
    pub fn start_everywhere(cluster: &Cluster, patience: Duration) -> Result<Vec<Self>> {
        let resource = places::workspace().join("deploy/helm/cellwall/files/cellwallnodes.yaml");
        let resource = std::fs::read_to_string(resource).context("cannot read the chart's resource")?;
        cluster.kubectl(&["apply", "-f", "-"], &resource)?;
        let agents =
            cluster.nodes().map(|node| Self::start_on(cluster, node)).collect::<Result<Vec<Self>>>()?;
        for node in cluster.nodes() {
            until_on(cluster, node, "status", patience, |status| status["ready"] == true)?;
        }
        Ok(agents)
    }

    /// Stops it where it is, as a machine without time for it would, or lets it go on.
    pub fn halt(&self, halted: bool) -> Result<()> {
        let agent = self.process().context("the agent has ended")?;
        let signal = if halted { Signal::STOP } else { Signal::CONT };
        kill_process(agent, signal).context("cannot signal the agent")?;
        // `nsenter` stops itself when its child is stopped, and does not go on with it.
        let parent = Pid::from_child(&self.parent);
        if halted { Ok(()) } else { kill_process(parent, signal).context("cannot signal nsenter") }
    }

    fn process(&self) -> Option<Pid> {
        child_of(self.parent.id()).and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
    }

    /// Ends it at once, as a crash would.
    pub fn kill(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        // With nsenter alone killed the agent would go on.
        if let Some(agent) = self.process() {
            kill_process(agent, Signal::KILL).context("cannot kill the agent")?;
        }
        self.parent.wait().context("cannot wait for the agent")?;
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // After `kill` there is nothing left to do.
        if let Ok(None) = self.parent.try_wait() {
            let _ = self.end();
        }
    }
}

/// What `cellwall` answers on the first node, as JSON.
pub fn ask(cluster: &Cluster, question: &str) -> Result<Value> {
    ask_on(cluster, FIRST, question)
}

/// What `cellwall` answers on a node, as JSON.
pub fn ask_on(cluster: &Cluster, node: Node, question: &str) -> Result<Value> {
    let output = cellwall(cluster, node, question)?;
    let said = String::from_utf8_lossy(&output.stderr);
    // 3 is the answer of a node that is not ready.
    ensure!(matches!(output.status.code(), Some(0 | 3)), "cellwall {question}: {}", said.trim());
    serde_json::from_slice(&output.stdout).with_context(|| format!("cellwall {question} printed no JSON"))
}

/// Asks on the first node until the answer is as `wanted`.
pub fn until(
    cluster: &Cluster,
    question: &str,
    patience: Duration,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Value> {
    until_on(cluster, FIRST, question, patience, wanted)
}

/// Asks on a node until the answer is as `wanted`.
pub fn until_on(
    cluster: &Cluster,
    node: Node,
    question: &str,
    patience: Duration,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let start = Instant::now();
    loop {
        let answer = ask_on(cluster, node, question);
        match answer {
            Ok(answer) if wanted(&answer) => return Ok(answer),
            Ok(answer) if start.elapsed() > patience => {
                let log = log(cluster, node);
                bail!("not within {patience:?}; cellwall {question} says {answer:#}\n{log}")
            }
            Err(error) if start.elapsed() > patience => {
                return Err(error.context(format!("the agent does not answer\n{}", log(cluster, node))));
            }
            _ => thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn cellwall(cluster: &Cluster, node: Node, question: &str) -> Result<Output> {
    let mut command = cluster.command_on(node, program("cellwall")?);
    command.args(["--socket", SOCKET, "-o", "json"]).args(question.split(' '));
    command.output().context("cannot run cellwall")
}

/// The log of a node's agent; that of the first one lies with those of the control plane.
pub fn log_of(cluster: &Cluster, node: Node) -> PathBuf {
    let logs = cluster.folder().join("log");
    let logs = if node == FIRST { logs } else { logs.join(node.name()) };
    logs.join("cellwall-agent.log")
}

fn log(cluster: &Cluster, node: Node) -> String {
    let text = std::fs::read_to_string(log_of(cluster, node)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("the end of the agent's log:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
}
