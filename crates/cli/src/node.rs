//! What works on a node without an agent and without an API server: the switch, and taking everything away.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cellwall_cni::files;
use cellwall_datapath::{OpenError, Removed, Settings, remove};
use clap::{Args as Group, Subcommand};

/// What to do with this node.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Stop enforcing on this node, now and after every start, until it is enabled.
    ///
    /// Needs no API server and no agent. Pods are not restarted and no connection is cut; what policies forbid passes.
    Disable(Place),
    /// Let the agent of this node enforce again.
    Enable(Place),
    /// Take everything of cellwall off this node: the entry in the CNI configuration, programs, tables, pins, the socket.
    ///
    /// Pods are not restarted and no connection is cut; what policies forbid passes. Refused while an agent runs: remove
    /// its DaemonSet first. The binary cellwall-cni stays, since a runtime may call it once more for every pod that was
    /// started with it; it then does nothing.
    Cleanup(Place),
}

/// Where things are on this node.
#[derive(Debug, Group)]
pub(crate) struct Place {
    /// Folder of the container runtime's CNI configurations. The file that says that the node is disabled is there, too.
    #[arg(long, value_name = "PATH", env = "CELLWALL_CNI_CONF_DIR", default_value = files::FOLDER)]
    cni_conf_dir: PathBuf,
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
    match command {
        NodeCommand::Disable(place) => disable(place),
        NodeCommand::Enable(place) => enable(place),
        NodeCommand::Cleanup(place) => cleanup(place, socket),
    }
}

/// True when the switch is set where it is unless a flag says otherwise.
pub(crate) fn is_disabled() -> bool {
    let folder = std::env::var_os("CELLWALL_CNI_CONF_DIR").unwrap_or_else(|| files::FOLDER.into());
    files::disabled_file(Path::new(&folder)).exists()
}

fn disable(place: &Place) -> Result<String> {
    let file = &files::disabled_file(&place.cni_conf_dir);
    // First of all: an agent that runs, or starts now, must not put back what is taken away.
    let written = file.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| {
        fs::write(file, "Made by `cellwall node disable`; `cellwall node enable` removes it.\n")
    });
    written.with_context(|| format!("cannot write {}; nothing was changed", file.display()))?;
    let Removed { interfaces, .. } = take_away(place, "try again").context(
        "the node stays disabled for agents that start, but what is attached is still there; try again",
    )?;
    Ok(format!(
        "disabled: nothing is enforced on this node any more ({interfaces} interfaces were). It stays so until \
         `cellwall node enable`.\n"
    ))
}

fn enable(place: &Place) -> Result<String> {
    let file = &files::disabled_file(&place.cni_conf_dir);
    match fs::remove_file(file) {
        Ok(()) => Ok("enabled: the agent of this node, if one runs, enforces again.\n".to_owned()),
        Err(error) if is_missing(&error) => Ok("this node was not disabled.\n".to_owned()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", file.display())),
    }
}

fn cleanup(place: &Place, socket: &Path) -> Result<String> {
    let Removed { interfaces, pins } =
        take_away(place, "remove its DaemonSet first, or run `cellwall node disable`")?;
    let disabled = files::disabled_file(&place.cni_conf_dir);
    for file in [&disabled, socket, &socket.with_file_name("announced.json")] {
        gone_is_fine(fs::remove_file(file)).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    if let Some(folder) = socket.parent() {
        // One that holds something else is not ours alone, and one that is mounted cannot be removed.
        let _ = fs::remove_dir(folder);
    }
    Ok(format!(
        "removed: programs at {interfaces} interfaces, {pins} pins; nothing of cellwall is left in force\n"
    ))
}

/// The plugin first, so that no pod waits for an agent that is not there; the programs last. An agent that was still
/// there has perhaps put the plugin back before it let go, so once more.
fn take_away(place: &Place, remedy: &str) -> Result<Removed> {
    // A list that cannot be changed keeps no programs here, and is named in the end.
    let _ = unchain(place);
    let settings = Settings {
        bpffs: place.bpffs.clone(),
        pin_name: place.pin_name.clone(),
        wait: (place.wait > 0).then(|| Duration::from_secs(place.wait.into())),
        ..Settings::default()
    };
    let removed = match remove(&settings) {
        Ok(removed) => removed,
        // Where nothing is mounted, nothing is pinned.
        Err(OpenError::NotBpffs { path }) => {
            eprintln!("{} is not a BPF file system, so nothing was pinned there", path.display());
            Removed::default()
        }
        Err(error @ OpenError::Locked { .. }) => {
            bail!("{error}: an agent runs on this node; {remedy}")
        }
        Err(error) => return Err(error.into()),
    };
    unchain(place)?;
    Ok(removed)
}

fn unchain(place: &Place) -> Result<()> {
    if place.cni_conf_dir.is_dir() {
        files::uninstall(&place.cni_conf_dir)
            .context("cannot take our entry out of the CNI configuration")?;
    }
    Ok(())
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if is_missing(&error) { Ok(()) } else { Err(error) })
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
