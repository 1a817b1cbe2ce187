//! The chart on a cluster, with the image that `make image` packs.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::node::CONTAINERD;
use crate::places;

/// The namespace that the chart is installed in, and the name of its release.
pub const NAMESPACE: &str = "cellwall";

/// Loads the image into the containerd of each node.
pub fn load_image(cluster: &Cluster) -> Result<()> {
    let image = places::workspace().join("target/image/cellwall.tar");
    ensure!(image.exists(), "{} is missing; run: make image", image.display());
    for node in cluster.nodes() {
        let mut import = cluster.command_on(node, "ctr");
        import.args(["-a", CONTAINERD, "-n", "k8s.io", "images", "import"]).arg(&image);
        said(&mut import)?;
    }
    Ok(())
}

/// Runs helm against the cluster; what it printed.
pub fn helm(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    let program = places::workspace().join("target/tools/helm");
    ensure!(program.exists(), "{} is missing; run: scripts/setup.sh chart", program.display());
    // What helm keeps is the cluster's, and goes with it.
    let home = cluster.folder().join("helm");
    let mut command = cluster.outside(program);
    for (variable, folder) in
        [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
    {
        command.env(variable, home.join(folder));
    }
    command.arg("--kubeconfig").arg(cluster.folder().join("kubeconfig"));
    command.args(["--namespace", NAMESPACE]).args(arguments);
    said(&mut command)
}

/// Asks the agent through its container, as the notes of the chart say.
pub fn ask(cluster: &Cluster, question: &str) -> Result<Value> {
    let exec = ["-n", NAMESPACE, "exec", "daemonset/cellwall", "--", "cellwall", "-o", "json"];
    let arguments: Vec<&str> = exec.into_iter().chain(question.split(' ')).collect();
    let answer = cluster.kubectl(&arguments, "")?;
    serde_json::from_str(&answer).with_context(|| format!("cellwall {question} printed no JSON"))
}

/// The chart of this tree.
pub fn chart() -> String {
    places::workspace().join("deploy/helm/cellwall").display().to_string()
}

/// What removes what is left without helm.
pub fn cleanup_manifest() -> PathBuf {
    places::workspace().join("deploy/cleanup.yaml")
}

/// Runs it; what it printed.
pub fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
