//! Programs at tcx: pinned links, replaced in place, first in the chain.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use cellwall_abi::Direction;

use crate::error::AttachError;
use crate::pins;
use crate::programs::{self, Loaded, Programs};
use crate::sys;

/// How often, and how long, to wait for a link that is going.
const LAST_LOOKS: u32 = 50;
const LOOK: Duration = Duration::from_millis(2);

/// What enters a pod leaves the host side of its interface.
const fn attach_type(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => sys::TCX_EGRESS,
        Direction::Egress => sys::TCX_INGRESS,
    }
}

fn path(links: &Path, ifindex: u32, direction: Direction) -> PathBuf {
    links.join(format!("{ifindex}-{}", direction.name()))
}

fn parse(name: &str) -> Option<(u32, Direction)> {
    let (ifindex, direction) = name.split_once('-')?;
    let direction = Direction::ALL.into_iter().find(|d| d.name() == direction)?;
    Some((ifindex.parse().ok()?, direction))
}

fn failed(step: &'static str, ifindex: u32) -> impl FnOnce(io::Error) -> AttachError {
    move |source| AttachError { step, ifindex, source }
}

/// Goes through the links that are pinned: one that runs another program gets ours, in place; one whose interface
/// is gone goes, too. Where everything is as it should be, nothing is written.
pub(crate) fn adopt(links: &Path, programs: &Programs) -> Result<(), AttachError> {
    for (ifindex, direction) in pinned(links)? {
        let Some(link) = take(links, ifindex, direction)? else { continue };
        replace(&link, ifindex, direction, programs)?;
    }
    Ok(())
}

/// Interfaces and directions of all pins.
fn pinned(links: &Path) -> Result<Vec<(u32, Direction)>, AttachError> {
    let names = pins::names(links).map_err(failed("list the links of", 0))?;
    Ok(names.iter().filter_map(|name| parse(name)).collect())
}

/// The pinned link at an interface. One that is not at that interface any more is taken off and its pin removed:
/// the interface is gone, or in another network namespace.
fn take(links: &Path, ifindex: u32, direction: Direction) -> Result<Option<OwnedFd>, AttachError> {
    let path = path(links, ifindex, direction);
    let link = match sys::open_pinned(&path) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open the link of", ifindex)(error)),
    };
    let info = sys::link_info(link.as_fd()).map_err(failed("look at the link of", ifindex))?;
    if info.ifindex == ifindex && info.attach_type == attach_type(direction) {
        return Ok(Some(link));
    }
    drop_link(&link, &path).map_err(failed("remove the old link of", ifindex))?;
    Ok(None)
}

fn drop_link(link: &OwnedFd, path: &Path) -> io::Result<()> {
    match sys::link_detach(link.as_fd()) {
        // Detached with its interface.
        Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => return Err(error),
        _ => {}
    }
    pins::remove(path)
}

fn replace(
    link: &OwnedFd,
    ifindex: u32,
    direction: Direction,
    programs: &Programs,
) -> Result<(), AttachError> {
    let ours = programs::of(programs, direction);
    let info = sys::link_info(link.as_fd()).map_err(failed("look at the link of", ifindex))?;
    if info.program_id == ours.id {
        return Ok(());
    }
    sys::link_update(link.as_fd(), ours.fd().as_fd()).map_err(failed("replace the program of", ifindex))
}

/// Puts both programs on an interface, in front of all others, or takes over the links that are there.
pub(crate) fn attach(links: &Path, ifindex: u32, programs: &Programs) -> Result<(), AttachError> {
    for direction in Direction::ALL {
        if let Some(link) = take(links, ifindex, direction)? {
            replace(&link, ifindex, direction, programs)?;
            continue;
        }
        let program = programs::of(programs, direction);
        let link = attach_in_front(program, ifindex, attach_type(direction))
            .map_err(failed("attach to", ifindex))?;
        // Not pinned, the link would end with this process.
        sys::pin(link.as_fd(), &path(links, ifindex, direction))
            .map_err(failed("pin the link of", ifindex))?;
    }
    Ok(())
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

/// Takes both programs off; fine when they or the interface are gone.
pub(crate) fn detach(links: &Path, ifindex: u32) -> Result<(), AttachError> {
    for direction in Direction::ALL {
        let path = path(links, ifindex, direction);
        match sys::open_pinned(&path) {
            Ok(link) => drop_link(&link, &path).map_err(failed("detach from", ifindex))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("open the link of", ifindex)(error)),
        }
    }
    Ok(())
}

/// Interfaces with both of our programs, and whether they are first in both directions.
pub(crate) fn attached(links: &Path, programs: &Programs) -> Result<BTreeMap<u32, bool>, AttachError> {
    let mut found: BTreeMap<u32, Vec<bool>> = BTreeMap::new();
    for (ifindex, direction) in pinned(links)? {
        let Some(link) = take(links, ifindex, direction)? else { continue };
        let info = sys::link_info(link.as_fd()).map_err(failed("look at the link of", ifindex))?;
        let ours = programs::of(programs, direction).id;
        let chain = match sys::tcx_programs(ifindex, attach_type(direction)) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
            chain => chain.map_err(failed("list the programs of", ifindex))?,
        };
        if info.program_id == ours && chain.contains(&ours) {
            found.entry(ifindex).or_default().push(chain.first() == Some(&ours));
        }
    }
    let both =
        |(ifindex, first): (u32, Vec<bool>)| (first.len() == 2).then(|| (ifindex, first.iter().all(|f| *f)));
    Ok(found.into_iter().filter_map(both).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pins_go_there_and_back() {
        for direction in Direction::ALL {
            let path = path(Path::new("/x"), 12, direction);
            assert_eq!(
                parse(path.file_name().expect("a name").to_str().expect("text")),
                Some((12, direction))
            );
        }
        for foreign in ["", "12", "-ingress", "x-ingress", "12-", "12-both", "-1-egress", "4294967296-egress"]
        {
            assert_eq!(parse(foreign), None, "{foreign:?}");
        }
    }
}
