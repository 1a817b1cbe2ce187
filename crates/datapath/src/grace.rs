//! Waiting until no program still runs that started before.
//!
//! Programs run inside an RCU read-side section, so a grace period of RCU is what to wait for. `membarrier(2)`
//! with `MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu` and needs no privilege, but a kernel with `nohz_full`
//! refuses it. Replacing the inner map of a map-in-map is followed by `synchronize_rcu` too
//! (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::thread::{MembarrierCommand, MembarrierQuery};

use crate::sys;

/// The way to wait that this kernel has.
#[derive(Debug)]
pub(crate) enum Grace {
    Membarrier,
    MapInMap { outer: OwnedFd, inner: OwnedFd },
}

impl Grace {
    /// Chooses; an error when there is no way at all.
    pub(crate) fn new() -> io::Result<Self> {
        if rustix::thread::membarrier_query().contains(MembarrierQuery::GLOBAL) {
            return Ok(Self::Membarrier);
        }
        Self::map_in_map()
    }

    fn map_in_map() -> io::Result<Self> {
        let inner = sys::create_array(None)?;
        Ok(Self::MapInMap { outer: sys::create_array(Some(inner.as_fd()))?, inner })
    }

    /// Returns when every program that runs now has ended.
    pub(crate) fn wait(&self) -> io::Result<()> {
        match self {
            Self::Membarrier => Ok(rustix::thread::membarrier(MembarrierCommand::Global)?),
            Self::MapInMap { outer, inner } => sys::swap_inner(outer, inner),
        }
    }

    /// The way, for people.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Membarrier => "membarrier",
            Self::MapInMap { .. } => "map-in-map",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membarrier_waits() {
        if !matches!(Grace::new(), Ok(Grace::Membarrier)) {
            println!("skipped: this kernel offers no MEMBARRIER_CMD_GLOBAL");
            return;
        }
        Grace::Membarrier.wait().expect("membarrier");
    }

    #[test]
    fn the_fall_back_works() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let grace = Grace::map_in_map().expect("two small maps");
        for _ in 0..3 {
            grace.wait().expect("a swap");
        }
    }
}
