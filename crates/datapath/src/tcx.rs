//! Programs at tcx: pinned links, replaced in place, first in the chain.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use std::{fs, io};

use cellwall_abi::planted;
use tracing::warn;

use crate::error::AttachError;
use crate::pins;
use crate::programs::{self, Hook, Loaded, Programs};
use crate::sys;

/// How often, and how long, to wait for a link that is going.
const LAST_LOOKS: u32 = 50;
const LOOK: Duration = Duration::from_millis(2);

const fn attach_type(hook: Hook) -> u32 {
    if hook.is_at_egress() { sys::TCX_EGRESS } else { sys::TCX_INGRESS }
}

fn path(links: &Path, ifindex: u32, hook: Hook) -> PathBuf {
    links.join(format!("{ifindex}-{}", hook.name()))
}

fn parse(name: &str) -> Option<(u32, Hook)> {
    let (ifindex, hook) = name.split_once('-')?;
    let hook = Hook::ALL.into_iter().find(|h| h.name() == hook)?;
    Some((ifindex.parse().ok()?, hook))
}

fn failed(step: &'static str, ifindex: u32) -> impl FnOnce(io::Error) -> AttachError {
    move |source| AttachError { step, ifindex, source }
}

/// The links, pinned and held: where the pins vanish, a link lives as long as its descriptor, and is pinned again.
#[derive(Debug)]
pub(crate) struct Links {
    folder: PathBuf,
    /// Where other ABI versions have theirs.
    others: Vec<PathBuf>,
    held: BTreeMap<(u32, Hook), OwnedFd>,
}

impl Links {
    pub(crate) fn new(folder: PathBuf, others: Vec<PathBuf>) -> Self {
        Self { folder, others, held: BTreeMap::new() }
    }

    /// There are no other versions any more.
    pub(crate) fn forget_others(&mut self) {
        self.others.clear();
    }

    /// Gives the link that another version has at an interface to this one, with the program that it runs.
    fn inherit(&self, ifindex: u32, hook: Hook) -> io::Result<()> {
        let ours = path(&self.folder, ifindex, hook);
        for theirs in self.others.iter().map(|folder| path(folder, ifindex, hook)) {
            if !planted("another-version-runs-behind") && theirs.exists() && !ours.exists() {
                fs::rename(&theirs, &ours)?;
            }
        }
        Ok(())
    }

    /// Goes through the links that are pinned: one that runs one of `heirs` gets our program, in place; one whose
    /// interface is gone goes, too. Where everything is as it should be, nothing is written.
    pub(crate) fn adopt(&mut self, heirs: &BTreeSet<u32>, programs: &Programs) -> Result<(), AttachError> {
        for (ifindex, hook) in self.all()? {
            if let Some((link, running)) = self.take(ifindex, hook)?
                && heirs.contains(&running)
            {
                replace(link, running, ifindex, hook, programs)?;
            }
        }
        Ok(())
    }

    /// Interfaces and hooks of all links.
    pub(crate) fn all(&self) -> Result<BTreeSet<(u32, Hook)>, AttachError> {
        let names = match pins::names(&self.folder) {
            // Somebody removed the folder, or what it is mounted on.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names.map_err(failed("list the links of", 0))?,
        };
        Ok(names.iter().filter_map(|name| parse(name)).chain(self.held.keys().copied()).collect())
    }

    /// The link at an interface, and the id of the program that it runs. One that is not at that interface any more
    /// is taken off and its pin removed: the interface is gone, or in another network namespace.
    fn take(&mut self, ifindex: u32, hook: Hook) -> Result<Option<(&OwnedFd, u32)>, AttachError> {
        let path = path(&self.folder, ifindex, hook);
        match sys::open_pinned(&path) {
            Ok(link) => {
                self.held.insert((ifindex, hook), link);
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("open the link of", ifindex)(error));
            }
            Err(_) => {}
        }
        let Some(link) = self.held.remove(&(ifindex, hook)) else { return Ok(None) };
        let info = sys::link_info(link.as_fd()).map_err(failed("look at the link of", ifindex))?;
        if info.ifindex != ifindex || info.attach_type != attach_type(hook) {
            drop_link(&link, &path).map_err(failed("remove the old link of", ifindex))?;
            return Ok(None);
        }
        if !path.exists() {
            match sys::pin(link.as_fd(), &path) {
                Ok(()) => warn!(ifindex, "the pin of a link was gone; it is there again"),
                Err(error) => warn!(ifindex, "the pin of a link is gone and cannot be made: {error}"),
            }
        }
        let link = self.held.entry((ifindex, hook)).insert_entry(link).into_mut();
        Ok(Some((link, info.program_id)))
    }

    /// Puts the programs of `hooks` on an interface, in front of all others, or takes over the links that are there.
    pub(crate) fn attach(
        &mut self,
        ifindex: u32,
        hooks: &[Hook],
        programs: &Programs,
    ) -> Result<(), AttachError> {
        for &hook in hooks {
            self.inherit(ifindex, hook).map_err(failed("take over the link of", ifindex))?;
            if let Some((link, running)) = self.take(ifindex, hook)? {
                replace(link, running, ifindex, hook, programs)?;
                continue;
            }
            let program = programs::of(programs, hook);
            let link =
                attach_in_front(program, ifindex, attach_type(hook)).map_err(failed("attach to", ifindex))?;
            // Not pinned, the link would end with this process.
            sys::pin(link.as_fd(), &path(&self.folder, ifindex, hook))
                .map_err(failed("pin the link of", ifindex))?;
            self.held.insert((ifindex, hook), link);
        }
        Ok(())
    }

    /// Takes the programs of `hooks` off; fine when they or the interface are gone.
    pub(crate) fn detach(&mut self, ifindex: u32, hooks: &[Hook]) -> Result<(), AttachError> {
        for &hook in hooks {
            if self.take(ifindex, hook)?.is_none() {
                continue;
            }
            if let Some(link) = self.held.remove(&(ifindex, hook)) {
                let path = path(&self.folder, ifindex, hook);
                drop_link(&link, &path).map_err(failed("detach from", ifindex))?;
            }
        }
        Ok(())
    }

    /// Interfaces with our programs at all of `hooks`, and whether they are first at each.
    pub(crate) fn attached(
        &mut self,
        hooks: &[Hook],
        programs: &Programs,
    ) -> Result<BTreeMap<u32, bool>, AttachError> {
        let mut found: BTreeMap<u32, Vec<bool>> = BTreeMap::new();
        for (ifindex, hook) in self.all()? {
            if !hooks.contains(&hook) {
                continue;
            }
            let Some((_, running)) = self.take(ifindex, hook)? else { continue };
            let ours = programs::of(programs, hook).id;
            let chain = match sys::tcx_programs(ifindex, attach_type(hook)) {
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
                chain => chain.map_err(failed("list the programs of", ifindex))?,
            };
            if running == ours && chain.contains(&ours) {
                found.entry(ifindex).or_default().push(chain.first() == Some(&ours));
            }
        }
        let all = |(ifindex, first): (u32, Vec<bool>)| {
            (first.len() == hooks.len()).then(|| (ifindex, first.iter().all(|f| *f)))
        };
        Ok(found.into_iter().filter_map(all).collect())
    }
}

fn drop_link(link: &OwnedFd, path: &Path) -> io::Result<()> {
    match sys::link_detach(link.as_fd()) {
        // Detached with its interface.
        Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => return Err(error),
        _ => {}
    }
    pins::remove(path)
}

/// Every packet sees the program that ran or ours.
fn replace(
    link: &OwnedFd,
    running: u32,
    ifindex: u32,
    hook: Hook,
    programs: &Programs,
) -> Result<(), AttachError> {
    let ours = programs::of(programs, hook);
    if running == ours.id {
        return Ok(());
    }
    sys::link_update(link.as_fd(), ours.fd().as_fd()).map_err(failed("replace the program of", ifindex))
}

/// The kernel refuses a program that is there already. When its pin is gone, the link is going: the kernel ends it
/// some milliseconds after its last reference.
fn attach_in_front(program: &Loaded, ifindex: u32, attach_type: u32) -> io::Result<OwnedFd> {
    for _ in 0..LAST_LOOKS {
        match sys::tcx_attach(program.fd().as_fd(), ifindex, attach_type) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => thread::sleep(LOOK),
            answer => return answer,
        }
    }
    sys::tcx_attach(program.fd().as_fd(), ifindex, attach_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pins_go_there_and_back() {
        for hook in Hook::ALL {
            let path = path(Path::new("/x"), 12, hook);
            assert_eq!(parse(path.file_name().expect("a name").to_str().expect("text")), Some((12, hook)));
        }
        for foreign in ["", "12", "-ingress", "x-ingress", "12-", "12-both", "-1-egress", "4294967296-egress"]
        {
            assert_eq!(parse(foreign), None, "{foreign:?}");
        }
    }
}
