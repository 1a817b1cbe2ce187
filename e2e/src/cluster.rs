//! A running cluster, from the outside.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::flavour::Flavour;
use crate::node::{READY, STAY};
use crate::progress::Progress;
use crate::{binaries, places};

/// How long a cluster may take to go.
const FAREWELL: Duration = Duration::from_secs(30);

/// A cluster that ends with this value, or with this process, however it ends.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    /// Process 1 of the cluster, as this machine counts.
    init: u32,
    parent: Child,
    /// As long as this is open, the cluster lives.
    lease: Option<ChildStdin>,
}

impl Cluster {
    /// Starts a cluster and returns when pods can be made. `program` is the binary `cluster`, which it runs as its
    /// process 1.
    pub fn start(program: &Path, flavour: Flavour) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "a cluster needs root");
        let progress = Progress::default();
        binaries::build(progress)?;
        let up = places::root().join("up");
        fs::create_dir_all(&up).with_context(|| format!("cannot make {}", up.display()))?;
        // What is made here is removed by the cluster itself, when it ends.
        let folder = tempfile::Builder::new().prefix("cellwall-").tempdir_in(&up)?.keep();
        let name = folder.file_name().and_then(OsStr::to_str).expect("made of ASCII").to_owned();
        progress.say(&format!("cluster {name}"));

        fs::create_dir(folder.join("log")).context("cannot make the folder of logs")?;
        let log = File::create(folder.join("log/node.log")).context("cannot make the node's log")?;
        let mut command = Command::new("unshare");
        command.args([
            "--net",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        command
            .arg(program)
            .args(["node", &name])
            .args(flavour.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        // A cluster that stays must not hold the terminal, or a pipe that somebody reads to its end.
        command.stderr(log);
        // Ctrl-C goes to whoever started the cluster, and the cluster ends in order when that one is gone.
        let mut parent = command.process_group(0).spawn().context("cannot run unshare")?;
        let lease = parent.stdin.take();
        let said = parent.stdout.take().expect("it is piped");
        let mut cluster = Self { name, init: 0, parent, lease };
        for line in BufReader::new(said).lines() {
            let line = line.context("cannot read from the cluster")?;
            if line == READY {
                cluster.init = child_of(cluster.parent.id()).context("the cluster has no process 1")?;
                fs::write(folder.join("pid"), cluster.init.to_string())
                    .context("cannot write down the process")?;
                progress.say("pods can be made");
                return Ok(cluster);
            }
            progress.say(&line);
        }
        bail!("the cluster did not come up; its logs are in {}", folder.join("log").display())
    }

    /// Its name, which is also that of its folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        places::of(&self.name)
    }

    /// Lets it live on after this process.
    pub fn stay(mut self) -> Result<()> {
        let mut lease = self.lease.take().expect("it is only taken here and at the end");
        writeln!(lease, "{STAY}").context("the cluster has ended")
    }

    /// A command that runs on the node: in its network, its file systems and among its processes.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init.to_string(), "-m", "-u", "-i", "-n", "-p", "--"]).arg(program);
        command
    }

    /// A command of this machine that reaches the API server: only the network is the node's.
    pub fn outside(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init.to_string(), "-n", "--"]).arg(program);
        command
    }

    /// Runs kubectl with what is on its standard input; an error when it fails.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.outside(places::binary("kubectl"));
        command.arg("--kubeconfig").arg(self.folder().join("kubeconfig")).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot run kubectl")?;
        // What kubectl does not read it does not need.
        let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
        let output = child.wait_with_output().context("cannot wait for kubectl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {}", arguments.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `code` on a thread in the network of the node.
    pub fn on_node<T: Send>(&self, code: impl FnOnce() -> T + Send) -> Result<T> {
        let file = File::open(format!("/proc/{}/ns/net", self.init)).context("the node is gone")?;
        in_network(&file, code)
    }

    /// Runs `code` on a thread in the network of the pod that has this address.
    pub fn in_pod<T: Send>(&self, address: IpAddr, code: impl FnOnce() -> T + Send) -> Result<T> {
        let folder = PathBuf::from(format!("/proc/{}/root/run/netns", self.init));
        let networks = fs::read_dir(&folder).context("the node has no pods")?;
        let files = networks.flatten().filter_map(|entry| File::open(entry.path()).ok());
        // Only where the address is local can a socket be bound to it.
        let is_its =
            |file: &File| in_network(file, || UdpSocket::bind((address, 0)).is_ok()).unwrap_or(false);
        let mut files = files.filter(is_its);
        let file = files.next().with_context(|| format!("no pod of the node has {address}"))?;
        in_network(&file, code)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.init != 0 && self.lease.is_none() {
            return;
        }
        self.lease = None;
        let start = Instant::now();
        while let Ok(None) = self.parent.try_wait() {
            if start.elapsed() > FAREWELL {
                let _ = self.parent.kill();
                let _ = self.parent.wait();
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn in_network<T: Send>(network: &File, code: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(code())
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The first child of a process.
pub(crate) fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
