//! The mind of Cellwall: what the cluster looks like, what its policies mean for the pods of this node, which
//! kernel tables say so, and which writes lead there. It does no IO and has no clock.
//!
//! ```text
//! Change ─► Cluster.apply ─► compile ─► Wanted ─┐
//!                                               ├─► plan ─► Vec<Op>
//!                              Observed ────────┘
//! ```
//!
//! Read it in this order: [`model`] (what is known), [`compile`] (what it means), [`wanted`] (what the kernel
//! should hold), [`plan`] (how it gets there without an in-between).
#![no_std]

extern crate alloc;

pub use cellwall_abi::planted;

pub mod compile;
pub mod flow;
pub mod model;
pub mod plan;
mod prefix;
pub mod wanted;
