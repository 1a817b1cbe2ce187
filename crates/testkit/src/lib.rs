//! testkit

pub mod net;
