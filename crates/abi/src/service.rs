//! Addresses that this node translates: what kube-proxy, or whatever stands in for it, rewrites before a packet
//! leaves the node.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr6, Be16, Be32};

/// The row is a Service in this bank. Without it the row is there for the other bank alone.
pub const SERVICE_TRANSLATED: u32 = 1;
/// More backends than [`SERVICE_BACKENDS`] would have to be judged at the source: an isolated pod is denied.
pub const SERVICE_TOO_MANY: u32 = 2;
/// A backend is where a node takes packets out of a tunnel: no pod may be led there, isolated or not.
pub const SERVICE_TUNNEL: u32 = 4;

/// True for the UDP ports of VXLAN (RFC 7348, and what Linux had before it) and Geneve (RFC 8926).
#[inline(always)]
#[must_use]
pub const fn is_tunnel_port(port: u16) -> bool {
    matches!(port, 4789 | 8472 | 6081)
}

/// Backends that can be judged at the source.
pub const SERVICE_BACKENDS: usize = 4;

/// The bit of a stamp's `tc_index` that says that the connection is deferred: its own tuple is not looked for. The
/// others are the pod's slot plus one, so slots end at [`STAMP_SLOTS`].
pub const STAMP_DEFERRED: u32 = 0x8000;
/// Slots of pods that a stamp can name: 0 to this, less one.
pub const STAMP_SLOTS: u32 = STAMP_DEFERRED - 1;

/// Key of an IPv4 address, port and protocol that this node translates: a cluster IP, an external IP, a
/// load-balancer IP in VIP mode, and a node port or host port on each address of this node.
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
pub struct ServiceKey4 {
    /// The virtual address.
    pub address: Be32,
    /// The port of the Service.
    pub port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// Key of an IPv6 address, port and protocol that this node translates; see [`ServiceKey4`].
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
pub struct ServiceKey6 {
    /// The virtual address.
    pub address: Addr6,
    /// The port of the Service.
    pub port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// A backend that no later hook sees: the packet is delivered on this node itself.
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
pub struct ServiceBackend {
    /// Address; one of IPv4 stands in the first word, as in [`crate::Event`].
    pub address: Addr6,
    /// Port.
    pub port: Be16,
    /// Zero.
    pub pad: [u8; 2],
}

/// What is known of a translated address in one bank.
///
/// Policy is about backends, and which one is chosen is kube-proxy's business. So the source is not judged on what it
/// asked for: its connection is *deferred*, its packets carry a stamp, and the next hook that sees the stamp judges
/// the destination that was chosen. What is delivered on this node itself passes no further hook. The backends of that
/// kind stand here, and the source is judged on every one of them: all must be allowed.
///
/// The key leads to a slot (a hash whose rows are only inserted and deleted) and `slot * 2 + bank` to this, in an
/// array, as for endpoints: the idle bank is rewritten in place. All backends use the protocol of the key.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ServiceRecord {
    /// `SERVICE_*`.
    pub flags: u32,
    /// Backends in use.
    pub count: u32,
    /// Backends that the source is judged on.
    pub backends: [ServiceBackend; SERVICE_BACKENDS],
}
