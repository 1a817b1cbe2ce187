//! The command `cluster`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use clap::{Parser, Subcommand};

use crate::cluster::{Cluster, has_arguments};
use crate::flavour::Flavour;
use crate::node::layout::Node;
use crate::progress::Progress;
use crate::{binaries, node, places};

/// A Kubernetes cluster on this machine, for tests and for trying things out.
///
/// It is one process tree in namespaces of its own; nothing of this machine is changed, and nothing is left.
#[derive(Debug, Parser)]
#[command(name = "cluster")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build Kubernetes and etcd from their Go modules; quick when that is done.
    Build,
    /// Start a cluster that stays until `down`, unless it is up.
    Up {
        /// Its name; clusters with different names stand side by side.
        #[arg(long, default_value = "cellwall-default", value_parser = named)]
        name: String,
        #[command(flatten)]
        flavour: Flavour,
    },
    /// Remove the clusters that are up, or one of them, and what is left of those that died.
    Down {
        /// Its name, as `status` prints it.
        name: Option<String>,
    },
    /// List the clusters that are up.
    Status,
    /// Print what makes a shell use the cluster: eval "$(cluster env)"
    Env {
        /// Its name; needed when several are up.
        name: Option<String>,
    },
    /// Process 1 of a node.
    #[command(hide = true)]
    Node {
        /// The cluster.
        name: String,
        /// Which of its nodes.
        #[arg(long, default_value_t = 1)]
        number: u8,
        #[command(flatten)]
        flavour: Flavour,
    },
}

/// Runs one command.
pub fn run(args: Args) -> Result<()> {
    match args.verb {
        Verb::Build => binaries::build(Progress::default()),
        Verb::Up { name, flavour } => up(&name, flavour),
        Verb::Down { name } => down(name),
        Verb::Status => status(),
        Verb::Env { name } => env(name),
        Verb::Node { name, number, flavour } => node::run(&name, Node(number), flavour),
    }
}

/// All clusters are called cellwall-something, so that everything of theirs can be told.
fn named(text: &str) -> Result<String, String> {
    let text = text.strip_prefix("cellwall-").unwrap_or(text);
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 30 || !text.chars().all(fits) {
        return Err("a name has up to 30 small letters, digits and hyphens".to_owned());
    }
    Ok(format!("cellwall-{text}"))
}

fn up(wanted: &str, flavour: Flavour) -> Result<()> {
    let folder = places::of(wanted);
    if is_up(&folder) {
        let is = fs::read_to_string(folder.join("flavour")).context("the cluster is just starting")?;
        ensure!(
            is == flavour.to_string(),
            "{wanted} is up and another one ({is}); remove it or name another"
        );
        println!("{wanted} is up");
        return Ok(());
    }
    sweep()?;
    let cluster = Cluster::start_as(Some(wanted), &std::env::current_exe()?, flavour)?;
    write_commands(&cluster).context("cannot write the cluster's commands")?;
    fs::write(folder.join("flavour"), flavour.to_string()).context("cannot write down what it is")?;
    cluster.stay()?;
    println!("{wanted} is up. Use it with: export PATH={}:$PATH", folder.join("bin").display());
    println!(
        "Then `kubectl` asks it, `on-node-1 COMMAND` runs a command on its first node; `make cluster-down` removes it."
    );
    Ok(())
}

/// `kubectl` for a shell outside, `in-cluster` for what else asks the API server, and `on-node-1` and so on.
fn write_commands(cluster: &Cluster) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let folder = cluster.folder();
    fs::create_dir_all(folder.join("bin"))?;
    let write = |command: &str, what: &Command| -> Result<()> {
        let path = folder.join("bin").join(command);
        let words: Vec<_> =
            [what.get_program()].into_iter().chain(what.get_args()).map(|w| w.to_string_lossy()).collect();
        fs::write(&path, format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")))?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?)
    };
    let mut kubectl = cluster.outside(places::binary("kubectl"));
    kubectl.arg("--kubeconfig").arg(folder.join("kubeconfig"));
    write("kubectl", &kubectl)?;
    let mut any = cluster.outside("env");
    any.arg(format!("KUBECONFIG={}", folder.join("kubeconfig").display()));
    write("in-cluster", &any)?;
    cluster
        .nodes()
        .try_for_each(|node| write(&format!("on-{}", node.name()), &cluster.command_on(node, "env")))
}

fn down(wanted: Option<String>) -> Result<()> {
    let folders = match wanted {
        Some(name) => vec![find(&name)?],
        None => running()?,
    };
    if folders.is_empty() {
        println!("no cluster is up");
    }
    for folder in folders {
        let pid = starter(&folder);
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        while pid.is_some_and(|pid| has_arguments(pid, &[name(&folder)])) {
            thread::sleep(Duration::from_millis(50));
        }
        println!("{} is removed", name(&folder));
    }
    sweep()
}

/// Removes what is left of clusters that ended without an end: a machine that was switched off, a process 1 that was killed.
fn sweep() -> Result<()> {
    for folder in folders()? {
        if starter(&folder).is_some() && !is_up(&folder) {
            node::remove_cgroups(&node::cgroup(&folder)?);
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    Ok(())
}

fn status() -> Result<()> {
    let folders = running()?;
    if folders.is_empty() {
        println!("no cluster is up");
    }
    for folder in folders {
        println!("{}", name(&folder));
        Command::new(folder.join("bin/kubectl")).args(["get", "nodes", "-o", "wide"]).status()?;
    }
    Ok(())
}

fn env(wanted: Option<String>) -> Result<()> {
    let folder = match (wanted, running()?.as_slice()) {
        (Some(name), _) => find(&name)?,
        (None, [one]) => one.clone(),
        (None, []) => bail!("no cluster is up; start one with: make cluster"),
        (None, _) => bail!("several clusters are up; name one of those that `cluster status` lists"),
    };
    println!("export PATH={}:$PATH", folder.join("bin").display());
    Ok(())
}

/// The folders of the clusters that live.
fn running() -> Result<Vec<PathBuf>> {
    let mut folders = folders()?;
    folders.retain(|folder| is_up(folder));
    folders.sort();
    Ok(folders)
}

/// The folders of all clusters. Of those that do not live, only logs are left.
fn folders() -> Result<Vec<PathBuf>> {
    let up = places::root().join("up");
    if !up.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(&up).with_context(|| format!("cannot read {}", up.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

fn find(wanted: &str) -> Result<PathBuf> {
    let wanted = named(wanted).map_err(Error::msg)?;
    let found = running()?.into_iter().find(|folder| name(folder) == wanted);
    found.with_context(|| format!("no cluster {wanted} is up"))
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Who started it, in the sense of unshare(1). A folder without one belongs to a cluster that begins just now.
fn starter(folder: &Path) -> Option<u32> {
    fs::read_to_string(folder.join("starter")).ok()?.parse().ok()
}

/// Process ids are used again: the one meant has the cluster's name on its command line.
fn is_up(folder: &Path) -> bool {
    starter(folder).is_some_and(|pid| has_arguments(pid, &[name(folder)]))
}
