//! Bugs that are planted on purpose, so that it shows which test catches them.

/// True when `CELLWALL_MUTANT` names this bug. Without the feature `mutants`, which nothing that ships has, it is a
/// constant false and leaves nothing behind. `mutants.txt` lists all of them, each with the test that must fail.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
#[must_use]
pub const fn planted(_bug: &str) -> bool {
    false
}

/// True when `CELLWALL_MUTANT` names this bug.
#[cfg(feature = "mutants")]
#[must_use]
pub fn planted(bug: &str) -> bool {
    extern crate std;
    static CHOSEN: std::sync::OnceLock<Option<std::string::String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("CELLWALL_MUTANT").ok()).as_deref() == Some(bug)
}
