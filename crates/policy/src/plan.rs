//! The writes that lead from what is to what should be, without an in-between.
//!
//! ```text
//! rows of another meaning under an id in use   Delete, Grace
//! new images, lists                            Insert            nobody names them yet
//! classes, prefixes, records                   Put               only the half that nobody reads
//! new addresses, endpoints, services           Put, then Insert  the live half says what held without the row
//!                                              Flip              the one write that takes hold
//!                                              Grace             nobody reads the other bank any more
//! what nobody names any more                   Delete, Grace     nobody holds a pointer to a deleted row
//! ```
//!
//! Whatever prefix of a plan has been written, programs read the old state or the new one.

mod closing;
mod op;
mod records;
mod room;
mod rows;
mod services;
mod stage;
mod view;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

pub use closing::closing;
pub use op::Op;
pub use records::taken_over;

use crate::model::ObjectKey;
use crate::wanted::{Observed, Wanted};
use records::Records;
use rows::Rows;
use services::Services;
use stage::Stage;
use view::{View, moved};

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
    /// SERVICES4 and SERVICES6 each.
    pub services: u32,
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
            services: tables::SERVICES4.capacity,
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
    pub capacity: usize,
    /// What makes it larger: the agent's setting `--capacity-<this>`.
    pub setting: &'static str,
    /// The policy or other object that asks for most of it.
    pub object: String,
    /// How many of the rows it asks for.
    pub rows: usize,
    /// Objects without which it would fit, each with the rows that it asks for. Empty where nothing can be left out.
    pub leave_out: Vec<(ObjectKey, usize)>,
}

impl Refusal {
    /// Why an object that asks for `rows` rows is left out, and what to do.
    #[must_use]
    pub fn why(&self, rows: usize) -> String {
        format!(
            "table {} has room for {} rows and {} are wanted, {rows} of them by this. Make it smaller, or give the agent \
             --capacity-{} {} or more (its --help says what that takes)",
            self.table, self.capacity, self.wanted, self.setting, self.wanted
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "table {} has room for {} rows and {} are wanted, {} of them by {}; what is in force stays, and pods \
             that are new are closed where policies isolate them. Make that smaller, or give the agent --capacity-{} {} or more (its --help says what that takes)",
            self.table, self.capacity, self.wanted, self.rows, self.object, self.setting, self.wanted
        )
    }
}

/// The writes from `observed` to `wanted`; none when the live state is already the wanted one. `now` is the
/// current tick ([`cellwall_abi::TICK_SHIFT`]). `observed` was read after a grace period, or is what the last plan
/// left: nobody reads the idle bank.
pub fn plan(
    wanted: &Wanted,
    observed: &Observed,
    capacities: &Capacities,
    now: u32,
) -> Result<Vec<Op>, Refusal> {
    room::check(wanted, observed, capacities)?;
    let (addresses, prefixes) = view::live(observed);
    let live = View::new(&addresses, &prefixes);
    let target = View::new(&wanted.addresses, &wanted.prefixes);
    let rows = Rows::compare(wanted, observed);
    let moved = moved(&live, &target);
    let mut records = Records::decide(wanted, observed, &rows, &moved, now);
    let services = Services::decide(wanted, observed);
    if services.added || services.differ && crate::planted("services-move-since") {
        records.judge_egress_again(observed.live.next());
    }

    let mut stage = Stage::new(wanted, observed);
    if crate::planted("deletes-before-the-flip") {
        stage.clean(&rows);
    }
    if !moved.is_empty() || records.differ || services.differ || !rows.is_equal() {
        stage.rows(&rows);
        stage.classes(&live, &target);
        stage.prefixes(&live, &target);
        stage.records(&records);
        stage.services(&services);
        stage.flip();
    }
    stage.clean(&rows);
    Ok(stage.ops)
}
