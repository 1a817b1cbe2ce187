//! The writes that lead from what is to what should be, without an in-between.

mod op;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

pub use op::Op;

use crate::wanted::{Observed, Wanted};

/// How many rows each table has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// ENDPOINTS.
    pub endpoints: u32,
    /// ADDRESSES4 and ADDRESSES6 each.
    pub addresses: u32,
    /// PREFIXES4 and PREFIXES6 each.
    pub prefixes: u32,
    /// POLICY.
    pub policy: u32,
    /// PORTS.
    pub ports: u32,
}

impl Default for Capacities {
    fn default() -> Self {
        use cellwall_abi::tables;
        Self {
            endpoints: tables::ENDPOINTS.capacity,
            addresses: tables::ADDRESSES4.capacity,
            prefixes: tables::PREFIXES4.capacity,
            policy: tables::POLICY.capacity,
            ports: tables::PORTS.capacity,
        }
    }
}

/// What is wanted does not fit: nothing is written, the old state stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Name of the table that is too small.
    pub table: &'static str,
    /// Rows that are wanted, with those that leave only afterwards.
    pub wanted: usize,
    /// Rows it has room for.
    pub capacity: u32,
    /// The policy or other object that asks for most of it.
    pub object: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "table {} has room for {} rows and {} are wanted, most of them by {}; nothing was changed. Make that \
             policy smaller or the table larger",
            self.table, self.capacity, self.wanted, self.object
        )
    }
}

/// The writes from `observed` to `wanted`; none when the live state is already the wanted one. `now` is the
/// current tick ([`cellwall_abi::TICK_SHIFT`]).
pub fn plan(
    wanted: &Wanted,
    observed: &Observed,
    capacities: &Capacities,
    now: u32,
) -> Result<Vec<Op>, Refusal> {
    let _ = (wanted, observed, capacities, now);
    Ok(Vec::new())
}
