//! A connection, seen from one pod.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr6, Be16, Be32, Mac};

/// Key of an IPv4 connection. Local is the pod, so one lookup finds it from either direction; the interface index
/// keeps pods apart, so nothing that one pod sends can make an entry that another pod's packets hit.
///
/// An ICMP echo has its identifier as `local_port`; `remote_port` is 1 when the pod asked and 2 when it was asked:
/// a request never meets the entry of a request from the other side.
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
pub struct FlowKey4 {
    /// Index of the host side of the pod's interface.
    pub ifindex: u32,
    /// The pod's address.
    pub local: Be32,
    /// The other address.
    pub remote: Be32,
    /// The pod's port.
    pub local_port: Be16,
    /// The other port.
    pub remote_port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// Key of an IPv6 connection; see [`FlowKey4`].
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
pub struct FlowKey6 {
    /// Index of the host side of the pod's interface.
    pub ifindex: u32,
    /// The pod's address.
    pub local: Addr6,
    /// The other address.
    pub remote: Addr6,
    /// The pod's port.
    pub local_port: Be16,
    /// The other port.
    pub remote_port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// `state`: the other side has answered.
pub const CONN_REPLIED: u8 = 1;
/// `state`: three packets of a TCP handshake, or the opener's second packet after an answer.
pub const CONN_ESTABLISHED: u8 = 2;
/// `state`: the opener has sent FIN.
pub const CONN_FIN_OPENER: u8 = 4;
/// `state`: the replier has sent FIN.
pub const CONN_FIN_REPLIER: u8 = 8;
/// `state`: both FINs or a RST; `seen` no longer moves and the entry ends by itself.
pub const CONN_CLOSING: u8 = 16;
/// `state`: of a deferred connection, that its Service had a backend which no later hook sees.
pub const CONN_LISTED: u8 = 32;
/// `state`: of TCP, that nobody saw who opened it: its opener is whoever was seen first, and either may have.
pub const CONN_GUESSED: u8 = 64;

/// `flags`: the pod opened it, so its egress policy decides; else its ingress policy.
pub const CONN_OPENED_BY_POD: u8 = 1;
/// `flags`: opened by the pod's own node, allowed whatever the policy (S59).
pub const CONN_OWN_NODE: u8 = 2;
/// `flags`: the pod itself, come back through its own interface (S64).
pub const CONN_SELF: u8 = 4;
/// `flags`: policy denies it and the pod is audited.
pub const CONN_AUDIT: u8 = 8;
/// `flags`: no handshake was seen.
pub const CONN_MIDFLOW: u8 = 16;
/// `flags`: to an address that this node translates, so the hook that sees the destination judges it.
pub const CONN_DEFERRED: u8 = 32;
/// `flags`: a later hook has seen this very tuple: nothing translates it.
pub const CONN_DIRECT: u8 = 64;
/// `flags`: what the pod sends carries a stamp, so that a later hook judges it on the destination that it has there.
pub const CONN_STAMPED: u8 = 128;

/// A connection of one pod.
///
/// 56 bytes: with the key of IPv4 and what the kernel keeps of a row, 128, which is two cache lines, where 64 would be
/// three. `revision` equal to the live word means that the verdict stands and no policy is read.
/// Else the pod's record decides: at or after its `since`, the entry is stamped with the live revision and the
/// verdict stands; before it, policy is asked again in the opener's direction, and where the opener is a guess
/// ([`CONN_GUESSED`]) the connection is seen for the first time again.
///
/// Unanswered and answered connections live in different tables with this same value, so that a flood of the
/// former takes nothing from the latter. Counters are plain adds: two CPUs on one flow may lose a count, never a
/// verdict.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Conn {
    /// Revision in which the verdict was last known to hold.
    pub revision: u64,
    /// Bytes of whole frames into the pod, and out of it.
    pub bytes: [u64; 2],
    /// Packets into the pod, and out of it, modulo 2^32.
    pub packets: [u32; 2],
    /// Tick of the last packet that keeps the entry alive: any of TCP, the opener's of everything else.
    pub seen: u32,
    /// Tick of the first packet.
    pub created: u32,
    /// Microseconds from SYN to the third packet of the handshake; until then the low 32 bits of the time of the
    /// SYN, in microseconds. 0 for other protocols. In steps of the kernel's timer (`CONFIG_HZ`: 1 to 10 ms), since the
    /// exact clock is dear for a first packet.
    pub handshake_us: u32,
    /// Id of the rule that allowed it, or [`crate::RULE_NONE`].
    pub rule: u32,
    /// The pod's own Ethernet address, copied from its record, or unknown.
    pub mac: Mac,
    /// `CONN_REPLIED` and the like.
    pub state: u8,
    /// `CONN_OPENED_BY_POD` and the like.
    pub flags: u8,
}
