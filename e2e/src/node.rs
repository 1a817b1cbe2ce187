//! A node: process 1 of fresh network, mount, uts, ipc and process namespaces.
//!
//! The first node is the cluster's process 1. It makes the machine look like a node, starts Kubernetes in the order that
//! it needs, says `ready`, and from then on only collects dead children and waits for its end: the end of its standard
//! input (whoever started the cluster is gone), unless it has read `stay` there, or the removal of its folder.
//!
//! Every other node is a descendant of it in namespaces of its own ([`others`]), so the kernel ends them together.

mod config;
mod host;
pub mod layout;
mod network;
mod others;
mod services;

use std::fs;
use std::io::{BufRead, Write, stdin, stdout};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

pub(crate) use host::{cgroup, remove_cgroups};

use anyhow::{Context, Result, ensure};
use layout::{FIRST, Node};
use others::Other;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};

use crate::flavour::Flavour;
use crate::places;

/// What the harness writes when the cluster is to live on without it.
pub const STAY: &str = "stay";
/// What the node writes when the cluster can be used.
pub const READY: &str = "ready";

/// Options of unshare(1) for a node. When unshare ends, so does the node, and whatever is in its process namespace.
pub(crate) const NAMESPACES: [&str; 8] =
    ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Where containerd answers, inside a node.
pub const CONTAINERD: &str = config::CONTAINERD;
/// Where containerd has its CNI configuration, inside the node.
pub const CNI_CONF_DIR: &str = "/etc/cni/net.d";
/// Where it looks for plugins.
pub const CNI_BIN_DIR: &str = "/opt/cni/bin";
/// Name of the first node in Kubernetes.
pub const NAME: &str = "node-1";
/// Its IPv4 address.
pub const ADDRESS: &str = "172.30.0.11";
/// Its IPv6 address.
pub const ADDRESS6: &str = "fd00:30::11";
/// Addresses of a machine outside the cluster, which is the nodes' gateway.
pub const OUTSIDE: [&str; 2] = ["172.30.0.1", "fd00:30::1"];
/// What Services have addresses from.
const SERVICES: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];
/// The Service of the API server, and the one of a DNS server, which nobody runs.
const API_SERVICE: [&str; 2] = ["10.96.0.1", "fd00:10:96::1"];
const DNS_SERVICE: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];

/// Runs a node of the cluster `name` until the cluster ends. Everything in its process namespace ends with it.
pub fn run(name: &str, node: Node, flavour: Flavour) -> Result<()> {
    ensure!(getpid().is_init(), "`cluster node` is started by `cluster up`, in namespaces of its own");
    if node != FIRST {
        return others::run(name, node, flavour);
    }
    let orphaned = Arc::new(AtomicBool::new(false));
    watch_harness(orphaned.clone());

    let folder = places::of(name);
    // It is needed when the folder is gone.
    let cgroup = cgroup(&folder)?;
    // The other nodes last as long as this.
    let ended = start(name, flavour, &folder, &orphaned).map(|_others| {
        say(READY);
        while !orphaned.load(Ordering::Relaxed) && folder.exists() {
            collect();
            thread::sleep(Duration::from_millis(100));
        }
    });
    if let Err(error) = &ended {
        say(&format!("failed: {error:#}"));
    }
    end_all();
    remove_cgroups(&cgroup);
    if ended.is_ok() || orphaned.load(Ordering::Relaxed) {
        // Only the logs of a cluster that could not come up are worth keeping.
        let _ = fs::remove_dir_all(&folder);
    }
    Ok(())
}

fn start(name: &str, flavour: Flavour, folder: &Path, orphaned: &AtomicBool) -> Result<Vec<Other>> {
    // Before anything is mounted here: they are to see the machine's file systems and not ours.
    let mut others = Node::all(flavour.nodes)
        .skip(1)
        .map(|node| Other::start(name, node, flavour))
        .collect::<Result<Vec<Other>>>()?;
    host::become_node(folder, FIRST)?;
    let processes: Vec<u32> = others.iter().map(|other| other.init).collect();
    network::connect(&processes).context("cannot set up the network of the nodes")?;
    host::forward()?;
    config::keys(flavour, folder).context("cannot make certificates")?;
    config::write(FIRST, flavour, folder)?;
    for other in &mut others {
        other.go()?;
    }
    services::start(flavour, folder, orphaned, &mut others)?;
    Ok(others)
}

/// One line for whoever started us, who may be gone.
fn say(line: &str) {
    let _ = writeln!(stdout(), "{}", line.replace('\n', "\n  "));
}

/// Ends the cluster with the one who started it, unless that one says otherwise.
fn watch_harness(orphaned: Arc<AtomicBool>) {
    thread::spawn(move || {
        let mut line = String::new();
        let read = stdin().lock().read_line(&mut line);
        if read.is_err() || line.trim() != STAY {
            orphaned.store(true, Ordering::Relaxed);
        }
    });
}

/// Every orphan of the namespace becomes a child of process 1.
fn collect() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// Containers keep their cgroups busy until they are gone, so they go first and the cgroups after them.
fn end_all() {
    for _ in 0..100 {
        let processes = processes();
        for pid in &processes {
            let _ = kill_process(*pid, Signal::KILL);
        }
        collect();
        if processes.is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// All processes of this namespace but us.
fn processes() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Pid::from_raw).filter(|pid| !pid.is_init()).collect()
}
