//! Numbers in network byte order, as types: a missing swap does not compile.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A 16-bit number in network byte order.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Be16(u16);

impl Be16 {
    /// From host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// From a value that was loaded from a packet without swapping.
    #[inline(always)]
    #[must_use]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    /// In host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

impl fmt::Debug for Be16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.get(), f)
    }
}

/// A 32-bit number in network byte order; also an IPv4 address.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Be32(u32);

impl Be32 {
    /// The number 0, and the address 0.0.0.0.
    pub const ZERO: Self = Self(0);

    /// From host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn new(host: u32) -> Self {
        Self(host.to_be())
    }

    /// From a value that was loaded from a packet without swapping.
    #[inline(always)]
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// In host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u32 {
        u32::from_be(self.0)
    }
}

impl From<Ipv4Addr> for Be32 {
    fn from(address: Ipv4Addr) -> Self {
        Self(u32::from_ne_bytes(address.octets()))
    }
}

impl From<Be32> for Ipv4Addr {
    fn from(address: Be32) -> Self {
        Self::from(address.0.to_ne_bytes())
    }
}

impl fmt::Debug for Be32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Ipv4Addr::from(*self), f)
    }
}

/// An IPv6 address as four words in network byte order: four loads and four compares in the kernel, where an
/// array of bytes would be sixteen.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Addr6([u32; 4]);

impl Addr6 {
    /// The unspecified address, `::`.
    pub const ZERO: Self = Self([0; 4]);

    /// From words that were loaded from a packet without swapping.
    #[inline(always)]
    #[must_use]
    pub const fn from_raw(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// Word `i` (0 to 3) in host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, i: usize) -> u32 {
        u32::from_be(self.0[i])
    }

    /// The sixteen bytes in network order.
    #[must_use]
    pub fn octets(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(self.0.as_bytes());
        bytes
    }
}

impl From<Ipv6Addr> for Addr6 {
    fn from(address: Ipv6Addr) -> Self {
        let b = address.octets();
        Self(core::array::from_fn(|i| {
            u32::from_ne_bytes([b[4 * i], b[4 * i + 1], b[4 * i + 2], b[4 * i + 3]])
        }))
    }
}

impl From<Addr6> for Ipv6Addr {
    fn from(address: Addr6) -> Self {
        Self::from(address.octets())
    }
}

impl From<Be32> for IpAddr {
    fn from(address: Be32) -> Self {
        Self::V4(address.into())
    }
}

impl From<Addr6> for IpAddr {
    fn from(address: Addr6) -> Self {
        Self::V6(address.into())
    }
}

impl fmt::Debug for Addr6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Ipv6Addr::from(*self), f)
    }
}

/// An Ethernet address in the order it stands in a frame; all zeroes: not known.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Mac(pub [u16; 3]);

impl Mac {
    /// Not known: nothing is compared with it.
    pub const UNKNOWN: Self = Self([0; 3]);

    /// From the six bytes of a frame or a netlink attribute.
    #[must_use]
    pub fn from_octets(b: [u8; 6]) -> Self {
        Self(core::array::from_fn(|i| u16::from_ne_bytes([b[2 * i], b[2 * i + 1]])))
    }

    /// The six bytes in the order of a frame.
    #[must_use]
    pub fn octets(self) -> [u8; 6] {
        let mut bytes = [0; 6];
        bytes.copy_from_slice(self.0.as_bytes());
        bytes
    }

    /// True for multicast and broadcast (the group bit, IEEE 802).
    #[inline(always)]
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0].to_ne_bytes()[0] & 1 != 0
    }

    /// True when nothing is known.
    #[inline(always)]
    #[must_use]
    pub const fn is_unknown(self) -> bool {
        self.0[0] | self.0[1] | self.0[2] == 0
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, octet) in self.octets().iter().enumerate() {
            write!(f, "{}{octet:02x}", if index == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}
