//! Taking everything away: programs off their hooks first, then what is pinned, tables last. Traffic is then as it was
//! before us, and so are the connections that run.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use tracing::debug;

use crate::error::{AttachError, OpenError};
use crate::netlink::{self, Requests};
use crate::pins::{self, file};
use crate::programs::Hook;
use crate::settings::Settings;
use crate::tcx::Links;
use crate::{capabilities, clsact, sys};

/// What was taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Interfaces that had programs of ours.
    pub interfaces: usize,
    /// Pinned links, programs and tables.
    pub pins: usize,
}

/// Takes off and removes all that is pinned under the name in `settings`, of this version and of any other. Nothing
/// there is fine. Waits for an agent to let go as [`crate::Datapath::open`] does, and is refused while one does not.
pub fn remove(settings: &Settings) -> Result<Removed, OpenError> {
    capabilities::check()?;
    let root = pins::checked_root(settings)?;
    if !root.try_exists().map_err(file("look at", &root))? {
        return Ok(Removed::default());
    }
    let lock = pins::lock(&root, settings.wait)?;
    let mut removed = versions(&pins::folders(&root)?)?;
    // With whatever else there is.
    remove_tree(&root, &mut removed.pins)?;
    drop(lock);
    Ok(removed)
}

/// Takes off what the programs in these folders of versions are on, and removes all that is pinned there.
pub(crate) fn versions(versions: &[PathBuf]) -> Result<Removed, OpenError> {
    let mut interfaces = BTreeSet::new();
    for version in versions {
        detach_links(&version.join("links"), &mut interfaces)?;
    }
    detach_filters(&program_ids(versions)?, &mut interfaces)?;
    let mut pins = 0;
    for version in versions {
        // Tables after the programs that use them.
        for part in ["links", "progs", "maps"] {
            remove_tree(&version.join(part), &mut pins)?;
        }
        remove_tree(version, &mut pins)?;
    }
    Ok(Removed { interfaces: interfaces.len(), pins })
}

/// Those of the node's other interfaces last: they judge what those of pods have stamped.
fn detach_links(folder: &Path, interfaces: &mut BTreeSet<u32>) -> Result<(), AttachError> {
    let mut links = Links::new(folder.to_owned(), Vec::new());
    let all = links.all()?;
    for hook in Hook::ALL {
        for (ifindex, _) in all.iter().filter(|(_, at)| *at == hook) {
            links.detach(*ifindex, &[hook])?;
            interfaces.insert(*ifindex);
        }
    }
    Ok(())
}

/// Filters are not pinned: they are found at interfaces by the ids of the programs that are.
fn detach_filters(own: &BTreeSet<u32>, interfaces: &mut BTreeSet<u32>) -> Result<(), AttachError> {
    let failed = |source| AttachError { step: "list", ifindex: 0, source };
    let all = Requests::open().and_then(|mut requests| netlink::interfaces(&mut requests)).map_err(failed)?;
    for hooks in [Hook::POD, Hook::NODE] {
        for ifindex in &all {
            if clsact::detach(*ifindex, hooks, own)? {
                interfaces.insert(*ifindex);
            }
        }
    }
    Ok(())
}

/// Ids of all programs that are pinned in these folders of versions.
pub(crate) fn program_ids(versions: &[PathBuf]) -> Result<BTreeSet<u32>, OpenError> {
    let mut ids = BTreeSet::new();
    for version in versions {
        for folder in pins::folders(&version.join("progs"))? {
            for name in pins::names(&folder).map_err(file("list", &folder))? {
                let path = folder.join(name);
                let program = sys::open_pinned(&path).map_err(file("open", &path))?;
                match sys::program_info(program.as_fd()) {
                    Ok((info, _)) => drop(ids.insert(info.id)),
                    Err(error) => debug!("{} is no program: {error}", path.display()),
                }
            }
        }
    }
    Ok(ids)
}

/// Removes a folder with all that is in it; one that is gone is fine.
fn remove_tree(path: &Path, count: &mut usize) -> Result<(), OpenError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(found) if found.is_dir() => {
            for name in pins::names(path).map_err(file("list", path))? {
                remove_tree(&path.join(name), count)?;
            }
        }
        found => {
            found.map_err(file("look at", path))?;
            *count += 1;
        }
    }
    pins::remove(path).map_err(file("remove", path))
}
