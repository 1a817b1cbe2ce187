//! The class of every address in one state: in the live bank, or as wanted.

use alloc::collections::{BTreeMap, BTreeSet};
use core::net::IpAddr;

use cellwall_abi::{CLASS_WORLD, ClassPair};
use ipnet::IpNet;

use crate::prefix::Prefixes;
use crate::wanted::Observed;

/// Exact, else longest prefix, else the world: the programs' order.
pub(super) struct View<'a> {
    pub(super) addresses: &'a BTreeMap<IpAddr, u32>,
    prefixes: &'a BTreeMap<IpNet, u32>,
    longest: Prefixes<'a, u32>,
}

impl<'a> View<'a> {
    pub(super) fn new(addresses: &'a BTreeMap<IpAddr, u32>, prefixes: &'a BTreeMap<IpNet, u32>) -> Self {
        Self { addresses, prefixes, longest: Prefixes::new(prefixes) }
    }

    pub(super) fn class(&self, address: IpAddr) -> u32 {
        self.addresses.get(&address).copied().unwrap_or_else(|| self.by_prefix(address))
    }

    /// What the address would be without a row of its own.
    pub(super) fn by_prefix(&self, address: IpAddr) -> u32 {
        self.longest.address(address).copied().unwrap_or(CLASS_WORLD)
    }

    /// What the addresses of `net` are that no longer prefix names.
    pub(super) fn within(&self, net: IpNet) -> u32 {
        self.longest.within(net).copied().unwrap_or(CLASS_WORLD)
    }
}

/// Addresses and prefixes with their classes in the live bank.
pub(super) fn live(observed: &Observed) -> (BTreeMap<IpAddr, u32>, BTreeMap<IpNet, u32>) {
    let bank = observed.live.bank();
    let pair = |slot: &u32| observed.classes.get(slot).copied().unwrap_or(ClassPair::default());
    (
        observed.addresses.iter().map(|(address, slot)| (*address, pair(slot).class(bank))).collect(),
        observed.prefixes.iter().map(|(net, pair)| (*net, pair.class(bank))).collect(),
    )
}

/// Every (old class, new class) of some address whose class is another one. Two states that agree at every row of
/// either agree everywhere: the longest row that holds an address in one of them is a row of both together.
pub(super) fn moved(live: &View<'_>, target: &View<'_>) -> BTreeSet<(u32, u32)> {
    let addresses = live.addresses.keys().chain(target.addresses.keys());
    let nets = live.prefixes.keys().chain(target.prefixes.keys());
    addresses
        .map(|address| (live.class(*address), target.class(*address)))
        .chain(nets.map(|net| (live.within(*net), target.within(*net))))
        .filter(|(old, new)| old != new)
        .collect()
}
