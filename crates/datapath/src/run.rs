//! Performs a plan: the only function that writes what policies mean.

use std::io;
use std::net::IpAddr;

use cellwall_abi::{Be16, ServiceKey4, ServiceKey6, record_index};
use cellwall_policy::plan::Op;
use cellwall_policy::wanted::ServiceKey;
use ipnet::IpNet;

use crate::error::RunError;
use crate::grace::Grace;
use crate::table::{Plain, Table};
use crate::tables::Tables;

/// Performs the writes in order. Those that follow each other on one table go in batches.
pub(crate) fn run_all(tables: &Tables, grace: &Grace, ops: &[Op]) -> Result<(), RunError> {
    let mut done = 0;
    while let Some(first) = ops.get(done) {
        let (count, result) = run_alike(tables, grace, first, &ops[done..]);
        done += count;
        result.map_err(|source| RunError {
            done,
            what: ops.get(done).map_or_else(String::new, name),
            source,
        })?;
    }
    Ok(())
}

/// What `take` makes of the first of `ops`, up to the first it makes nothing of.
fn leading<T>(ops: &[Op], take: impl Fn(&Op) -> Option<T>) -> Vec<T> {
    ops.iter().map_while(take).collect()
}

/// How many of `ops` were performed, all of the kind of the first, and why not more.
fn run_alike(t: &Tables, grace: &Grace, first: &Op, ops: &[Op]) -> (usize, io::Result<()>) {
    match first {
        Op::PutRecord { .. } => t.records.put_all(&leading(ops, |op| match op {
            Op::PutRecord { slot, bank, record } => Some((record_index(*slot, *bank), *record)),
            _ => None,
        })),
        Op::PutClass { .. } => t.classes.put_all(&leading(ops, |op| match op {
            Op::PutClass { slot, pair } => Some((*slot, *pair)),
            _ => None,
        })),
        Op::InsertEndpoint { ifindex, slot } => one(t.endpoints.insert(ifindex, slot)),
        Op::DeleteEndpoint { .. } => delete(&t.endpoints, ops, |op| match op {
            Op::DeleteEndpoint { ifindex } => Some(*ifindex),
            _ => None,
        }),
        Op::InsertAddress { address: IpAddr::V4(address), slot } => {
            one(t.addresses4.insert(&(*address).into(), slot))
        }
        Op::InsertAddress { address: IpAddr::V6(address), slot } => {
            one(t.addresses6.insert(&(*address).into(), slot))
        }
        Op::DeleteAddress { address: IpAddr::V4(_) } => delete(&t.addresses4, ops, |op| match op {
            Op::DeleteAddress { address: IpAddr::V4(address) } => Some((*address).into()),
            _ => None,
        }),
        Op::DeleteAddress { address: IpAddr::V6(_) } => delete(&t.addresses6, ops, |op| match op {
            Op::DeleteAddress { address: IpAddr::V6(address) } => Some((*address).into()),
            _ => None,
        }),
        Op::PutPrefix { .. } | Op::DeletePrefix { .. } => run_prefixes(t, first, ops),
        Op::InsertPolicy { key, entry } => one(t.policy.insert(key, entry)),
        Op::DeletePolicy { .. } => delete(&t.policy, ops, |op| match op {
            Op::DeletePolicy { key } => Some(*key),
            _ => None,
        }),
        Op::InsertPort { prefix, value } => one(t.ports.insert(&(*prefix).into(), value)),
        Op::DeletePort { .. } => delete(&t.ports, ops, |op| match op {
            Op::DeletePort { prefix } => Some((*prefix).into()),
            _ => None,
        }),
        Op::PutServiceRecord { .. } | Op::InsertService { .. } | Op::DeleteService { .. } => {
            run_services(t, first, ops)
        }
        Op::Flip { live } => one(t.live.put(&0, live)),
        Op::Grace => one(grace.wait()),
    }
}

fn run_prefixes(t: &Tables, first: &Op, ops: &[Op]) -> (usize, io::Result<()>) {
    match first {
        Op::PutPrefix { prefix: IpNet::V4(_), .. } => t.prefixes4.put_all(&leading(ops, |op| match op {
            Op::PutPrefix { prefix: IpNet::V4(net), pair } => Some(((*net).into(), *pair)),
            _ => None,
        })),
        Op::PutPrefix { prefix: IpNet::V6(_), .. } => t.prefixes6.put_all(&leading(ops, |op| match op {
            Op::PutPrefix { prefix: IpNet::V6(net), pair } => Some(((*net).into(), *pair)),
            _ => None,
        })),
        Op::DeletePrefix { prefix: IpNet::V4(_) } => delete(&t.prefixes4, ops, |op| match op {
            Op::DeletePrefix { prefix: IpNet::V4(net) } => Some((*net).into()),
            _ => None,
        }),
        _ => delete(&t.prefixes6, ops, |op| match op {
            Op::DeletePrefix { prefix: IpNet::V6(net) } => Some((*net).into()),
            _ => None,
        }),
    }
}

fn run_services(t: &Tables, first: &Op, ops: &[Op]) -> (usize, io::Result<()>) {
    let gone = |op: &Op| if let Op::DeleteService { key } = op { Some(row(key)) } else { None };
    match first {
        Op::InsertService { key, slot } => one(match row(key) {
            Row::V4(key) => t.services4.insert(&key, slot),
            Row::V6(key) => t.services6.insert(&key, slot),
        }),
        Op::DeleteService { key } if key.address.is_ipv4() => {
            delete(&t.services4, ops, |op| match gone(op) {
                Some(Row::V4(key)) => Some(key),
                _ => None,
            })
        }
        Op::DeleteService { .. } => delete(&t.services6, ops, |op| match gone(op) {
            Some(Row::V6(key)) => Some(key),
            _ => None,
        }),
        _ => t.service_records.put_all(&leading(ops, |op| match op {
            Op::PutServiceRecord { slot, bank, record } => Some((record_index(*slot, *bank), *record)),
            _ => None,
        })),
    }
}

/// The key of what is translated, in the table of its family.
enum Row {
    V4(ServiceKey4),
    V6(ServiceKey6),
}

fn row(key: &ServiceKey) -> Row {
    let (port, protocol, pad) = (Be16::new(key.port), key.protocol, 0);
    match key.address {
        IpAddr::V4(address) => Row::V4(ServiceKey4 { address: address.into(), port, protocol, pad }),
        IpAddr::V6(address) => Row::V6(ServiceKey6 { address: address.into(), port, protocol, pad }),
    }
}

fn delete<K: Plain, V: Plain>(
    table: &Table<K, V>,
    ops: &[Op],
    take: impl Fn(&Op) -> Option<K>,
) -> (usize, io::Result<()>) {
    let (done, _, result) = table.delete_all(&leading(ops, take));
    (done, result)
}

/// A single write. Inserts go one by one: the kernel refuses `BPF_NOEXIST` for a batch, and without it a batch would
/// replace a live row of a hash.
fn one(result: io::Result<()>) -> (usize, io::Result<()>) {
    (usize::from(result.is_ok()), result)
}

/// A write, for people.
fn name(op: &Op) -> String {
    match op {
        Op::PutRecord { slot, bank, .. } => format!("RECORDS[{slot}, bank {bank}]"),
        Op::InsertEndpoint { ifindex, slot } => format!("insert into ENDPOINTS {ifindex} -> {slot}"),
        Op::DeleteEndpoint { ifindex } => format!("delete from ENDPOINTS {ifindex}"),
        Op::PutClass { slot, .. } => format!("CLASSES[{slot}]"),
        Op::InsertAddress { address, slot } => format!("insert into ADDRESSES {address} -> {slot}"),
        Op::DeleteAddress { address } => format!("delete from ADDRESSES {address}"),
        Op::PutPrefix { prefix, .. } => format!("PREFIXES {prefix}"),
        Op::DeletePrefix { prefix } => format!("delete from PREFIXES {prefix}"),
        Op::InsertPolicy { key, .. } => {
            format!("insert into POLICY image {:#x} class {:#x}", key.image, key.class)
        }
        Op::DeletePolicy { key } => {
            format!("delete from POLICY image {:#x} class {:#x}", key.image, key.class)
        }
        Op::InsertPort { prefix: (key, bits), .. } => format!("insert into PORTS {key:?}/{bits}"),
        Op::DeletePort { prefix: (key, bits) } => format!("delete from PORTS {key:?}/{bits}"),
        Op::PutServiceRecord { slot, bank, .. } => format!("SERVICE_RECORDS[{slot}, bank {bank}]"),
        Op::InsertService { key, slot } => {
            format!(
                "insert into SERVICES {} port {} protocol {} -> {slot}",
                key.address, key.port, key.protocol
            )
        }
        Op::DeleteService { key } => {
            format!("delete from SERVICES {} port {} protocol {}", key.address, key.port, key.protocol)
        }
        Op::Flip { live } => format!("flip to revision {}", live.0),
        Op::Grace => "grace period".to_owned(),
    }
}
