//! The data path on the real kernel: in network namespaces of its own, with pins of its own. Needs root.

mod audit;
mod beyond;
mod conntrack;
mod features;
mod flood;
mod flows;
mod forged;
mod hooks;
mod links;
mod open;
mod outside_policy;
mod place;
mod raw;
mod remove;
mod revoked;
mod services;
mod shares;
mod sockets;
mod tables;
mod traffic;
mod versions;
mod world;

/// True, and said so, for a process that cannot run these tests.
fn skipped() -> bool {
    let skipped = !cellwall_testkit::net::is_root();
    if skipped {
        println!("skipped: needs root");
    }
    skipped
}
