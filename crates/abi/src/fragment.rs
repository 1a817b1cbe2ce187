//! Later fragments carry no ports: they follow their first.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr6, Be32};

/// Key of an IPv4 datagram in fragments (RFC 791: source, destination, protocol, identification), at one hook.
#[derive(
    Clone,
    Copy,
    Default,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct FragmentKey4 {
    /// Index of the host side of the pod's interface.
    pub ifindex: u32,
    /// Source address.
    pub source: Be32,
    /// Destination address.
    pub destination: Be32,
    /// Identification, as loaded.
    pub id: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// [`crate::Direction`] as a number.
    pub direction: u8,
    /// 0 at the pod's own hooks; 1 behind a translation, where `ifindex` is that of the pod that sent it.
    pub stage: u8,
    /// Zero.
    pub pad: u8,
}

/// Key of an IPv6 packet in fragments (RFC 8200, 4.5), at one hook.
#[derive(
    Clone,
    Copy,
    Default,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct FragmentKey6 {
    /// Index of the host side of the pod's interface.
    pub ifindex: u32,
    /// Source address.
    pub source: Addr6,
    /// Destination address.
    pub destination: Addr6,
    /// Identification, as loaded.
    pub id: u32,
    /// Protocol number of the first header behind the fragment header.
    pub protocol: u8,
    /// [`crate::Direction`] as a number.
    pub direction: u8,
    /// 0 at the pod's own hooks; 1 behind a translation, where `ifindex` is that of the pod that sent it.
    pub stage: u8,
    /// Zero.
    pub pad: u8,
}

/// What the first fragment was told. Of two with one key an allowed one replaces what is there and a denied one does not: it
/// is dropped itself, so it must not take what follows from the other. An allowed one holds only in the revision it was given
/// in.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Fragment {
    /// Revision of the verdict.
    pub revision: u64,
    /// Id of the rule.
    pub rule: u32,
    /// Tick of the first fragment.
    pub seen: u32,
    /// [`crate::ACTION_ALLOW`] or [`crate::ACTION_DENY`].
    pub action: u8,
    /// Zero.
    pub pad: [u8; 7],
}
