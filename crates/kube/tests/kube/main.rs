//! What becomes of Kubernetes objects, and how they arrive.

#![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]

mod api;
mod cluster;
mod common;
mod fields;
mod hostile;
mod folder;
mod network_policy;
mod objects;
mod server;
mod services;
