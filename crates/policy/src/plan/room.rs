//! Whether everything fits, with what leaves only after the flip.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use core::cmp::Reverse;
use core::net::IpAddr;

use cellwall_abi::{CLASS_UNKNOWN_POD, tables};
use ipnet::IpNet;

use super::{Capacities, Refusal};
use crate::compile::Shares;
use crate::wanted::{Observed, ServiceKey, Wanted};

/// What no object asks for any more: it stands in the tables and leaves after the flip.
const GONE: &str = "nothing that is there now";

/// What asks for most rows, and for how many.
type Asks = (String, usize);

/// Refuses the whole when one table is too small.
pub(super) fn check(wanted: &Wanted, observed: &Observed, capacities: &Capacities) -> Result<(), Refusal> {
    let (w, o, c) = (wanted, observed, capacities);
    let rows = union(&w.endpoints, &o.endpoints, |_| true);
    fits(&tables::ENDPOINTS, "endpoints", rows, c.endpoints, || all("the interfaces of this node", rows))?;
    for (table, v6) in [(&tables::ADDRESSES4, false), (&tables::ADDRESSES6, true)] {
        let rows = union(&w.addresses, &o.addresses, |address: &IpAddr| address.is_ipv6() == v6);
        fits(table, "addresses", rows, c.addresses, || all("the pods and nodes of the cluster", rows))?;
    }
    for (table, v6) in [(&tables::PREFIXES4, false), (&tables::PREFIXES6, true)] {
        let rows = union(&w.prefixes, &o.prefixes, |net: &IpNet| net.addr().is_ipv6() == v6);
        fits(table, "prefixes", rows, c.prefixes, || prefixes(w, rows, v6))?;
    }
    let rows = union(&w.policy, &o.policy, |_| true);
    fits(&tables::POLICY, "policy", rows, c.policy, || most(w, rows, w.causes.policy(w)))?;
    let rows = union(&w.ports, &o.ports, |_| true);
    fits(&tables::PORTS, "ports", rows, c.ports, || most(w, rows, w.causes.ports(w)))?;
    for (table, v6) in [(&tables::SERVICES4, false), (&tables::SERVICES6, true)] {
        let rows = union(&w.services, &o.services, |key: &ServiceKey| key.address.is_ipv6() == v6);
        fits(table, "services", rows, c.services, || most(w, rows, w.causes.services.clone()))?;
    }
    Ok(())
}

fn fits(
    table: &tables::Table,
    setting: &'static str,
    wanted: usize,
    capacity: u32,
    asks: impl FnOnce() -> Asks,
) -> Result<(), Refusal> {
    if wanted <= capacity as usize {
        return Ok(());
    }
    let (object, rows) = asks();
    // A Service's share is of both families.
    Err(Refusal { table: table.name, wanted, capacity, setting, object, rows: rows.min(wanted) })
}

/// Keys of either map.
fn union<K: Ord, A, B>(a: &BTreeMap<K, A>, b: &BTreeMap<K, B>, counts: impl Fn(&K) -> bool) -> usize {
    a.keys().filter(|key| counts(key)).count()
        + b.keys().filter(|key| counts(key) && !a.contains_key(key)).count()
}

fn all(object: &str, rows: usize) -> Asks {
    (String::from(object), rows)
}

/// The object with the largest share; of equal ones the first by name.
fn largest(wanted: &Wanted, shares: Shares) -> Option<Asks> {
    let is_wrong = crate::planted("the-longest-list-of-peers-is-blamed");
    let shares = if is_wrong { wanted.causes.lengths(wanted) } else { shares };
    let largest = shares.into_iter().max_by_key(|(key, rows)| (*rows, Reverse(key.clone())));
    largest.map(|(key, rows)| (key.to_string(), rows))
}

fn most(wanted: &Wanted, rows: usize, shares: Shares) -> Asks {
    largest(wanted, shares).unwrap_or_else(|| all(GONE, rows))
}

/// Pod ranges are prefixes, too.
fn prefixes(wanted: &Wanted, rows: usize, v6: bool) -> Asks {
    let is_range = |(net, class): &(&IpNet, &u32)| net.addr().is_ipv6() == v6 && **class == CLASS_UNKNOWN_POD;
    let ranges = wanted.prefixes.iter().filter(is_range).count();
    match largest(wanted, wanted.causes.prefixes(wanted, v6)) {
        Some(policy) if policy.1 >= ranges => policy,
        None if ranges == 0 => all(GONE, rows),
        _ => all("the pod ranges of the cluster", ranges),
    }
}
