//! A BPF file system for one test.

use std::path::PathBuf;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::UnshareFlags;

/// Any folder does: what is mounted on it is seen by one thread alone, and ends with it.
const AT: &str = "/mnt";

/// Mounts a BPF file system that only the calling thread, and what it starts, sees; it is gone when they are. Returns
/// where.
///
/// # Panics
/// Without root.
#[must_use]
pub fn private() -> PathBuf {
    // JUSTIFICATION: there is no safe call that makes a mount namespace.
    // SAFETY: only this thread's view of the file systems changes, and it holds no descriptors of its own.
    #[expect(unsafe_code, reason = "unshare(2)")]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS).expect("root");
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("root");
    mount("bpf", AT, "bpf", MountFlags::empty(), None).expect("a BPF file system");
    PathBuf::from(AT)
}
