//! testkit

pub mod bpffs;
pub mod connections;
pub mod fake;
pub mod frame;
pub mod memory;
pub mod net;
pub mod objects;
