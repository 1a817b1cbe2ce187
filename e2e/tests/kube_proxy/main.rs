//! Connections to Services that a real kube-proxy translates, judged on the backend that it chose.
//!
//! What it chose is read from nf_conntrack: every single attempt is answered exactly when the policy of its client allows
//! the address and port that its connection was led to and that of the backend lets it in, and gets nothing at all otherwise.
//! In the end, without policies, every one is answered. Both modes of kube-proxy are tried, each with routed pods and with pods on a bridge, all with every
//! case and in both families.

mod cases;
mod lives;
mod objects;
mod scene;

use std::sync::Mutex;

use cellwall_e2e::flavour::{Flavour, Network, Proxy};
use cellwall_e2e::target::why_not_below;

use crate::scene::{Scene, at_once};

/// Two clusters at once are too much for a small machine.
static ONE: Mutex<()> = Mutex::new(());

#[test]
fn with_nftables_and_routed_pods_the_chosen_backend_is_judged() {
    every_service(Flavour { proxy: Proxy::Nftables, network: Network::Routed, ..Flavour::default() });
}

#[test]
fn with_nftables_and_bridged_pods_the_chosen_backend_is_judged() {
    every_service(Flavour { proxy: Proxy::Nftables, network: Network::Bridge, ..Flavour::default() });
}

#[test]
fn with_iptables_and_routed_pods_the_chosen_backend_is_judged() {
    every_service(Flavour { proxy: Proxy::Iptables, network: Network::Routed, ..Flavour::default() });
}

#[test]
fn with_iptables_and_bridged_pods_the_chosen_backend_is_judged() {
    every_service(Flavour { proxy: Proxy::Iptables, network: Network::Bridge, ..Flavour::default() });
}

fn every_service(flavour: Flavour) {
    if let Some(why) = why_not_below() {
        println!("skipped: {why}");
        return;
    }
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let scene = Scene::new(flavour);
    at_once(&[
        &|| scene.mixed_backends(),
        &|| scene.allowed_backends(),
        &|| scene.external_addresses(),
        &|| scene.node_ports(),
        &|| scene.host_ports(),
        &|| scene.written_slices(),
    ]);
    // These change policies and endpoints.
    scene.what_ends_on_the_node();
    scene.oneself();
    scene.nobody();
    scene.endpoints_that_come_and_go();
    scene.live_connections();
    scene.without_the_policy();
}
