//! The tables that are not banked: what their rows mean follows from their ids, so a row is right or it is absent.

use alloc::collections::BTreeSet;

use cellwall_abi::{PolicyEntry, PolicyKey};

use crate::wanted::{Observed, PortPrefix, Wanted};

/// How POLICY and PORTS differ from what is wanted, for images, classes and lists that are wanted.
pub(super) struct Rows {
    pub(super) new_policy: BTreeSet<PolicyKey>,
    pub(super) new_ports: BTreeSet<PortPrefix>,
    /// Rows that say something else than wanted: an id was given again to other content, or somebody wrote there.
    pub(super) stale_policy: BTreeSet<PolicyKey>,
    pub(super) stale_ports: BTreeSet<PortPrefix>,
    /// Lists with a new or a stale row.
    lists: BTreeSet<u32>,
}

impl Rows {
    pub(super) fn compare(wanted: &Wanted, observed: &Observed) -> Self {
        let images: BTreeSet<u32> = wanted.endpoints.values().flat_map(|e| e.record.image).collect();
        let classes: BTreeSet<u32> =
            wanted.addresses.values().chain(wanted.prefixes.values()).copied().collect();
        let asked = |key: &PolicyKey| images.contains(&key.image) && classes.contains(&key.class);
        let lists: BTreeSet<u32> = wanted.ports.keys().map(|(key, _)| key.list.get()).collect();

        let new_policy = missing(wanted.policy.iter(), |key| observed.policy.get(key));
        let stale_policy = observed
            .policy
            .iter()
            .filter(|(key, entry)| match wanted.policy.get(key) {
                Some(wanted) => wanted != *entry,
                None => asked(key),
            })
            .map(|(key, _)| *key)
            .collect();
        let new_ports = missing(wanted.ports.iter(), |key| observed.ports.get(key));
        let stale_ports: BTreeSet<PortPrefix> = observed
            .ports
            .iter()
            .filter(|(prefix, value)| match wanted.ports.get(prefix) {
                Some(wanted) => wanted != *value,
                None => lists.contains(&prefix.0.list.get()),
            })
            .map(|(prefix, _)| *prefix)
            .collect();
        let lists = new_ports.iter().chain(&stale_ports).map(|(key, _)| key.list.get()).collect();
        Self { new_policy, new_ports, stale_policy, stale_ports, lists }
    }

    pub(super) fn is_equal(&self) -> bool {
        self.new_policy.is_empty()
            && self.new_ports.is_empty()
            && self.stale_policy.is_empty()
            && self.stale_ports.is_empty()
    }

    /// True when what `entry` says is another thing than before, although it names the same list.
    pub(super) fn changes_list_of(&self, entry: &PolicyEntry) -> bool {
        entry.list != 0 && self.lists.contains(&entry.list)
    }

    /// True when the row of `key` comes, or comes anew.
    pub(super) fn changes(&self, key: PolicyKey) -> bool {
        self.new_policy.contains(&key) || self.stale_policy.contains(&key)
    }
}

/// Keys of the rows that are not there as they should be.
fn missing<'a, K: Copy + Ord + 'a, V: PartialEq + 'a>(
    wanted: impl Iterator<Item = (&'a K, &'a V)>,
    observed: impl Fn(&K) -> Option<&'a V>,
) -> BTreeSet<K> {
    wanted.filter(|(key, value)| observed(key) != Some(*value)).map(|(key, _)| *key).collect()
}
