//! The contract between the kernel programs and the agent: keys, values, table names, capacities.
//!
//! Everything here is `no_std`, has a fixed layout without padding (zerocopy's derive refuses padding at
//! compile time) and is compiled into both sides, so a field has one name on both sides of the kernel.
//! The encoding of each table is argued above its value type. `tests/layout.txt` holds every offset; a change
//! there is a change of [`ABI_VERSION`], which is part of the pin path: pinned tables of another version are
//! never reinterpreted.
//!
//! Byte order: fields of a packet keep network byte order and say so in their type ([`Be16`], [`Be32`],
//! [`Addr6`]); everything else is in the order of the host.
#![no_std]
#![expect(
    clippy::inline_always,
    reason = "a call costs a kernel program stack, arguments and what the verifier knew"
)]

mod chosen;
mod class;
mod config;
mod conn;
mod endpoint;
mod event;
mod family;
mod fragment;
mod live;
mod net;
mod planted;
mod policy;
mod reason;
mod service;
pub mod tables;

pub use chosen::{Chosen, ChosenKey4, ChosenKey6};
pub use class::{CLASS_NODE, CLASS_UNKNOWN_POD, CLASS_WORLD, ClassPair, FIRST_FREE_CLASS};
pub use config::{CONFIG_STRICT, Config};
pub use conn::{
    CONN_AUDIT, CONN_CLOSING, CONN_DEFERRED, CONN_DIRECT, CONN_ESTABLISHED, CONN_FIN_OPENER,
    CONN_FIN_REPLIER, CONN_GUESSED, CONN_LISTED, CONN_MIDFLOW, CONN_OPENED_BY_POD, CONN_OWN_NODE,
    CONN_REPLIED, CONN_SELF, CONN_STAMPED, Conn, FlowKey4, FlowKey6,
};
pub use endpoint::{Bucket, ENDPOINT_AUDIT, ENDPOINT_IDENTIFIED, EndpointRecord, Share, record_index};
pub use event::{EVENT_AUDIT, EVENT_V6, Event};
pub use family::{Family, V4, V6};
pub use fragment::{Fragment, FragmentKey4, FragmentKey6};
pub use live::Live;
pub use net::{Addr6, Be16, Be32, Mac};
pub use planted::planted;
pub use policy::{
    ACTION_ALLOW, ACTION_DENY, INLINE_INTERVALS, Interval, PolicyEntry, PolicyKey, PortKey, PortValue,
    RULE_NONE,
};
pub use reason::{Counter, Reason};
pub use service::{
    SERVICE_BACKENDS, SERVICE_TOO_MANY, SERVICE_TRANSLATED, SERVICE_TUNNEL, STAMP_DEFERRED, STAMP_SLOTS,
    ServiceBackend, ServiceKey4, ServiceKey6, ServiceRecord, is_tunnel_port,
};

/// Version of every layout in this crate; part of the pin path.
pub const ABI_VERSION: u32 = 2;

/// Direction of a packet as the pod sees it. Used as an index: 0 into the pod, 1 out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Direction {
    /// Into the pod: the hook at tc egress of the host side of its interface.
    Ingress = 0,
    /// Out of the pod: the hook at tc ingress of the host side of its interface.
    Egress = 1,
}

impl Direction {
    /// Both, in index order.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// The other direction.
    #[inline(always)]
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self {
            Self::Ingress => Self::Egress,
            Self::Egress => Self::Ingress,
        }
    }

    /// `ingress` or `egress`, as in NetworkPolicy's `policyTypes`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Seconds-like unit of every age in the tables: nanoseconds of `CLOCK_MONOTONIC` shifted right by
/// [`TICK_SHIFT`], so 1.074 s. One shift instead of a division in the kernel; one clock on both sides.
pub const TICK_SHIFT: u32 = 30;
