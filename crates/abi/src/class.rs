//! The class of an address: which of the peer sets in use on this node it is in.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// In no peer set. What an address has that no table knows.
pub const CLASS_WORLD: u32 = 0;

/// In a known pod range, but no known pod has it: in the peer set of every Deny and of no allow (S84), so the
/// lag of a watch fails closed.
pub const CLASS_UNKNOWN_POD: u32 = 1;

/// Bit in the class of every address of a node. Its other bits are an id as every class has one, so what the address
/// is answered is answered under an id of its own.
pub const CLASS_NODE: u32 = 1 << 31;

/// Smallest id for a class with content.
pub const FIRST_FREE_CLASS: u32 = 16;

/// The class of one address or prefix in both banks: low half bank 0, high half bank 1.
///
/// Two tables give it: the exact table maps an address to a slot that stays while the address is known, and the
/// array of slots holds this word; the longest-prefix table holds it directly. It is eight bytes and written
/// whole because an 8-byte array slot and the value of a prefix can be stored under concurrent readers without a
/// torn or a missing read, and the value of a hash element cannot (seen on kernel 6.18: replacing one makes
/// concurrent lookups miss the key).
///
/// A prefix or address that exists in only one bank carries in the other the class it resolves to there without
/// it, so that adding or deleting the row changes no verdict of that bank.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct ClassPair(u64);

impl ClassPair {
    /// From the classes of bank 0 and bank 1.
    #[must_use]
    pub const fn new(banks: [u32; 2]) -> Self {
        Self(banks[0] as u64 | (banks[1] as u64) << 32)
    }

    /// The class in `bank` (0 or 1).
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "one half of the word")]
    pub const fn class(self, bank: u32) -> u32 {
        (self.0 >> (32 * (bank & 1))) as u32
    }

    /// The same word with another class in `bank` (0 or 1).
    #[must_use]
    pub const fn with(self, bank: u32, class: u32) -> Self {
        if bank == 0 { Self::new([class, self.class(1)]) } else { Self::new([self.class(0), class]) }
    }
}

impl fmt::Debug for ClassPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:#x}, {:#x}]", self.class(0), self.class(1))
    }
}
