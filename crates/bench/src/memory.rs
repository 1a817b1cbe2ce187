//! What the tables cost before anything is in them.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::MapData;
use cellwall_abi::tables;
use serde::Serialize;

/// A table at its default capacity.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) rows: u32,
    /// What the kernel has set aside (`memlock`), bytes.
    pub(crate) bytes: u64,
}

/// All tables that are pinned there.
pub(crate) fn tables(pins: &Path) -> Result<Vec<Table>> {
    let table = |table: &tables::Table| {
        let map = MapData::from_pin(pins.join("maps").join(table.name))?;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd()))?;
        let value = |name: &str| -> Result<u64> {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            Ok(line
                .with_context(|| format!("the kernel says no {name} of {}", table.name))?
                .trim()
                .parse()?)
        };
        let rows = u32::try_from(value("max_entries:")?)?;
        Ok(Table { name: table.name, rows, bytes: value("memlock:")? })
    };
    tables::ALL.iter().map(table).collect()
}
