//! The demo: what Cellwall is for, on one screen, with real packets and without a cluster.
//!
//! It runs in mount and process namespaces of its own, and its pods are namespaces without a name, so nothing is
//! left when it ends, however it ends. What it says it checks: it fails when a table is not as the policies mean.

mod agent;
mod matrix;
mod screen;
mod world;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

use agent::Agent;
use matrix::Matrix;
use screen::Screen;
use world::World;

use crate::heartbeat::Heartbeat;

/// The argument with which the demo runs itself in its own namespaces.
const INSIDE: &str = "inside";
/// How long a step may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// Who reaches whom under the policies of `examples/`: a row for each one that connects, a column for each port in
/// the order of `examples/pods.yaml`. Written by hand from the policies' text.
const MEANT: [(&str, &str); 6] = [
    ("shop/web", ".✓✗✗✓"),
    ("shop/api", "✓.✓✗✓"),
    ("shop/db", "✗✗..✗"),
    ("monitoring/prometheus", "✓✗✗✓."),
    (world::OUTSIDE, "✓✗✗✗✓"),
    (world::NODE, "✓✓✓✓✓"),
];

/// What the agent is asked, and what a reader may wonder about in the answer.
const ANSWERS: [(&str, &str); 3] = [
    (
        "endpoints",
        "out1 leads to the one outside the cluster: no pod is known there, so no policy applies to it.",
    ),
    ("policies", "PODS HERE: how many pods of this node each selects."),
    ("status", "Ready: everything is listed, applied, and on the interface of every pod."),
];

/// Moves into namespaces of its own and runs there.
pub fn main() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the demo makes namespaces and loads programs: it needs root"
    );
    if std::env::args().nth(1).as_deref() == Some(INSIDE) {
        end_on_interrupt()?;
        return run();
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    let error = unshare.arg(std::env::current_exe()?).arg(INSIDE).exec();
    Err(error).context("cannot run unshare (package util-linux)")
}

/// This is process 1 of its namespace: when it ends, the kernel ends the agent and all there is.
fn end_on_interrupt() -> Result<()> {
    // A process 1 for which nobody handles a signal does not get it.
    for (kind, code) in [(SignalKind::interrupt(), 130), (SignalKind::terminate(), 143)] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut signals = runtime.block_on(async { signal(kind) })?;
        std::thread::spawn(move || {
            if runtime.block_on(signals.recv()).is_some() {
                println!("\ninterrupted; nothing is left behind");
                std::process::exit(code);
            }
        });
    }
    Ok(())
}

fn run() -> Result<()> {
    let screen = Screen::default();
    let world = World::new().context("cannot set up the pods")?;
    screen.title("Cellwall: who may talk to whom, enforced on the node");
    screen::text(
        "Four pods on one node. Each is a network namespace behind a veth pair, as on a real node. The objects\n\
         are the manifests in examples/; the agent reads them from a folder instead of from an API server. All\n\
         packets are real: each cell below is a TCP connection over IPv4 and one over IPv6.",
    );
    let agent = Agent::start(&world)?;
    agent.until_ready(0, PATIENCE)?;

    no_policy(&screen, &world)?;
    policies(&screen, &world, &agent)?;
    edit(&screen, &world)?;
    answers(&screen, &agent)?;
    screen.title("Done. Everything it made is gone.");
    screen::text(
        "Next: the policies in examples/ can be edited; `make cluster` starts a real Kubernetes to try with.",
    );
    Ok(())
}

fn no_policy(screen: &Screen, world: &World) -> Result<()> {
    screen.step(1, "No policy: everybody reaches everybody");
    let matrix = Matrix::measure(world);
    screen::print(&matrix.table(screen));
    let open = matrix.rows().all(|(_, row)| !row.contains(['✗', '?']));
    ensure!(open, "without a policy every connection must succeed");
    Ok(())
}

fn policies(screen: &Screen, world: &World, agent: &Agent) -> Result<()> {
    let names = world.copy_policies()?;
    screen.step(2, &format!("{} policies are put into the folder", names.len()));
    for (file, says) in &names {
        screen::text(&format!("  {file:<25} {says}"));
    }
    agent.until_ready(names.len(), PATIENCE)?;
    let matrix = Matrix::measure(world);
    screen::print(&matrix.table(screen));
    screen::text(
        "A pod's own node always reaches it: that is how the kubelet probes. Dropped packets get no answer at all.",
    );
    for ((who, row), (name, meant)) in matrix.rows().zip(MEANT) {
        ensure!(who == name && row == meant, "the row of {who} is {row}, and the policies mean {meant}");
    }
    Ok(())
}

fn edit(screen: &Screen, world: &World) -> Result<()> {
    screen.step(3, "A policy is edited while a connection that it allows is open");
    let (from, to) = ("{app: api}", "{app: nobody}");
    let heartbeat = Heartbeat::over(world.connect("shop/api", "shop/db", "postgres")?)?;
    heartbeat.until_answered_after(Instant::now(), PATIENCE)?;
    screen::text("  shop/api is connected to shop/db:5432 and gets an answer every few milliseconds.");

    let saved = world.edit("policy-db.yaml", from, to)?;
    screen.change("policy-db.yaml", from, to);
    let cut = heartbeat.until_silent(saved, PATIENCE)?;
    screen.result(&format!(
        "the last answer came {} after the file was saved; since then the open connection is dead",
        millis(cut)
    ));

    let saved = world.edit("policy-db.yaml", to, from)?;
    screen.change("policy-db.yaml", to, from);
    let (fresh, same) = std::thread::scope(|scope| {
        let fresh = scope.spawn(|| world.connects_after(saved, "shop/api", "shop/db", "postgres", PATIENCE));
        let same = heartbeat.until_answered_after(saved, PATIENCE);
        (fresh.join().expect("no panic while connecting"), same)
    });
    screen.result(&format!("a new connection succeeded after {}", millis(fresh?)));
    screen.result(&format!("the old connection went on after {}: TCP had kept trying", millis(same?)));
    Ok(())
}

fn answers(screen: &Screen, agent: &Agent) -> Result<()> {
    screen.step(4, "The agent is asked, over gRPC on its unix socket");
    for (command, note) in ANSWERS {
        screen.command(&format!("cellwall {command}"));
        screen::indented(&agent.ask(&[command])?);
        screen.note(note);
    }
    Ok(())
}

fn millis(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}
