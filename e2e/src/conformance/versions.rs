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

/// The version of this tree, with its commit where there is one. What earlier runs wrote down is no change of it.
fn cellwall() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let git =
        |arguments: &[&str]| Command::new("git").arg("-C").arg(places::workspace()).args(arguments).output();
    let commit = match git(&["describe", "--always", "--exclude=*"]) {
        Ok(said) if said.status.success() => String::from_utf8_lossy(&said.stdout).trim().to_owned(),
        _ => return version.to_owned(),
    };
    let source = ["diff", "--quiet", "HEAD", "--", ".", ":!e2e/RESULTS.md", ":!e2e/results.json"];
    let is_clean = git(&source).is_ok_and(|said| said.status.success());
    format!("{version} ({commit}{})", if is_clean { "" } else { "-dirty" })
}
