//! Tables of packets: each is a frame in bytes, at a pod whose tables stand in `world.rs`, and the verdict it must get.

mod connections;
mod fragments;
mod headers;
mod identity;
mod revisions;
mod services;
mod world;
