//! Which sets a prefix is in by its blocks.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;

use super::sets::PeerSet;
use crate::prefix::Prefixes;

/// For every CIDR and exception of the sets: the sets that addresses there are in, sorted.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    nodes: BTreeMap<IpNet, Vec<u32>>,
}

/// What a prefix adds to its sets on the way down: one for a CIDR, minus one for an exception. An address is in a
/// set when the sum over the prefixes that hold it is positive, which makes the list of blocks the union that it
/// is (S51).
fn contributions(sets: &BTreeMap<u32, PeerSet>) -> BTreeMap<IpNet, Vec<(u32, i32)>> {
    let mut at: BTreeMap<IpNet, Vec<(u32, i32)>> = BTreeMap::new();
    for (id, set) in sets {
        for block in set.blocks() {
            at.entry(block.cidr).or_default().push((*id, 1));
            let outermost = |e: &&IpNet| !block.except.iter().any(|other| other != *e && other.contains(*e));
            let mut except: Vec<&IpNet> = block.except.iter().filter(outermost).collect();
            except.dedup();
            for net in except.into_iter().filter(|_| !crate::planted("except-ignored")) {
                at.entry(*net).or_default().push((*id, -1));
            }
        }
    }
    at
}

impl Blocks {
    /// Walks all prefixes from the shortest down. A sorted map of prefixes is in the order of such a walk.
    pub(crate) fn new(sets: &BTreeMap<u32, PeerSet>) -> Self {
        let at = contributions(sets);
        let mut nodes = BTreeMap::new();
        let mut sums: BTreeMap<u32, i32> = BTreeMap::new();
        let mut above: Vec<(IpNet, &[(u32, i32)])> = Vec::new();
        for (net, here) in &at {
            while let Some((upper, added)) = above.last()
                && !upper.contains(net)
            {
                add(&mut sums, added, -1);
                above.pop();
            }
            add(&mut sums, here, 1);
            above.push((*net, here));
            nodes.insert(*net, sums.iter().filter(|(_, sum)| **sum > 0).map(|(id, _)| *id).collect());
        }
        Self { nodes }
    }

    /// Every prefix with its sets, shorter before longer.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&IpNet, &Vec<u32>)> {
        self.nodes.iter()
    }

    /// Answers for addresses.
    pub(crate) fn finder(&self) -> Finder<'_> {
        Finder { prefixes: Prefixes::new(&self.nodes) }
    }
}

fn add(sums: &mut BTreeMap<u32, i32>, changes: &[(u32, i32)], sign: i32) {
    for (id, change) in changes {
        let sum = sums.entry(*id).or_insert(0);
        *sum += sign * change;
        if *sum == 0 {
            sums.remove(id);
        }
    }
}

/// The sets of an address by blocks alone.
#[derive(Debug)]
pub(crate) struct Finder<'a> {
    prefixes: Prefixes<'a, Vec<u32>>,
}

impl Finder<'_> {
    pub(crate) fn sets(&self, address: IpAddr) -> &[u32] {
        self.prefixes.address(address).map_or(&[], Vec::as_slice)
    }
}
