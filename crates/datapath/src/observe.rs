//! Reads back what the tables hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cellwall_abi::{ClassPair, record_index};
use cellwall_policy::wanted::{Observed, ServiceKey};

use crate::error::TableError;
use crate::table::{Plain, Table};
use crate::tables::{Tables, failed};

/// Both banks of everything that plans write. Array elements are read only where a row leads to them: a slot that
/// nobody uses holds what its last user left.
pub(crate) fn observe(tables: &Tables) -> Result<Observed, TableError> {
    let live = tables.live.get(&0).map_err(failed("read", "LIVE"))?.unwrap_or_default();
    let endpoints: BTreeMap<u32, u32> = rows(&tables.endpoints, "ENDPOINTS", |k, v| Some((*k, *v)))?;
    let addresses = addresses(tables)?;
    let mut prefixes = rows(&tables.prefixes4, "PREFIXES4", |k, v| Some((k.net()?, *v)))?;
    prefixes.append(&mut rows(&tables.prefixes6, "PREFIXES6", |k, v| Some((k.net()?, *v)))?);
    let mut services = rows(&tables.services4, "SERVICES4", |k, v| Some((ServiceKey::from(*k), *v)))?;
    services.append(&mut rows(&tables.services6, "SERVICES6", |k, v| Some((ServiceKey::from(*k), *v)))?);
    Ok(Observed {
        live,
        records: records(&tables.records, "RECORDS", &endpoints)?,
        endpoints,
        classes: classes(tables, &addresses)?,
        addresses,
        prefixes,
        policy: rows(&tables.policy, "POLICY", |k, v| Some((*k, *v)))?,
        ports: rows(&tables.ports, "PORTS", |k, v| Some(((*k).into(), *v)))?,
        service_records: records(&tables.service_records, "SERVICE_RECORDS", &services)?,
        services,
    })
}

fn rows<K: Plain, V: Plain, A: Ord, B>(
    table: &Table<K, V>,
    name: &'static str,
    take: impl Fn(&K, &V) -> Option<(A, B)>,
) -> Result<BTreeMap<A, B>, TableError> {
    let mut rows = BTreeMap::new();
    table.for_each(|key, value| rows.extend(take(key, value))).map_err(failed("read", name))?;
    Ok(rows)
}

fn addresses(tables: &Tables) -> Result<BTreeMap<IpAddr, u32>, TableError> {
    let mut all = rows(&tables.addresses4, "ADDRESSES4", |k, v| Some((IpAddr::from(*k), *v)))?;
    all.append(&mut rows(&tables.addresses6, "ADDRESSES6", |k, v| Some((IpAddr::from(*k), *v)))?);
    Ok(all)
}

/// Both banks of every slot in use; one that lies past the table is as if it held nothing.
fn records<K, V: Plain>(
    table: &Table<u32, V>,
    name: &'static str,
    rows: &BTreeMap<K, u32>,
) -> Result<BTreeMap<(u32, u32), V>, TableError> {
    let mut records = BTreeMap::new();
    for (slot, bank) in rows.values().flat_map(|slot| [(*slot, 0), (*slot, 1)]) {
        let index = slot.checked_mul(2).map(|_| record_index(slot, bank));
        let record = match index {
            Some(index) => table.get(&index).map_err(failed("read", name))?,
            None => None,
        };
        records.insert((slot, bank), record.unwrap_or_default());
    }
    Ok(records)
}

fn classes(
    tables: &Tables,
    addresses: &BTreeMap<IpAddr, u32>,
) -> Result<BTreeMap<u32, ClassPair>, TableError> {
    let used: BTreeSet<u32> = addresses.values().copied().collect();
    let mut classes: BTreeMap<u32, ClassPair> =
        used.iter().map(|slot| (*slot, ClassPair::default())).collect();
    // Slots are given from below, so the first elements are nearly all of those in use.
    let count = used.last().map_or(0, |last| last.saturating_add(1));
    let mut see = |slot: &u32, pair: &ClassPair| {
        if let Some(class) = classes.get_mut(slot) {
            *class = *pair;
        }
    };
    tables.classes.first(count, &mut see).map_err(failed("read", "CLASSES"))?;
    Ok(classes)
}
