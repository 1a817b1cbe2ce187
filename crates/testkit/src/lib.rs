//! What tests stand on: random clusters ([`objects`]), frames ([`frame`]), the tables in memory ([`memory`],
//! [`connections`]), a kernel that runs readers across the writes of a plan ([`fake`]), and a node with pods made of
//! network namespaces ([`net`]) with a BPF file system of its own ([`bpffs`]).

pub mod bpffs;
pub mod connections;
pub mod fake;
pub mod frame;
pub mod memory;
pub mod net;
pub mod objects;
