//! Whether everything fits, with what leaves only after the flip, and if not, who makes room.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::IpAddr;

use cellwall_abi::{CLASS_UNKNOWN_POD, tables};
use ipnet::IpNet;

use super::{Capacities, Refusal};
use crate::compile::Shares;
use crate::model::ObjectKey;
use crate::wanted::{Observed, ServiceKey, Wanted};

/// What no object asks for any more: it stands in the tables and leaves after the flip.
const GONE: &str = "nothing that is there now";

/// What asks for most rows, and for how many.
type Asks = (String, usize);

/// The rows of one table.
struct Rows {
    table: &'static str,
    setting: &'static str,
    /// Rows that are wanted.
    wanted: usize,
    /// Those and the ones that leave after the flip.
    together: usize,
    capacity: usize,
}

/// Refuses the whole when one table is too small.
pub(super) fn check(wanted: &Wanted, observed: &Observed, capacities: &Capacities) -> Result<(), Refusal> {
    let (w, o, c) = (wanted, observed, capacities);
    let rows = Rows::of(&tables::ENDPOINTS, "endpoints", c.endpoints, &w.endpoints, &o.endpoints, |_| true);
    rows.fit(|rows| all("the interfaces of this node", rows), |_| Shares::new())?;
    for (table, v6) in [(&tables::ADDRESSES4, false), (&tables::ADDRESSES6, true)] {
        let of_family = |address: &IpAddr| address.is_ipv6() == v6;
        let rows = Rows::of(table, "addresses", c.addresses, &w.addresses, &o.addresses, of_family);
        rows.fit(|rows| all("the pods and nodes of the cluster", rows), |_| Shares::new())?;
    }
    let rows_of = |is_new: bool| if is_new { new_rows(w, o) } else { w.clone() };
    for (table, v6) in [(&tables::PREFIXES4, false), (&tables::PREFIXES6, true)] {
        let of_family = |net: &IpNet| net.addr().is_ipv6() == v6;
        let rows = Rows::of(table, "prefixes", c.prefixes, &w.prefixes, &o.prefixes, of_family);
        let shares = |is_new| w.causes.prefixes(&rows_of(is_new), v6);
        rows.fit(|rows| prefixes(w, rows, v6), shares)?;
    }
    // Rows of images and lists are new ones whenever their policies are others: leaving out one makes no room before the flip.
    let steady = |is_new: bool, shares: &dyn Fn() -> Shares| if is_new { Shares::new() } else { shares() };
    let rows = Rows::of(&tables::POLICY, "policy", c.policy, &w.policy, &o.policy, |_| true);
    rows.fit(|rows| most(w, rows, w.causes.policy(w)), |is_new| steady(is_new, &|| w.causes.policy(w)))?;
    let rows = Rows::of(&tables::PORTS, "ports", c.ports, &w.ports, &o.ports, |_| true);
    rows.fit(|rows| most(w, rows, w.causes.ports(w)), |is_new| steady(is_new, &|| w.causes.ports(w)))?;
    for (table, v6) in [(&tables::SERVICES4, false), (&tables::SERVICES6, true)] {
        let of_family = |key: &ServiceKey| key.address.is_ipv6() == v6;
        let rows = Rows::of(table, "services", c.services, &w.services, &o.services, of_family);
        let shares = |is_new| w.causes.services(&rows_of(is_new), v6);
        rows.fit(|rows| most(w, rows, w.causes.services(w, v6)), shares)?;
    }
    Ok(())
}

impl Rows {
    fn of<K: Ord, A, B>(
        table: &tables::Table,
        setting: &'static str,
        capacity: u32,
        wanted: &BTreeMap<K, A>,
        observed: &BTreeMap<K, B>,
        counts: impl Fn(&K) -> bool,
    ) -> Self {
        let gone = observed.keys().filter(|key| counts(key) && !wanted.contains_key(key)).count();
        let wanted = wanted.keys().filter(|key| counts(key)).count();
        let capacity = capacity as usize;
        Self { table: table.name, setting, wanted, together: wanted + gone, capacity }
    }

    /// `shares` are those in all that is wanted, or in what is not there yet.
    fn fit(&self, asks: impl Fn(usize) -> Asks, shares: impl Fn(bool) -> Shares) -> Result<(), Refusal> {
        if self.together <= self.capacity {
            return Ok(());
        }
        let (object, rows) = asks(self.together);
        // What will not fit is left out. What only has to wait until others have left is, too, until then.
        let leave_out = match self.wanted.checked_sub(self.capacity) {
            Some(over) if over > 0 => leave_out(shares(false), over),
            _ => leave_out(shares(true), self.together - self.capacity),
        };
        Err(Refusal {
            table: self.table,
            wanted: self.together,
            capacity: self.capacity,
            setting: self.setting,
            object,
            rows: rows.min(self.together),
            leave_out,
        })
    }
}

/// Who makes room for `over` rows: the largest first, of the namespace that asks for most, so that nobody loses a Service
/// because of what is written in another's namespace. Empty where nobody could.
fn leave_out(shares: Shares, over: usize) -> Vec<(ObjectKey, usize)> {
    type Objects = Vec<(usize, Reverse<ObjectKey>)>;
    let mut namespaces: BTreeMap<String, (usize, Objects)> = BTreeMap::new();
    for (key, rows) in shares {
        let (total, objects) = namespaces.entry(key.namespace.clone()).or_default();
        *total += rows;
        objects.push((rows, Reverse(key)));
    }
    for (_, objects) in namespaces.values_mut() {
        objects.sort();
    }
    let mut chosen = Vec::new();
    let mut freed = 0;
    while freed < over {
        let largest =
            namespaces.iter_mut().max_by_key(|(name, (total, _))| (*total, Reverse((*name).clone())));
        let Some((_, (total, objects))) = largest else { break };
        let Some((rows, Reverse(key))) = objects.pop() else { break };
        *total -= rows;
        freed += rows;
        chosen.push((key, rows));
    }
    chosen
}

/// What is wanted and not there yet, of the tables that are shared out.
fn new_rows(wanted: &Wanted, observed: &Observed) -> Wanted {
    let mut new = Wanted {
        prefixes: wanted.prefixes.clone(),
        services: wanted.services.clone(),
        rules: wanted.rules.clone(),
        ..Wanted::default()
    };
    new.prefixes.retain(|net, _| !observed.prefixes.contains_key(net));
    new.services.retain(|key, _| !observed.services.contains_key(key));
    new
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
