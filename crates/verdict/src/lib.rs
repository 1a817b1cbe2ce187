//! The decision on one packet: parse its headers, find its connection, else ask policy.
//!
//! This crate is compiled into the kernel programs and into the tests, so what a test sees is what a pod gets. It
//! is generic over the address family, over the packet's bytes and over the tables; it never indexes with a
//! bound it has not checked (the verifier would refuse a reachable panic).
//!
//! The order of lookups, most frequent first:
//!
//! 1. The live word, once. It holds for the whole packet.
//! 2. The connection. Known and judged in the live revision: done ([`conn`]). Not for what opens one: that is judged.
//! 3. The pod's record. Its `since` says whether the connection's older verdict still stands.
//! 4. The class of the remote address, the exception of the image for that class, else the image's default
//!    ([`policy`]).
//!
//! A packet that may be translated on its way is stamped, and the next hook that sees the stamp judges its destination
//! ([`arrive`]).
//!
//! What it never does: pass a packet that it could not understand to an isolated pod ([`entry`]).
#![no_std]
#![expect(
    clippy::inline_always,
    reason = "a call costs a kernel program stack, arguments and what the verifier knew"
)]

pub mod conn;
pub mod entry;
mod fragment;
pub mod header;
mod icmp;
mod key;
mod neighbour;
mod older;
pub mod parse;
pub mod policy;
mod stage;
mod tables;

use cellwall_abi::Reason;
pub use entry::{Hook, process};
pub use stage::{Arrival, arrive};
pub use tables::{Packet, Step, Tables};

/// What is decided about a packet. Eight bytes: what a kernel function can return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why.
    pub reason: Reason,
    /// The rule that decided, or [`cellwall_abi::RULE_NONE`].
    pub rule: u32,
    /// The pod is audited: a drop is counted and reported, and the packet passes.
    pub audit: bool,
    /// The packet goes to an address that this node translates: its connection is deferred.
    pub deferred: bool,
    /// A backend there is on this node itself, where no hook sees what arrives.
    pub listed: bool,
}

impl Verdict {
    /// A verdict that no rule gave.
    #[inline(always)]
    #[must_use]
    pub const fn new(reason: Reason) -> Self {
        Self { reason, rule: 0, audit: false, deferred: false, listed: false }
    }

    /// A verdict of a rule.
    #[inline(always)]
    #[must_use]
    pub const fn by_rule(reason: Reason, rule: u32) -> Self {
        Self { reason, rule, audit: false, deferred: false, listed: false }
    }

    /// The same verdict, of whose reason the verifier knows nothing ([`Packet::forget`]).
    #[inline(always)]
    #[must_use]
    pub fn forgotten<P: Packet>(self, packet: &P) -> Self {
        Self { reason: packet.forget(self.reason), ..self }
    }

    /// True when the packet goes on.
    #[inline(always)]
    #[must_use]
    pub const fn passes(&self) -> bool {
        !self.reason.is_drop() || self.audit
    }
}
