//! The tables of the object, each with its types: the whole of what this crate reads and writes.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use aya::maps::{Map, MapData, RingBuf};
use cellwall_abi::{
    Addr6, Be32, ClassPair, Config, Conn, EndpointRecord, FlowKey4, FlowKey6, Live, PolicyEntry, PolicyKey,
    PortValue, ServiceKey4, ServiceKey6, ServiceRecord, Share,
};

use crate::error::{OpenError, TableError};
use crate::pins::file;
use crate::prefix::{Prefix4, Prefix6, PrefixPort};
use crate::settings::Settings;
use crate::sys::{self, MapInfo};
use crate::table::{Plain, Table};

/// Every table that is read or written from here, by its name in [`cellwall_abi::tables`].
pub(crate) struct Tables {
    pub(crate) live: Table<u32, Live>,
    pub(crate) config: Table<u32, Config>,
    pub(crate) endpoints: Table<u32, u32>,
    pub(crate) records: Table<u32, EndpointRecord>,
    pub(crate) shares: Table<u32, Share>,
    pub(crate) addresses4: Table<Be32, u32>,
    pub(crate) addresses6: Table<Addr6, u32>,
    pub(crate) classes: Table<u32, ClassPair>,
    pub(crate) prefixes4: Table<Prefix4, ClassPair>,
    pub(crate) prefixes6: Table<Prefix6, ClassPair>,
    pub(crate) policy: Table<PolicyKey, PolicyEntry>,
    pub(crate) ports: Table<PrefixPort, PortValue>,
    pub(crate) services4: Table<ServiceKey4, u32>,
    pub(crate) services6: Table<ServiceKey6, u32>,
    pub(crate) service_records: Table<u32, ServiceRecord>,
    pub(crate) pending4: Table<FlowKey4, Conn>,
    pub(crate) pending6: Table<FlowKey6, Conn>,
    pub(crate) flows4: Table<FlowKey4, Conn>,
    pub(crate) flows6: Table<FlowKey6, Conn>,
    pub(crate) counters: OwnedFd,
    pub(crate) events: RingBuf<MapData>,
}

impl Tables {
    /// Opens what is pinned in `folder`. [`check`] has compared every table before.
    pub(crate) fn open(folder: &Path) -> Result<Self, OpenError> {
        Ok(Self {
            live: typed(folder, "LIVE")?,
            config: typed(folder, "CONFIG")?,
            endpoints: typed(folder, "ENDPOINTS")?,
            records: typed(folder, "RECORDS")?,
            shares: typed(folder, "SHARES")?,
            addresses4: typed(folder, "ADDRESSES4")?,
            addresses6: typed(folder, "ADDRESSES6")?,
            classes: typed(folder, "CLASSES")?,
            prefixes4: typed(folder, "PREFIXES4")?,
            prefixes6: typed(folder, "PREFIXES6")?,
            policy: typed(folder, "POLICY")?,
            ports: typed(folder, "PORTS")?,
            services4: typed(folder, "SERVICES4")?,
            services6: typed(folder, "SERVICES6")?,
            service_records: typed(folder, "SERVICE_RECORDS")?,
            pending4: typed(folder, "PENDING4")?,
            pending6: typed(folder, "PENDING6")?,
            flows4: typed(folder, "FLOWS4")?,
            flows6: typed(folder, "FLOWS6")?,
            counters: opened(folder, "COUNTERS")?,
            events: ring(folder, "EVENTS")?,
        })
    }
}

fn opened(folder: &Path, name: &str) -> Result<OwnedFd, OpenError> {
    let path = folder.join(name);
    sys::open_pinned(&path).map_err(file("open", &path))
}

fn typed<K: Plain, V: Plain>(folder: &Path, name: &str) -> Result<Table<K, V>, OpenError> {
    Table::open(opened(folder, name)?).map_err(file("use the sizes of", &folder.join(name)))
}

fn ring(folder: &Path, name: &str) -> Result<RingBuf<MapData>, OpenError> {
    let path = folder.join(name);
    MapData::from_pin(&path)
        .and_then(Map::from_map_data)
        .and_then(RingBuf::try_from)
        .map_err(|error| file("map", &path)(io::Error::other(error)))
}

/// Compares every pinned table with what the object and the settings ask for, since neither the kernel nor aya
/// does. Returns the ids of the pinned ones, or `None` when one is not there yet.
pub(crate) fn check(
    object: &aya_obj::Object,
    settings: &Settings,
    folder: &Path,
) -> Result<Option<Vec<u32>>, OpenError> {
    let mut ids = Some(Vec::new());
    // In order, so that of several differences always the same one is named.
    for (name, map) in object.maps.iter().collect::<BTreeMap<_, _>>() {
        let expected = MapInfo {
            kind: map.map_type(),
            id: 0,
            key_size: map.key_size(),
            value_size: map.value_size(),
            max_entries: settings.capacity(name).unwrap_or(map.max_entries()),
            flags: map.map_flags(),
        };
        let path = folder.join(name);
        match sys::open_pinned(&path) {
            Ok(fd) => {
                let found = sys::map_info(fd.as_fd()).map_err(file("look at", &path))?;
                compare(settings, name, &found, &expected)?;
                if let Some(ids) = &mut ids {
                    ids.push(found.id);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => ids = None,
            Err(error) => return Err(file("open", &path)(error)),
        }
    }
    Ok(ids)
}

fn compare(settings: &Settings, name: &str, found: &MapInfo, expected: &MapInfo) -> Result<(), OpenError> {
    let fields = [
        ("type", found.kind, expected.kind),
        ("key size", found.key_size, expected.key_size),
        ("value size", found.value_size, expected.value_size),
        ("capacity", found.max_entries, expected.max_entries),
        ("flags", found.flags, expected.flags),
    ];
    match fields.into_iter().find(|(_, found, expected)| found != expected) {
        None => Ok(()),
        Some((field, found, expected)) => {
            Err(OpenError::Table { folder: settings.root(), table: name.to_owned(), field, found, expected })
        }
    }
}

/// An error of a step on a table.
pub(crate) fn failed(step: &'static str, table: &'static str) -> impl FnOnce(io::Error) -> TableError {
    move |source| TableError { step, table, source }
}
