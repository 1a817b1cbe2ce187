//! A pod's interface: what holds for every packet through it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{ACTION_ALLOW, Addr6, Be32, CONN_OPENED_BY_POD, Conn, Direction, Fragment, Mac, PolicyEntry};

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

/// Per slot: how many rows this pod may still add, before the next refill, to the tables that all pods share and that
/// push out what is old. Bounds what one pod's flood takes from them.
///
/// Of unanswered connections each direction has its own, so that who floods a pod takes nothing from what it opens. One
/// that is answered is given back, but keeps its row; so the number of those is bounded as well. One whose row has left
/// for FLOWS counts no more.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bucket {
    /// Tick of the last refill.
    pub refilled: u32,
    /// Unanswered connections left: what others open, what the pod opens.
    pub unanswered: [u32; 2],
    /// How many of them may still be given back when they are answered.
    pub answers: u32,
    /// First fragments left, allowed ones and denied ones, each into the pod and out of it.
    pub fragments: [[u32; 2]; 2],
}

impl Bucket {
    /// Unanswered connections that a pod may add in one tick and direction.
    pub const UNANSWERED: u32 = 4096;
    /// Answers in one tick after which its connection counts no more. With both directions a pod adds at most a quarter of
    /// what PENDING has room for by default: what others have there stays for four ticks, whatever one pod does.
    pub const ANSWERS: u32 = 8192;
    /// First fragments that are allowed in one tick and direction: with both directions and those that are denied, half of
    /// their table.
    pub const FRAGMENTS: u32 = 1536;
    /// First fragments that are denied: they take nothing from those that are allowed.
    pub const DENIED_FRAGMENTS: u32 = 512;

    /// What there is at the beginning of a tick.
    #[inline(always)]
    #[must_use]
    pub const fn full(now: u32) -> Self {
        Self {
            refilled: now,
            unanswered: [Self::UNANSWERED; 2],
            answers: Self::ANSWERS,
            fragments: [[Self::FRAGMENTS; 2], [Self::DENIED_FRAGMENTS; 2]],
        }
    }

    /// Fills it when the tick is another.
    #[inline(always)]
    pub fn refill(&mut self, now: u32) {
        if self.refilled != now {
            *self = Self::full(now);
        }
    }

    /// What is left for connections that this side opens.
    #[inline(always)]
    pub fn of_opener(&mut self, flags: u8) -> &mut u32 {
        let one = crate::planted("one-bucket-for-both-directions");
        &mut self.unanswered[usize::from(flags & CONN_OPENED_BY_POD != 0 || one)]
    }

    /// What is left for first fragments in this direction that were told the same.
    #[inline(always)]
    pub fn of_fragment(&mut self, direction: Direction, fragment: &Fragment) -> &mut u32 {
        if crate::planted("first-fragments-without-end") {
            self.fragments = [[Self::FRAGMENTS; 2]; 2];
        }
        let is_denied = fragment.action != ACTION_ALLOW && !crate::planted("denied-firsts-take-all");
        &mut self.fragments[usize::from(is_denied)][usize::from(matches!(direction, Direction::Egress))]
    }

    /// Gives back what a connection took that is answered for the first time. Of an earlier tick it took nothing.
    #[inline(always)]
    pub fn answered(&mut self, conn: &Conn) {
        let left = self.answers;
        if conn.created != self.refilled || left == 0 || crate::planted("answers-give-nothing-back") {
            return;
        }
        let of_opener = self.of_opener(conn.flags);
        if *of_opener < Self::UNANSWERED {
            *of_opener += 1;
            self.answers = if crate::planted("answers-without-end") { left } else { left - 1 };
        }
    }

    /// The row of a connection that was answered has left PENDING.
    #[inline(always)]
    pub fn left(&mut self, conn: &Conn) {
        let is_of_now = conn.created == self.refilled && self.answers < Self::ANSWERS;
        if is_of_now && !crate::planted("what-has-left-counts") {
            self.answers += 1;
        }
    }
}

/// Per slot: how many answered connections this pod has room for, in each family. The agent writes it at each sweep, and
/// the programs count what they add until the next one.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Share {
    /// What is taken of `u32::MAX`, of IPv4 and IPv6: zero, of a share that nobody has written, is room enough.
    pub taken: [u32; 2],
}

impl Share {
    /// What is taken for a pod that holds so many rows of a table of which so many are free: nobody may hold more than is
    /// free. One pod alone so fills a half, two a third each; whatever `n` pods do, one in `n + 1` rows is left to others.
    /// From one sweep to the next a pod comes a quarter of the way there, so that some who do not know of each other
    /// do not fill the table.
    #[inline(always)]
    #[must_use]
    pub fn taken_of(held: u32, free: u32) -> u32 {
        if crate::planted("shares-without-end") { 0 } else { u32::MAX - free.saturating_sub(held) / 8 }
    }
}
