//! Whether everything fits, with what leaves only after the flip.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};

use cellwall_abi::tables;

use super::{Capacities, Refusal};
use crate::model::Kind;
use crate::wanted::{Observed, Wanted};

/// Refuses the whole when one table is too small.
pub(super) fn check(wanted: &Wanted, observed: &Observed, capacities: &Capacities) -> Result<(), Refusal> {
    let policy = || costliest(wanted, |kind| !is_service(kind));
    let pods = || String::from("the pods and nodes of the cluster");
    let c = capacities;
    fits(&tables::ENDPOINTS, union(&wanted.endpoints, &observed.endpoints, |_| true), c.endpoints, || {
        String::from("the interfaces of this node")
    })?;
    let addresses = |v6: bool| union(&wanted.addresses, &observed.addresses, move |a| a.is_ipv6() == v6);
    fits(&tables::ADDRESSES4, addresses(false), c.addresses, pods)?;
    fits(&tables::ADDRESSES6, addresses(true), c.addresses, pods)?;
    let prefixes = |v6: bool| union(&wanted.prefixes, &observed.prefixes, move |p| p.addr().is_ipv6() == v6);
    fits(&tables::PREFIXES4, prefixes(false), c.prefixes, policy)?;
    fits(&tables::PREFIXES6, prefixes(true), c.prefixes, policy)?;
    fits(&tables::POLICY, union(&wanted.policy, &observed.policy, |_| true), c.policy, policy)?;
    fits(&tables::PORTS, union(&wanted.ports, &observed.ports, |_| true), c.ports, policy)?;
    let services =
        |v6: bool| union(&wanted.services, &observed.services, move |key| key.address.is_ipv6() == v6);
    fits(&tables::SERVICES4, services(false), c.services, || costliest(wanted, is_service))?;
    fits(&tables::SERVICES6, services(true), c.services, || costliest(wanted, is_service))
}

/// True for what asks for rows of SERVICES4 and SERVICES6.
const fn is_service(kind: Kind) -> bool {
    matches!(kind, Kind::Service | Kind::Pod)
}

fn fits(
    table: &tables::Table,
    wanted: usize,
    capacity: u32,
    object: impl FnOnce() -> String,
) -> Result<(), Refusal> {
    if wanted <= capacity as usize {
        return Ok(());
    }
    Err(Refusal { table: table.name, wanted, capacity, object: object() })
}

/// Keys of either map.
fn union<K: Ord, A, B>(a: &BTreeMap<K, A>, b: &BTreeMap<K, B>, counts: impl Fn(&K) -> bool) -> usize {
    a.keys().filter(|key| counts(key)).count()
        + b.keys().filter(|key| counts(key) && !a.contains_key(key)).count()
}

/// The object that asks for most, among those of some kinds.
fn costliest(wanted: &Wanted, counts: impl Fn(Kind) -> bool) -> String {
    let asking = wanted.cost.iter().filter(|(key, _)| counts(key.kind));
    let greatest = asking.max_by_key(|(_, cost)| **cost);
    greatest.map_or_else(|| String::from("nothing that is there now"), |(key, _)| key.to_string())
}
