//! Delivery implies verdict: frames of an attacker at a pod that is isolated in both directions. What passes, the
//! judge allows; what is well-formed and allowed, passes. In memory, guided by what was reached; through the loaded
//! programs; and over a real veth to raw sockets of every protocol, which see the packets of every port.
//!
//! A frame that fails is kept under `make fuzz`, and every run reads it first (`corpus/found.txt`); frames that reach
//! something new are kept, too.
//!
//! `CELLWALL_FRAMES` says how many frames of each class. A message says the seed; `CELLWALL_SEED` begins there.

mod fragments;
mod memory;
mod neighbours;
mod overlaps;
mod programs;
mod rig;
mod scene;
mod sockets;
mod veth;
