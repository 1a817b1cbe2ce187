//! A running cluster, from the outside.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cellwall_testkit::net::Namespace;

use crate::flavour::Flavour;
use crate::node::layout::{FIRST, Node};
use crate::node::{NAMESPACES, READY, STAY};
use crate::progress::Progress;
use crate::{binaries, places};

/// How long a cluster may take to go.
const FAREWELL: Duration = Duration::from_secs(30);

/// A cluster that ends with this value, or with this process, however it ends.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    /// Process 1 of each node, as this machine counts.
    inits: Vec<u32>,
    parent: Child,
    /// As long as this is open, the cluster lives.
    lease: Option<ChildStdin>,
}

impl Cluster {
    /// Starts a cluster and returns when pods can be made. `program` is the binary `cluster`, which it runs as its
    /// process 1.
    pub fn start(program: &Path, flavour: Flavour) -> Result<Self> {
        Self::start_as(None, program, flavour)
    }

    /// The same, with a name of the caller's choice.
    pub(crate) fn start_as(name: Option<&str>, program: &Path, flavour: Flavour) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "a cluster needs root");
        let progress = Progress::default();
        binaries::build(progress)?;
        let folder = make_folder(name)?;
        let name = folder.file_name().and_then(OsStr::to_str).expect("made of ASCII").to_owned();
        progress.say(&format!("cluster {name}: {flavour}"));

        fs::create_dir(folder.join("log")).context("cannot make the folder of logs")?;
        let log = File::create(folder.join("log/node.log")).context("cannot make the node's log")?;
        let mut command = Command::new("unshare");
        command.args(NAMESPACES).arg(program).args(["node", &name]).args(flavour.arguments());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // A cluster that stays must not hold the terminal, or a pipe that somebody reads to its end.
        command.stderr(log);
        // Ctrl-C goes to whoever started the cluster, and the cluster ends in order when that one is gone.
        let mut parent = command.process_group(0).spawn().context("cannot run unshare")?;
        fs::write(folder.join("starter"), parent.id().to_string())
            .context("cannot write down the process")?;
        let lease = parent.stdin.take();
        let said = parent.stdout.take().expect("it is piped");
        let mut cluster = Self { name, inits: Vec::new(), parent, lease };
        for line in BufReader::new(said).lines() {
            let line = line.context("cannot read from the cluster")?;
            if line == READY {
                cluster.inits = cluster.find_inits(flavour.nodes)?;
                let pids: Vec<String> = cluster.inits.iter().map(u32::to_string).collect();
                fs::write(folder.join("pids"), pids.join("\n")).context("cannot write down the processes")?;
                progress.say("pods can be made");
                return Ok(cluster);
            }
            progress.say(&line);
        }
        bail!("the cluster did not come up; its logs are in {}", folder.join("log").display())
    }

    /// Process 1 of each node. Those of the others are children of their unshare, which is a child of the first one.
    fn find_inits(&self, count: u8) -> Result<Vec<u32>> {
        let first = child_of(self.parent.id()).context("the cluster has no process 1")?;
        let candidates: Vec<u32> = children_of(first).into_iter().filter_map(child_of).collect();
        let mut inits = vec![first];
        for node in Node::all(count).skip(1) {
            let arguments = [self.name.clone(), "--number".to_owned(), node.0.to_string()];
            let found = candidates.iter().find(|pid| has_arguments(**pid, &arguments));
            inits.push(*found.with_context(|| format!("{} has no process", node.name()))?);
        }
        Ok(inits)
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

    /// Its nodes.
    pub fn nodes(&self) -> impl Iterator<Item = Node> + use<> {
        Node::all(u8::try_from(self.inits.len()).expect("a flavour has fewer"))
    }

    /// A command that runs on the first node: in its network, its file systems and among its processes.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.command_on(FIRST, program)
    }

    /// A command that runs on a node.
    pub fn command_on(&self, node: Node, program: impl AsRef<OsStr>) -> Command {
        let init = self.inits[usize::from(node.0) - 1];
        let mut command = Command::new("nsenter");
        command.args(["-t", &init.to_string(), "-m", "-u", "-i", "-n", "-p", "--"]).arg(program);
        command
    }

    /// A command of this machine that reaches the API server: only the network is the first node's.
    pub fn outside(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.inits[0].to_string(), "-n", "--"]).arg(program);
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

    /// Runs `code` on a thread in the network of the first node.
    pub fn on_node<T: Send>(&self, code: impl FnOnce() -> T + Send) -> Result<T> {
        let node = Namespace::open(format!("/proc/{}/ns/net", self.inits[0]));
        node.and_then(|node| node.try_run(code)).context("the node is gone")
    }

    /// Runs `code` on a thread in the network of the pod that has this address.
    pub fn in_pod<T: Send>(&self, address: IpAddr, code: impl FnOnce() -> T + Send) -> Result<T> {
        self.pod(address)?.try_run(code).context("the pod is gone")
    }

    /// The network of the pod that has this address.
    pub fn pod(&self, address: IpAddr) -> Result<Namespace> {
        let folders = self.inits.iter().map(|init| format!("/proc/{init}/root/run/netns"));
        let files = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        let mut networks = files.filter_map(|file| Namespace::open(file.path()).ok());
        // Only where the address is local can a socket be bound to it.
        let is_its =
            |network: &Namespace| network.try_run(|| UdpSocket::bind((address, 0)).is_ok()).unwrap_or(false);
        networks.find(is_its).with_context(|| format!("no pod has {address}"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.inits.is_empty() && self.lease.is_none() {
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

/// The folder of a cluster. What is made here is removed by the cluster itself, when it ends.
fn make_folder(name: Option<&str>) -> Result<PathBuf> {
    let up = places::root().join("up");
    fs::create_dir_all(&up).with_context(|| format!("cannot make {}", up.display()))?;
    let Some(name) = name else {
        return Ok(tempfile::Builder::new().prefix("cellwall-").tempdir_in(&up)?.keep());
    };
    let folder = places::of(name);
    fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// The first child of a process.
pub(crate) fn child_of(pid: u32) -> Option<u32> {
    children_of(pid).first().copied()
}

/// What the first thread of a process has started.
fn children_of(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// Whether these stand on the command line of a process, in this order and side by side.
pub(crate) fn has_arguments<T: AsRef<[u8]>>(pid: u32, wanted: &[T]) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    arguments.windows(wanted.len()).any(|some| some.iter().zip(wanted).all(|(one, two)| *one == two.as_ref()))
}
