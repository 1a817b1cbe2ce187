//! The node: process 1 of a cluster, in fresh network, mount, uts, ipc and process namespaces.
//!
//! It makes the machine look like a node, starts Kubernetes in the order that it needs, says `ready`, and from then
//! on only collects dead children and waits for its end: the end of its standard input (whoever started the cluster
//! is gone), unless it has read `stay` there, or the removal of its folder.

mod config;
mod host;
mod services;

use std::fs;
use std::io::{BufRead, Write, stdin, stdout};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};

use crate::flavour::Flavour;
use crate::places;

/// What the harness writes when the cluster is to live on without it.
pub const STAY: &str = "stay";
/// What the node writes when the cluster can be used.
pub const READY: &str = "ready";

/// Where containerd answers, inside the node.
pub const CONTAINERD: &str = config::CONTAINERD;
/// Where containerd has its CNI configuration, inside the node.
pub const CNI_CONF_DIR: &str = "/etc/cni/net.d";
/// Where it looks for plugins.
pub const CNI_BIN_DIR: &str = "/opt/cni/bin";
/// Name of the node in Kubernetes.
pub const NAME: &str = "node";
/// Its IPv4 address.
pub const ADDRESS: &str = "172.30.0.11";
/// Its IPv6 address.
pub const ADDRESS6: &str = "fd00:30::11";
/// Where the API server answers, inside the node's network.
pub const SERVER: &str = "https://172.30.0.11:6443";
/// Addresses of a machine outside the cluster, which is the node's gateway.
pub const OUTSIDE: [&str; 2] = ["172.30.0.1", "fd00:30::1"];
/// What pods have addresses from.
pub const PODS: [&str; 2] = ["10.244.0.0/24", "fd00:10:244::/64"];
/// What Services have addresses from.
const SERVICES: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];

/// Runs the node of the cluster `name` until the cluster ends. Everything in its process namespace ends with it.
pub fn run(name: &str, flavour: Flavour) -> Result<()> {
    ensure!(getpid().is_init(), "`cluster node` is started by `cluster up`, in namespaces of its own");
    let orphaned = Arc::new(AtomicBool::new(false));
    watch_harness(orphaned.clone());

    let folder = places::of(name);
    let ended = start(name, flavour, &folder, &orphaned).map(|()| {
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
    host::remove_cgroups(name);
    if ended.is_ok() || orphaned.load(Ordering::Relaxed) {
        // Only the logs of a cluster that could not come up are worth keeping.
        let _ = fs::remove_dir_all(&folder);
    }
    Ok(())
}

fn start(name: &str, flavour: Flavour, folder: &Path, orphaned: &AtomicBool) -> Result<()> {
    host::become_node(name)?;
    config::write(name, flavour, folder)?;
    services::start(folder, orphaned)
}

/// One line for whoever started us, who may be gone.
fn say(line: &str) {
    let _ = writeln!(stdout(), "{}", line.replace('\n', "\n  "));
}

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
        let others = others();
        for pid in &others {
            let _ = kill_process(*pid, Signal::KILL);
        }
        collect();
        if others.is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// All processes of this namespace but us.
fn others() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Pid::from_raw).filter(|pid| !pid.is_init()).collect()
}
