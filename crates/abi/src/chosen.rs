//! Destinations that were chosen for a pod by whoever translates addresses.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr6, Be16, Be32};

/// Key of an IPv4 destination that a pod's packets had behind a translation. Policy asks for nothing else, so all
/// connections of the pod to one backend share a row.
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
pub struct ChosenKey4 {
    /// Index of the host side of the interface of the pod that sent it.
    pub ifindex: u32,
    /// Destination address.
    pub address: Be32,
    /// Destination port; 0 for protocols of which rules name no ports.
    pub port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// Key of an IPv6 destination; see [`ChosenKey4`].
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
pub struct ChosenKey6 {
    /// Index of the host side of the interface of the pod that sent it.
    pub ifindex: u32,
    /// Destination address.
    pub address: Addr6,
    /// Destination port; 0 for protocols of which rules name no ports.
    pub port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// A destination that the pod's egress policy allows, or that was reported where the pod is audited.
///
/// It saves time and nothing else: a row that is lost is asked for again. It holds while the pod's record has a `since`
/// that is not later; denied destinations have no row.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Chosen {
    /// Revision of the verdict.
    pub revision: u64,
    /// Id of the rule that allowed it, or [`crate::RULE_NONE`].
    pub rule: u32,
    /// Zero.
    pub pad: u32,
}
