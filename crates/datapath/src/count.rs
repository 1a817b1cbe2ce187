//! How many packets met which end, and how full the tables are.

use std::io;
use std::os::fd::AsFd;

use cellwall_abi::{Counter, Direction, Reason};
use zerocopy::IntoBytes;

use crate::error::TableError;
use crate::settings::Settings;
use crate::sys;
use crate::table::{Plain, Table};
use crate::tables::{Tables, failed};

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Name in [`cellwall_abi::tables`].
    pub table: &'static str,
    /// Rows in use.
    pub used: u64,
    /// Rows it has room for.
    pub capacity: u64,
}

/// Every reason and direction, summed over the CPUs. `cpus` is the number of possible ones.
pub(crate) fn counters(
    tables: &Tables,
    cpus: usize,
) -> Result<Vec<(Reason, Direction, Counter)>, TableError> {
    let mut per_cpu = vec![Counter::default(); cpus];
    let mut all = Vec::with_capacity(2 * Reason::ALL.len());
    for reason in Reason::ALL {
        for direction in Direction::ALL {
            let key = reason.counter(direction);
            sys::lookup(tables.counters.as_fd(), key.as_bytes(), per_cpu.as_mut_bytes())
                .map_err(failed("read", "COUNTERS"))?;
            let sum = per_cpu.iter().fold(Counter::default(), |sum, one| Counter {
                packets: sum.packets + one.packets,
                bytes: sum.bytes + one.bytes,
            });
            all.push((*reason, direction, sum));
        }
    }
    Ok(all)
}

/// Rows of the tables that plans write.
pub(crate) fn plan_usage(t: &Tables, settings: &Settings) -> Result<Vec<Usage>, TableError> {
    Ok(vec![
        usage(&t.endpoints, "ENDPOINTS", settings)?,
        usage(&t.addresses4, "ADDRESSES4", settings)?,
        usage(&t.addresses6, "ADDRESSES6", settings)?,
        usage(&t.prefixes4, "PREFIXES4", settings)?,
        usage(&t.prefixes6, "PREFIXES6", settings)?,
        usage(&t.policy, "POLICY", settings)?,
        usage(&t.ports, "PORTS", settings)?,
        usage(&t.services4, "SERVICES4", settings)?,
        usage(&t.services6, "SERVICES6", settings)?,
    ])
}

/// Rows of the tables that programs write.
pub(crate) fn flow_usage(t: &Tables, settings: &Settings) -> Result<Vec<Usage>, TableError> {
    Ok(vec![
        usage(&t.flows4, "FLOWS4", settings)?,
        usage(&t.flows6, "FLOWS6", settings)?,
        usage(&t.pending4, "PENDING4", settings)?,
        usage(&t.pending6, "PENDING6", settings)?,
    ])
}

fn usage<K: Plain, V: Plain>(
    table: &Table<K, V>,
    name: &'static str,
    settings: &Settings,
) -> Result<Usage, TableError> {
    let used = table.count().map_err(failed("count", name))? as u64;
    Ok(Usage { table: name, used, capacity: settings.capacity(name).unwrap_or(0).into() })
}

/// Number of CPUs that the kernel may ever have: how many values a row of a table per CPU has.
pub(crate) fn possible_cpus() -> io::Result<usize> {
    aya::util::nr_cpus().map_err(|(_, error)| error)
}
