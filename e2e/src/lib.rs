//! Tests against a real cluster on one machine, what makes such a cluster, upstream's tests, and the demo.
//!
//! A cluster is one process tree in namespaces of its own: `cluster node` is process 1 of each node, everything that
//! Kubernetes writes lies in memory file systems that only it sees, and when it ends, the kernel ends the rest.
//! It ends when whoever started it ends, unless that one asked it to stay; then it ends when its folder is removed.
//! So an interrupted test leaves nothing behind, and two clusters do not meet.

pub mod agent;
pub mod attempt;
pub mod binaries;
pub mod cluster;
pub mod commands;
pub mod conformance;
pub mod demo;
pub mod flavour;
pub mod heartbeat;
pub mod helm;
pub mod image;
pub mod node;
pub mod pki;
pub mod places;
pub mod programs;
pub mod progress;
pub mod target;
