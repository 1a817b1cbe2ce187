//! What becomes of Kubernetes objects, and how they arrive.

#![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]

mod access;
mod api;
mod common;
mod enforced;
mod fields;
mod folder;
mod kubeconfig;
mod network_policy;
mod objects;
mod remote;
mod server;
mod services;
