//! The nodes beside the first one, from both ends: how the first one starts them, and what they run.

use std::io::{BufRead, BufReader, Write, stdin};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::layout::Node;
use super::{NAMESPACES, collect, config, end_all, host, say, services, watch_harness};
use crate::cluster::child_of;
use crate::flavour::Flavour;
use crate::places;

/// What such a node says when its namespaces are there.
const HERE: &str = "here";
/// What it is told when they are connected and its keys are written.
const GO: &str = "go";

/// A node beside the first one. It ends with the process that started it.
pub(super) struct Other {
    pub(super) node: Node,
    /// Its process 1, as the first node counts.
    pub(super) init: u32,
    /// unshare, whose child that is.
    pub(super) parent: Child,
    lease: ChildStdin,
    said: Option<BufReader<ChildStdout>>,
}

impl Other {
    pub(super) fn start(name: &str, node: Node, flavour: Flavour) -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(NAMESPACES).arg(std::env::current_exe()?).args(["node", name]);
        command.args(["--number", &node.0.to_string()]).args(flavour.arguments());
        let mut parent =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot run unshare")?;
        let lease = parent.stdin.take().expect("it is piped");
        let mut said = BufReader::new(parent.stdout.take().expect("it is piped"));
        let mut line = String::new();
        said.read_line(&mut line).with_context(|| format!("cannot read from {}", node.name()))?;
        ensure!(line.trim() == HERE, "{} did not start: {line}", node.name());
        let init = child_of(parent.id()).with_context(|| format!("{} has no process 1", node.name()))?;
        Ok(Self { node, init, parent, lease, said: Some(said) })
    }

    /// Lets it start its kubelet and hands on what it says.
    pub(super) fn go(&mut self) -> Result<()> {
        writeln!(self.lease, "{GO}").with_context(|| format!("{} has ended", self.node.name()))?;
        let (said, name) = (self.said.take().expect("it is told once"), self.node.name());
        thread::spawn(move || {
            said.lines().map_while(Result::ok).for_each(|line| say(&format!("{name}: {line}")));
        });
        Ok(())
    }
}

/// Runs such a node until the first one ends.
pub(super) fn run(name: &str, node: Node, flavour: Flavour) -> Result<()> {
    say(HERE);
    let mut line = String::new();
    stdin().lock().read_line(&mut line).context("cannot read from the first node")?;
    ensure!(line.trim() == GO, "the cluster has ended");
    let orphaned = Arc::new(AtomicBool::new(false));
    watch_harness(orphaned.clone());

    let started = start(name, node, flavour, &orphaned);
    if let Err(error) = &started {
        say(&format!("failed: {error:#}"));
    }
    while started.is_ok() && !orphaned.load(Ordering::Relaxed) {
        collect();
        thread::sleep(Duration::from_millis(100));
    }
    end_all();
    Ok(())
}

fn start(name: &str, node: Node, flavour: Flavour, orphaned: &AtomicBool) -> Result<()> {
    let folder = places::of(name);
    host::become_node(&folder, node)?;
    host::forward()?;
    config::write(node, flavour, &folder)?;
    services::join(node, flavour, &folder, orphaned)
}
