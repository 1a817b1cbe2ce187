//! What tests stand on: random clusters ([`objects`]), frames and the tables in memory (those of `cellwall check`),
//! hostile frames and their judge ([`fuzz`]), a kernel that runs readers across the writes of a plan ([`fake`]), and a
//! node with pods made of network namespaces ([`net`]) with a BPF file system of its own ([`bpffs`]), and processes that end
//! with the test ([`child`]), and flows and denied packets between hosts, with exact counts ([`traffic`]).

pub mod bpffs;
pub mod child;
pub mod fake;
pub mod fuzz;
pub mod net;
pub mod objects;
pub mod traffic;

pub use cellwall_check::{connections, frame, memory};
