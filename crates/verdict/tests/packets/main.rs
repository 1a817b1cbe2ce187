//! Tables of packets: each is a frame in bytes, at a pod whose tables stand in `world.rs`, and the verdict it must get.

mod attack;
mod chains;
mod connections;
mod cuts;
mod echoes;
mod ethertypes;
mod fragments;
mod groups;
mod headers;
mod identity;
mod neighbours;
mod revisions;
mod scans;
mod services;
mod tunnels;
mod world;
