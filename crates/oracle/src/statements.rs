//! Which statements a decision has exercised.

use core::{cell::Cell, fmt};

/// A set of statements of the table of NetworkPolicy semantics, by number: 31 is S31.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Statements(u128);

impl Statements {
    /// Every statement of which the evaluator has a branch.
    pub const JUDGED: Self = Self::of(&[
        1, 2, 3, 4, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 28, 29, 30, 31,
        32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 55, 56, 57, 58,
        59, 60, 61, 62, 64, 65, 73, 74, 81, 82, 83, 84, 85,
    ]);

    /// The set of these numbers, each below 128.
    #[must_use]
    pub const fn of(numbers: &[u8]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < numbers.len() {
            bits |= 1 << numbers[i];
            i += 1;
        }
        Self(bits)
    }

    /// True if the statement with this number is in the set.
    #[must_use]
    pub const fn contains(self, number: u8) -> bool {
        self.0 >> number & 1 == 1
    }

    /// Those in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those in this set and not in the other.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// How many there are.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// True if there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// As `S1 S2 S31`.
impl fmt::Display for Statements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        for number in (0..128).filter(|&n| self.contains(n)) {
            write!(f, "{gap}S{number}")?;
            gap = " ";
        }
        Ok(())
    }
}

/// Where the branches of one decision note the statement they follow.
#[derive(Default)]
pub(crate) struct Notes(Cell<Statements>);

impl Notes {
    pub(crate) fn note(&self, number: u8) {
        debug_assert!(Statements::JUDGED.contains(number), "S{number} is noted and not listed as judged");
        self.0.set(Statements(self.0.get().0 | 1 << number));
    }

    pub(crate) fn note_if(&self, number: u8, condition: bool) {
        if condition {
            self.note(number);
        }
    }

    pub(crate) fn noted(&self) -> Statements {
        self.0.get()
    }
}
