//! testkit

pub mod net;
pub mod objects;
