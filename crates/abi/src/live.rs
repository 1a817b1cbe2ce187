//! The one word that says which state of all policies is live.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The live revision. The low bit is the bank: revision 6 reads bank 0, revision 7 bank 1. A program reads it
/// once, with one 64-bit load, and keeps that value for the packet; the agent moves a node from one state to
/// the next by storing `revision + 1`, which flips the bank in the same write. 64 bits do not wrap.
#[derive(
    Clone,
    Copy,
    Default,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct Live(pub u64);

impl Live {
    /// The bank that programs read now: 0 or 1.
    #[inline(always)]
    #[must_use]
    pub const fn bank(self) -> u32 {
        (self.0 & 1) as u32
    }

    /// The bank that nobody reads, once a grace period has passed since the last flip.
    #[must_use]
    pub const fn idle_bank(self) -> u32 {
        1 - self.bank()
    }

    /// The word that the next flip stores.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
