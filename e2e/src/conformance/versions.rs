//! What runs in the cluster that is tested.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::results::Versions;
use crate::places;
use crate::target::Target;

/// What its first node says, and what this tree is.
pub(super) fn of(target: &Target) -> Result<Versions> {
    let nodes = target.kubectl(&["get", "nodes", "-o", "json"], "")?;
    let nodes: Value = serde_json::from_str(&nodes).context("kubectl printed no JSON")?;
    let info = &nodes["items"][0]["status"]["nodeInfo"];
    let text = |field: &str| info[field].as_str().unwrap_or("unknown").to_owned();
    Ok(Versions {
        kubernetes: text("kubeletVersion"),
        runtime: text("containerRuntimeVersion"),
        kernel: text("kernelVersion"),
        cellwall: cellwall(),
    })
}

/// The version of this tree, with its commit where there is one.
fn cellwall() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut git = Command::new("git");
    git.arg("-C").arg(places::workspace()).args(["describe", "--always", "--dirty", "--exclude=*"]);
    match git.output() {
        Ok(said) if said.status.success() => {
            format!("{version} ({})", String::from_utf8_lossy(&said.stdout).trim())
        }
        _ => version.to_owned(),
    }
}
