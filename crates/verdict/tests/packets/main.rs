//! Tables of packets: each is a frame in bytes, at a pod whose tables stand in `world.rs`, and the verdict it must get.

mod chains;
mod connections;
mod cuts;
mod echoes;
mod ethertypes;
mod floods;
mod fragments;
mod groups;
mod headers;
mod identity;
mod linear;
mod neighbours;
mod older;
mod revisions;
mod scans;
mod services;
mod tunnels;
mod world;
