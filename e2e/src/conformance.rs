//! The upstream tests of NetworkPolicy, as Kubernetes runs them: built from its module, four processes at once, none of
//! them tried again.
//!
//! They run against clusters of this machine with an agent on every node, or against the one that KUBECONFIG names, as it
//! is. Without agents they say which of them show nothing.

mod results;
mod suite;
mod versions;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use results::{Results, Run};

use crate::cluster::Cluster;
use crate::flavour::{Families, Flavour, Network, Proxy};
use crate::programs::program;
use crate::progress::Progress;
use crate::target::Target;
use crate::{agent, binaries, places};

/// How many tests a whole run has. One that was interrupted has fewer.
const WHOLE: usize = 48;

/// Runs the upstream tests of NetworkPolicy and writes what came out to e2e/RESULTS.md.
///
/// With KUBECONFIG set they run against that cluster, in which Cellwall is installed already; this is written down only
/// under a name that --record gives.
#[derive(Debug, Parser)]
#[command(name = "conformance")]
pub struct Args {
    #[command(flatten)]
    flavour: Flavour,
    /// Run in all clusters that RESULTS.md has, one after the other: both networks, both proxies, and IPv6 first.
    #[arg(long)]
    all: bool,
    /// How many times in a row.
    #[arg(long, default_value_t = 1)]
    runs: u8,
    /// Without agents: which tests pass although nobody enforces anything?
    #[arg(long)]
    unenforced: bool,
    /// Only tests whose names match this regular expression; nothing is written down.
    #[arg(long)]
    focus: Option<String>,
    /// With KUBECONFIG: what to call the cluster in RESULTS.md.
    #[arg(long)]
    record: Option<String>,
}

/// Runs what is asked for; an error when a test fails.
pub fn run(args: &Args) -> Result<()> {
    let progress = Progress::default();
    binaries::build_suite(progress)?;
    if let Some(target) = Target::other()? {
        let name = args.record.clone().unwrap_or_else(|| "the cluster of KUBECONFIG".to_owned());
        return on(args, &target, &name, args.record.is_some(), progress);
    }
    ensure!(args.record.is_none(), "--record is for the cluster that KUBECONFIG names, and it is not set");
    let flavours = if args.all { all(args.flavour.nodes) } else { vec![args.flavour] };
    for flavour in flavours {
        let target = Target::start(&program("cluster")?, flavour, !args.unenforced)?;
        suite::name_images(target.own().expect("just made"))?;
        on(args, &target, &flavour.to_string(), true, progress)?;
    }
    Ok(())
}

fn all(nodes: u8) -> Vec<Flavour> {
    let dual = |network, proxy| Flavour { nodes, proxy, network, families: Families::Dual };
    vec![
        dual(Network::Routed, Proxy::Nftables),
        dual(Network::Routed, Proxy::Iptables),
        dual(Network::Bridge, Proxy::Nftables),
        dual(Network::Bridge, Proxy::Iptables),
        Flavour { families: Families::DualIpv6, ..dual(Network::Routed, Proxy::Nftables) },
    ]
}

fn on(args: &Args, target: &Target, name: &str, recorded: bool, progress: Progress) -> Result<()> {
    for number in 1..=args.runs {
        let folder = places::workspace()
            .join("target/conformance")
            .join(format!("{}-{number}", name.replace([',', ' ', '/'], "-").replace("--", "-")));
        prepare(&folder)?;
        progress.say(&format!("upstream's tests, {name}, {number} of {}", args.runs));
        let mut run = suite::run(target, args.focus.as_deref(), &folder, progress)?;
        name.clone_into(&mut run.cluster);
        if let Some(cluster) = target.own().filter(|_| !args.unenforced) {
            keep_agents(cluster, &folder)?;
        }
        run.enforced = !args.unenforced;
        run.number = number;
        progress.say(&run.summary());
        for failed in &run.failed {
            progress.say(&format!("  failed: {failed}"));
        }
        judge(&run, args, recorded)
            .with_context(|| format!("{name}; logs and report are in {}", folder.display()))?;
    }
    Ok(())
}

/// What the agents say in the end, and have said: their cluster goes.
fn keep_agents(cluster: &Cluster, folder: &Path) -> Result<()> {
    for node in cluster.nodes() {
        let status = agent::ask_on(cluster, node, "status")?;
        fs::write(folder.join(format!("{}.status", node.name())), format!("{status:#}\n"))
            .context("cannot write what an agent says")?;
        fs::copy(agent::log_of(cluster, node), folder.join(format!("{}.log", node.name())))
            .context("cannot keep an agent's log")?;
    }
    Ok(())
}

/// Writes down a whole run, and is an error when one with agents failed.
fn judge(run: &Run, args: &Args, recorded: bool) -> Result<()> {
    let ran = run.passed.len() + run.failed.len();
    ensure!(
        args.focus.is_some() || ran == WHOLE,
        "{ran} tests ran, and not {WHOLE}; nothing is written down"
    );
    if recorded && args.focus.is_none() {
        let mut results = Results::read()?;
        results.put(run.clone());
        results.write()?;
    }
    ensure!(ran > 0, "no test ran");
    ensure!(!run.enforced || run.failed.is_empty(), "{} tests failed", run.failed.len());
    // Otherwise somebody enforces, and what passes with agents shows nothing about them.
    ensure!(run.enforced || !run.failed.is_empty(), "without agents all tests passed");
    Ok(())
}

fn prepare(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}
