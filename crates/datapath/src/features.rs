//! What this kernel offers, each tried and not concluded from a version.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::sys;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a list of yes and no")]
pub struct Features {
    /// Release as `uname -r` gives it. For people: nothing is decided by it.
    pub kernel: String,
    /// Links at tcx.
    pub tcx: bool,
    /// Batched reads and writes of hash tables.
    pub batch: bool,
    /// `MEMBARRIER_CMD_GLOBAL`; without it, grace periods are waited for by a map-in-map.
    pub membarrier: bool,
    /// The kernel describes its own types.
    pub btf: bool,
    /// Programs are compiled to machine code.
    pub jit: bool,
}

/// The kernel's answer to attaching to no interface: EINVAL without tcx, ENODEV with it.
pub(crate) fn has_tcx(program: BorrowedFd<'_>) -> bool {
    matches!(sys::tcx_attach(program, u32::from(u16::MAX) << 15, sys::TCX_INGRESS),
             Err(error) if error.raw_os_error() == Some(libc::ENODEV))
}

/// Looks at everything. `batch` is the answer to a batched read of a hash table, `program` any loaded classifier.
pub(crate) fn probe(batch: &io::Result<()>, program: BorrowedFd<'_>) -> Features {
    Features {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        tcx: has_tcx(program),
        batch: batch.is_ok(),
        membarrier: rustix::thread::membarrier_query().contains(rustix::thread::MembarrierQuery::GLOBAL),
        btf: fs::metadata("/sys/kernel/btf/vmlinux").is_ok(),
        jit: sys::program_info(program.as_fd()).is_ok_and(|(info, _)| info.jited_bytes > 0),
    }
}
