//! The command `cluster`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use crate::cluster::Cluster;
use crate::flavour::Flavour;
use crate::progress::Progress;
use crate::{binaries, node, places};

/// A Kubernetes cluster of one node on this machine, for tests and for trying things out.
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
    /// Start a cluster that stays until `down`, unless one is up.
    Up {
        #[command(flatten)]
        flavour: Flavour,
    },
    /// Remove the clusters that are up, or one of them.
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
    /// Process 1 of a cluster.
    #[command(hide = true)]
    Node {
        /// The cluster.
        name: String,
        #[command(flatten)]
        flavour: Flavour,
    },
}

/// Runs one command.
pub fn run(args: Args) -> Result<()> {
    match args.verb {
        Verb::Build => binaries::build(Progress::default()),
        Verb::Up { flavour } => up(flavour),
        Verb::Down { name } => down(name),
        Verb::Status => status(),
        Verb::Env { name } => env(name),
        Verb::Node { name, flavour } => node::run(&name, flavour),
    }
}

fn up(flavour: Flavour) -> Result<()> {
    if let Some(folder) = running()?.first() {
        println!("{} is up", name(folder));
        return Ok(());
    }
    let cluster = Cluster::start(&std::env::current_exe()?, flavour)?;
    let folder = cluster.folder();
    write_commands(&folder).context("cannot write the cluster's commands")?;
    let started = cluster.name().to_owned();
    cluster.stay()?;
    println!("{started} is up. Use it with: export PATH={}:$PATH", folder.join("bin").display());
    println!(
        "Then `kubectl` asks it, `on-node COMMAND` runs a command on its node; `make cluster-down` removes it."
    );
    Ok(())
}

/// `kubectl` and `on-node` for a shell outside.
fn write_commands(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let pid = fs::read_to_string(folder.join("pid"))?;
    let kubectl = places::binary("kubectl");
    let kubeconfig = folder.join("kubeconfig");
    let ask = format!("-n -- {} --kubeconfig {}", kubectl.display(), kubeconfig.display());
    fs::create_dir_all(folder.join("bin"))?;
    for (command, what) in [("kubectl", ask.as_str()), ("on-node", "-m -u -i -n -p --")] {
        let path = folder.join("bin").join(command);
        fs::write(&path, format!("#!/bin/sh\nexec nsenter -t {pid} {what} \"$@\"\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
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
        let pid = pid(&folder);
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        while pid.is_some_and(|pid| is_node(pid, &name(&folder))) {
            thread::sleep(Duration::from_millis(50));
        }
        println!("{} is removed", name(&folder));
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

/// The folders of the clusters that live. Of those that do not, only logs are left.
fn running() -> Result<Vec<PathBuf>> {
    let up = places::root().join("up");
    if !up.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(&up).with_context(|| format!("cannot read {}", up.display()))?;
    let folders = entries.flatten().map(|entry| entry.path());
    let mut folders: Vec<PathBuf> =
        folders.filter(|folder| pid(folder).is_some_and(|pid| is_node(pid, &name(folder)))).collect();
    folders.sort();
    Ok(folders)
}

fn find(wanted: &str) -> Result<PathBuf> {
    let found = running()?.into_iter().find(|folder| name(folder) == wanted);
    found.with_context(|| format!("no cluster {wanted} is up"))
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn pid(folder: &Path) -> Option<u32> {
    fs::read_to_string(folder.join("pid")).ok()?.parse().ok()
}

/// Process ids are used again: the one meant has the cluster's name on its command line.
fn is_node(pid: u32, name: &str) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|argument| argument == name.as_bytes())
}
