//! The cluster that is tested: one of this machine, or the one that KUBECONFIG names.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::agent::Agent;
use crate::cluster::Cluster;
use crate::flavour::Flavour;
use crate::image::AGNHOST;
use crate::places;

/// How long agents may take to become ready. Machines are shared.
const PATIENCE: Duration = Duration::from_mins(2);

/// The cluster that is tested.
#[derive(Debug)]
pub struct Target {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    /// They end before the cluster does.
    agents: Vec<Agent>,
    own: Option<Cluster>,
}

impl Target {
    /// The one that KUBECONFIG names, if it does. It is taken as it is: with Cellwall in it.
    pub fn other() -> Result<Option<Self>> {
        let path = std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty());
        let Some(path) = path.map(PathBuf::from) else { return Ok(None) };
        ensure!(path.exists(), "KUBECONFIG names {}, which is not there", path.display());
        let kubeconfig = std::path::absolute(path)?;
        Ok(Some(Self { kubeconfig, kubectl: "kubectl".into(), agents: Vec::new(), own: None }))
    }

    /// A new cluster of this machine; enforced with an agent on every node, or not.
    pub fn start(program: &Path, flavour: Flavour, enforced: bool) -> Result<Self> {
        let cluster = Cluster::start(program, flavour)?;
        let agents = if enforced { Agent::start_everywhere(&cluster, PATIENCE)? } else { Vec::new() };
        let kubeconfig = cluster.folder().join("kubeconfig");
        Ok(Self { kubeconfig, kubectl: places::binary("kubectl"), agents, own: Some(cluster) })
    }

    /// The cluster of this machine, if it is one.
    pub fn own(&self) -> Option<&Cluster> {
        self.own.as_ref()
    }

    /// The agents on its nodes, in their order, where this machine has them.
    pub fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// Where its kubeconfig lies.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A command from which the API server is reached.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.own {
            Some(cluster) => cluster.outside(program),
            None => Command::new(program),
        }
    }

    /// Runs kubectl with what is on its standard input; an error when it fails.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.command(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot run kubectl")?;
        // What kubectl does not read it does not need.
        let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
        let output = child.wait_with_output().context("cannot wait for kubectl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {}", arguments.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The image of the tests' pods: of the clusters here, or what CELLWALL_AGNHOST says the other cluster has.
pub fn agnhost() -> String {
    std::env::var("CELLWALL_AGNHOST").unwrap_or_else(|_| AGNHOST.to_owned())
}

/// Why a test that looks below the nodes of a cluster cannot be run.
pub fn why_not_below() -> Option<&'static str> {
    if std::env::var_os("KUBECONFIG").is_some_and(|path| !path.is_empty()) {
        return Some("KUBECONFIG names a cluster, and this test is at home on the nodes of one of its own");
    }
    (!rustix::process::geteuid().is_root()).then_some("a cluster needs root")
}
