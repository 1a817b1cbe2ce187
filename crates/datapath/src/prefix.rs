//! Keys of the longest-prefix tables: `struct bpf_lpm_trie_key`, the length in bits and then the data.

use cellwall_abi::{Addr6, Be32, PortKey};
use cellwall_policy::wanted::PortPrefix;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Key of PREFIXES4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Prefix4 {
    bits: u32,
    address: Be32,
}

/// Key of PREFIXES6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Prefix6 {
    bits: u32,
    address: Addr6,
}

/// Key of PORTS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct PrefixPort {
    bits: u32,
    key: PortKey,
}

impl From<Ipv4Net> for Prefix4 {
    fn from(net: Ipv4Net) -> Self {
        Self { bits: net.prefix_len().into(), address: net.network().into() }
    }
}

impl From<Ipv6Net> for Prefix6 {
    fn from(net: Ipv6Net) -> Self {
        Self { bits: net.prefix_len().into(), address: net.network().into() }
    }
}

impl From<PortPrefix> for PrefixPort {
    fn from((key, bits): PortPrefix) -> Self {
        Self { bits, key }
    }
}

impl From<PrefixPort> for PortPrefix {
    fn from(prefix: PrefixPort) -> Self {
        (prefix.key, prefix.bits)
    }
}

impl Prefix4 {
    /// `None`: a length that the kernel does not accept.
    pub(crate) fn net(self) -> Option<IpNet> {
        Ipv4Net::new(self.address.into(), u8::try_from(self.bits).ok()?).ok().map(IpNet::V4)
    }
}

impl Prefix6 {
    /// `None`: a length that the kernel does not accept.
    pub(crate) fn net(self) -> Option<IpNet> {
        Ipv6Net::new(self.address.into(), u8::try_from(self.bits).ok()?).ok().map(IpNet::V6)
    }
}
