//! What works on a node without an agent and without an API server.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cellwall_datapath::{OpenError, Removed, Settings, remove};
use clap::{Args as Group, Subcommand};

/// What to do with this node.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Take everything of cellwall off this node: programs, tables, pins, the socket.
    ///
    /// Pods are not restarted and no connection is cut; what policies forbid passes. Refused while an agent runs: remove
    /// its DaemonSet first.
    Cleanup(Place),
}

/// Where things are on this node.
#[derive(Debug, Group)]
pub(crate) struct Place {
    /// Where the BPF file system is mounted.
    #[arg(long, value_name = "PATH", env = "CELLWALL_BPFFS", default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
    /// Folder in it that holds the pins.
    #[arg(long, value_name = "NAME", env = "CELLWALL_PIN_NAME", default_value = "cellwall")]
    pin_name: String,
    /// How many seconds to wait for an agent to let go.
    #[arg(long, value_name = "SECONDS", env = "CELLWALL_WAIT", default_value_t = 30,
          value_parser = clap::value_parser!(u16).range(0..=600))]
    wait: u16,
}

/// Does it; what to print.
pub(crate) fn run(command: &NodeCommand, socket: &Path) -> Result<String> {
    let NodeCommand::Cleanup(place) = command;
    let Removed { interfaces, pins } = take_away(place)?;
    gone_is_fine(fs::remove_file(socket)).with_context(|| format!("cannot remove {}", socket.display()))?;
    if let Some(folder) = socket.parent() {
        // One that holds something else is not ours alone, and one that is mounted cannot be removed.
        let _ = fs::remove_dir(folder);
    }
    Ok(format!(
        "removed: programs at {interfaces} interfaces, {pins} pins; nothing of cellwall is left in force\n"
    ))
}

fn take_away(place: &Place) -> Result<Removed> {
    let settings = Settings {
        bpffs: place.bpffs.clone(),
        pin_name: place.pin_name.clone(),
        wait: (place.wait > 0).then(|| Duration::from_secs(place.wait.into())),
        ..Settings::default()
    };
    match remove(&settings) {
        Ok(removed) => Ok(removed),
        // Where nothing is mounted, nothing is pinned.
        Err(OpenError::NotBpffs { path }) => {
            eprintln!("{} is not a BPF file system, so nothing was pinned there", path.display());
            Ok(Removed::default())
        }
        Err(error @ OpenError::Locked { .. }) => {
            bail!("{error}: an agent runs on this node; remove its DaemonSet first")
        }
        Err(error) => Err(error.into()),
    }
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(()),
        _ => Err(error),
    })
}
