//! A pod's interface: what holds for every packet through it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr6, Be32, Mac, PolicyEntry};

/// The record describes a pod. Without it the interface is known and the pod behind it is not: its packets pass,
/// or are dropped when [`crate::CONFIG_STRICT`] is set.
pub const ENDPOINT_IDENTIFIED: u32 = 1;
/// Judge, count, report, and let pass.
pub const ENDPOINT_AUDIT: u32 = 2;

/// The record of one pod in one bank.
///
/// An interface index leads to a slot (a hash whose rows are only inserted and deleted, never replaced) and
/// `slot * 2 + bank` to the record, in an array: the idle bank's record is rewritten in place, which an array
/// allows and a hash does not. The established path never reads it, since a connection carries what it needs.
///
/// The default of each direction stands in the record, not in a table of images: a denied packet then costs one
/// missed lookup and nothing more. `image[d] == 0` means that nothing isolates the pod in direction `d`.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EndpointRecord {
    /// Revision in which something that this pod's verdicts depend on last changed. A connection judged at or
    /// after it need not be judged again.
    pub since: u64,
    /// `ENDPOINT_*`.
    pub flags: u32,
    /// Tick until which a TCP packet without a connection passes when the reversed tuple is allowed: the pod was
    /// running when its interface was first enforced. 0: never.
    pub midflow_until: u32,
    /// Image per direction, or 0.
    pub image: [u32; 2],
    /// The pod's IPv4 address, or 0.0.0.0.
    pub address4: Be32,
    /// The pod's IPv6 address, or `::`.
    pub address6: Addr6,
    /// The pod's own Ethernet address, or unknown.
    pub mac: Mac,
    /// Zero.
    pub pad: [u8; 2],
    /// Index of the host side of the pod's interface: the way back from a slot, which is what a stamp carries.
    pub ifindex: u32,
    /// Per direction, what holds for a class without an exception.
    pub default: [PolicyEntry; 2],
}

/// Index of a record in its array.
#[inline(always)]
#[must_use]
pub const fn record_index(slot: u32, bank: u32) -> u32 {
    slot * 2 + (bank & 1)
}

/// Per slot: how many unanswered connections this pod may still add before the next refill. Bounds what one
/// pod's flood takes from the table of unanswered connections.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bucket {
    /// Entries left.
    pub tokens: u32,
    /// Tick of the last refill.
    pub refilled: u32,
}

impl Bucket {
    /// Entries that a pod may add in one tick; also the size of the bucket.
    pub const PER_TICK: u32 = 4096;
}
