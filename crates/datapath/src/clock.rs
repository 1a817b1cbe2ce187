//! The clock that the programs use.

use cellwall_abi::TICK_SHIFT;
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The current tick ([`TICK_SHIFT`]).
#[expect(clippy::cast_possible_truncation, reason = "the programs truncate the same way")]
pub fn now_tick() -> u32 {
    (now_ns() >> TICK_SHIFT) as u32
}
