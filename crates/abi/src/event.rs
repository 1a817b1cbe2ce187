//! What the ring buffer carries to the agent.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr6, Be16};

/// `flags`: the addresses are IPv6; else an IPv4 address stands in the first word.
pub const EVENT_V6: u8 = 1;
/// `flags`: the pod is audited, so the packet passed.
pub const EVENT_AUDIT: u8 = 2;

/// A drop, or what would have been one. Written without waking a reader: a wake-up costs five hundred times the
/// write. The agent polls.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// Nanoseconds of `CLOCK_MONOTONIC`, coarse.
    pub time_ns: u64,
    /// Revision that decided.
    pub revision: u64,
    /// Index of the host side of the pod's interface.
    pub ifindex: u32,
    /// Id of the rule, or [`crate::RULE_NONE`].
    pub rule: u32,
    /// Source address as in the packet.
    pub source: Addr6,
    /// Destination address as in the packet.
    pub destination: Addr6,
    /// Source port, or 0.
    pub source_port: Be16,
    /// Destination port, or 0.
    pub destination_port: Be16,
    /// IP protocol number, or 0 when it could not be read.
    pub protocol: u8,
    /// [`crate::Direction`] as a number.
    pub direction: u8,
    /// [`crate::Reason`] as a number.
    pub reason: u8,
    /// `EVENT_*`.
    pub flags: u8,
}
