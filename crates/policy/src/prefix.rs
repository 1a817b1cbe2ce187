//! Longest-prefix match over a sorted map: what the kernel's prefix tables do, for deciding what to put there.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;

/// A map of prefixes, and the lengths that occur in it.
#[derive(Debug)]
pub(crate) struct Prefixes<'a, T> {
    map: &'a BTreeMap<IpNet, T>,
    /// Per family (IPv4, IPv6), longest first.
    lengths: [Vec<u8>; 2],
}

/// The prefix that holds one address.
pub(crate) fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

/// A prefix with its host bits cleared, cut to `length`.
fn cut(net: IpNet, length: u8) -> IpNet {
    IpNet::new(net.addr(), length).expect("a length that occurs in the family").trunc()
}

impl<'a, T> Prefixes<'a, T> {
    pub(crate) fn new(map: &'a BTreeMap<IpNet, T>) -> Self {
        let mut lengths = [BTreeSet::new(), BTreeSet::new()];
        for net in map.keys() {
            lengths[usize::from(matches!(net, IpNet::V6(_)))].insert(net.prefix_len());
        }
        Self { map, lengths: lengths.map(|set| set.into_iter().rev().collect()) }
    }

    fn find(&self, net: IpNet, longest: u8) -> Option<&'a T> {
        let lengths = &self.lengths[usize::from(matches!(net, IpNet::V6(_)))];
        lengths
            .iter()
            .filter(|length| **length <= longest)
            .find_map(|length| self.map.get(&cut(net, *length)))
    }

    /// What holds for an address.
    pub(crate) fn address(&self, address: IpAddr) -> Option<&'a T> {
        let net = host(address);
        self.find(net, net.prefix_len())
    }

    /// What holds for the addresses of `net`, a row for `net` itself included.
    pub(crate) fn within(&self, net: IpNet) -> Option<&'a T> {
        self.find(net, net.prefix_len())
    }
}
