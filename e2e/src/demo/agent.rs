//! The agent of the demo, and the questions it is asked.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cellwall_testkit::net::Process;
use rustix::mount::{MountFlags, mount};
use serde_json::Value;

use super::world::{SCRATCH, World};
use crate::programs::program;

pub(super) struct Agent {
    cellwall: PathBuf,
    log: PathBuf,
    _process: Process,
}

impl Agent {
    /// Starts it in the node's network, with a BPF file system of its own.
    pub(super) fn start(world: &World) -> Result<Self> {
        let scratch = Path::new(SCRATCH);
        let (bpffs, log) = (scratch.join("bpf"), scratch.join("agent.log"));
        fs::create_dir(&bpffs)?;
        mount("bpf", &bpffs, "bpf", MountFlags::empty(), None).context("cannot mount a BPF file system")?;
        let mut command = Command::new(program("cellwall-agent")?);
        command.args(["--node-name", "demo", "--source", &format!("dir:{}", world.folder.display())]);
        command.arg("--bpffs").arg(&bpffs).arg("--socket").arg(socket());
        let file = File::create(&log)?;
        let process = world.net.host.spawn(command.stdout(file.try_clone()?).stderr(file));
        let process = process.context("cannot start cellwall-agent")?;
        Ok(Self { cellwall: program("cellwall")?, log, _process: process })
    }

    /// Waits until what is wanted, with so many policies, is in force.
    pub(super) fn until_ready(&self, policies: usize, patience: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            let output = self.run(&["status", "-o", "json"])?;
            let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            // JSON of protocol buffers leaves out what is zero.
            let known = status["policyCount"].as_u64().unwrap_or(0);
            if output.status.success() && known == policies as u64 {
                return Ok(());
            }
            if start.elapsed() > patience {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("not ready within {patience:?}: {status:#}\nthe agent said:\n{log}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What `cellwall` prints.
    pub(super) fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cellwall {}: {}", arguments.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.cellwall);
        command.arg("--socket").arg(socket()).args(arguments).output().context("cannot run cellwall")
    }
}

fn socket() -> PathBuf {
    Path::new(SCRATCH).join("cellwall/agent.sock")
}
