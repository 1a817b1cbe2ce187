//! What becomes of Kubernetes objects, and how they arrive.

mod api;
mod common;
mod fields;
mod folder;
mod network_policy;
mod objects;
mod server;
