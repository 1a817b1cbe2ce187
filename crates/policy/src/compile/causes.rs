//! Which object asks for the rows of a table: asked only when they do not fit.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use ipnet::IpNet;

use super::sets::PeerSet;
use crate::model::ObjectKey;
use crate::wanted::{ServiceKey, Wanted};

/// How many rows each object asks for.
pub(crate) type Shares = BTreeMap<ObjectKey, usize>;

/// What compilation knows of the reasons for its rows. Not written to the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Causes {
    /// The sets in use, by id.
    pub(crate) sets: Arc<BTreeMap<u32, PeerSet>>,
    /// Which rule uses which set: (set, rule).
    pub(crate) users: BTreeSet<(u32, u32)>,
    /// The sets of each class.
    pub(crate) classes: BTreeMap<u32, Vec<u32>>,
    /// How many ranges of ports each rule names; rules that name none are left out.
    pub(crate) ranges: BTreeMap<u32, usize>,
    /// The Service or pod that asks for each row of SERVICES4 and SERVICES6; of several the first.
    pub(crate) services: BTreeMap<ServiceKey, ObjectKey>,
}

impl Causes {
    /// Shares in PREFIXES4 or PREFIXES6: a set has the rows of its blocks and their exceptions.
    pub(crate) fn prefixes(&self, wanted: &Wanted, v6: bool) -> Shares {
        let is_row = |net: &&IpNet| net.addr().is_ipv6() == v6 && wanted.prefixes.contains_key(*net);
        let rows = |set: &PeerSet| {
            let nets = set.blocks().flat_map(|block| block.except.iter().chain([&block.cidr]));
            nets.filter(is_row).collect::<BTreeSet<_>>().len()
        };
        self.of_sets(wanted, self.sets.iter().map(|(id, set)| (*id, rows(set))).collect())
    }

    /// Shares in POLICY. A class has its rows, one for each image that answers it in its own way, to whichever policy
    /// the image is of; and it is there because of that set of it which the fewest classes have: one that names
    /// everything is in all classes and makes none of them.
    pub(crate) fn policy(&self, wanted: &Wanted) -> Shares {
        let mut in_classes: BTreeMap<u32, usize> = BTreeMap::new();
        for set in self.classes.values().flatten() {
            *in_classes.entry(*set).or_default() += 1;
        }
        let mut rows: BTreeMap<u32, usize> = BTreeMap::new();
        for key in wanted.policy.keys() {
            let sets = self.classes.get(&key.class).into_iter().flatten();
            if let Some(set) = sets.min_by_key(|set| in_classes.get(*set)) {
                *rows.entry(*set).or_default() += 1;
            }
        }
        self.of_sets(wanted, rows)
    }

    /// Shares in PORTS. Rules share the rows of a list as they name ranges: what splits the wide range of another is
    /// the cause of the pieces.
    pub(crate) fn ports(&self, wanted: &Wanted) -> Shares {
        let mut lists: BTreeMap<u32, (usize, BTreeSet<u32>)> = BTreeMap::new();
        for ((key, _), value) in &wanted.ports {
            let (rows, rules) = lists.entry(key.list.get()).or_default();
            *rows += 1;
            rules.insert(value.rule);
        }
        let mut shares = Shares::new();
        for (rows, rules) in lists.values() {
            let named = rules.iter().filter_map(|rule| Some((*rule, *self.ranges.get(rule)?)));
            let all: usize = named.clone().map(|(_, ranges)| ranges).sum();
            for (rule, ranges) in named {
                if let Some(rule) = wanted.rules.get(&rule) {
                    add(&mut shares, &rule.policy, (rows * ranges).div_ceil(all));
                }
            }
        }
        shares
    }

    /// Shares in SERVICES4 or SERVICES6.
    pub(crate) fn services(&self, wanted: &Wanted, v6: bool) -> Shares {
        let mut shares = Shares::new();
        let is_row = |key: &ServiceKey| key.address.is_ipv6() == v6 && wanted.services.contains_key(key);
        for (_, object) in self.services.iter().filter(|(key, _)| is_row(key)) {
            add(&mut shares, object, 1);
        }
        shares
    }

    /// How long the lists of peers of each policy are: no measure of anything, but for a planted bug.
    pub(crate) fn lengths(&self, wanted: &Wanted) -> Shares {
        self.of_sets(wanted, self.sets.iter().map(|(id, set)| (*id, set.peers.len())).collect())
    }

    /// Rows of sets as rows of the policies that use them, in equal parts.
    fn of_sets(&self, wanted: &Wanted, rows: BTreeMap<u32, usize>) -> Shares {
        let mut shares = Shares::new();
        for (set, rows) in rows {
            let rules = self.users.range((set, 0)..=(set, u32::MAX));
            let policies: BTreeSet<&ObjectKey> =
                rules.filter_map(|(_, rule)| Some(&wanted.rules.get(rule)?.policy)).collect();
            for policy in &policies {
                add(&mut shares, policy, rows.div_ceil(policies.len()));
            }
        }
        shares
    }
}

fn add(shares: &mut Shares, policy: &ObjectKey, rows: usize) {
    if rows > 0 {
        *shares.entry(policy.clone()).or_default() += rows;
    }
}
