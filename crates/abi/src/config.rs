//! What the programs are told once.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An interface whose pod is not known drops everything: set when the CNI plugin vouches that every pod is
/// announced before it runs.
pub const CONFIG_STRICT: u32 = 1;

/// One row, written at first start and read at each later one.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Config {
    /// Key of the hash that makes ids of classes, images, lists and rules: nobody who only chooses labels can
    /// make two of them collide. Lives and dies with the pinned tables.
    pub secret: [u64; 2],
    /// `CONFIG_*`.
    pub flags: u32,
    /// [`crate::ABI_VERSION`].
    pub abi_version: u32,
    /// The bit of the packet mark that says that a packet is stamped: a pod's egress is still to be judged, and
    /// `tc_index` holds the pod's slot plus one. 0: nothing is stamped and nothing is deferred.
    pub mark: u32,
    /// Zero.
    pub pad: u32,
}
