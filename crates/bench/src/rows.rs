//! A pinned hash of the shipped programs, read and emptied by bytes.

use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData};

/// A hash with keys of `K` bytes and values of `V`.
pub(crate) type Rows<const K: usize, const V: usize> = HashMap<MapData, [u8; K], [u8; V]>;

/// Opens a pin.
pub(crate) fn open(path: &Path) -> Result<Map> {
    let data = MapData::from_pin(path).with_context(|| path.display().to_string())?;
    Map::from_map_data(data).with_context(|| path.display().to_string())
}

/// Removes every row; how many there were.
pub(crate) fn clear<const K: usize, const V: usize>(rows: &mut Rows<K, V>) -> Result<usize> {
    let keys: Vec<[u8; K]> = rows.keys().collect::<Result<_, _>>()?;
    for key in &keys {
        rows.remove(key)?;
    }
    Ok(keys.len())
}
