//! Row A11 of docs/robustness.md: what a node takes out of a tunnel, nobody has judged.

use std::net::IpAddr;

use cellwall_abi::{CLASS_UNKNOWN_POD, ClassPair, Reason};
use cellwall_policy::flow::Direction::{Egress, Ingress};
use cellwall_policy::flow::{Flow, Protocol};
use cellwall_testkit::frame::{opening, packet};

use crate::headers::with_extensions;
use crate::world::World;

const PROTOCOLS: [u8; 7] = [4, 41, 47, 50, 51, 97, 115];
/// VXLAN on two ports, and Geneve.
const PORTS: [u16; 3] = [4789, 8472, 6081];

fn to(world: &World, remote: IpAddr, protocol: Protocol, port: u16) -> Flow {
    Flow { remote, ..world.stranger(Egress, protocol, port) }
}

/// The first packet of protocol `number`: what is inside would be a packet.
fn tunnel(world: &World, remote: IpAddr, number: u8) -> Vec<u8> {
    let flow = to(world, remote, Protocol::UDP, 53);
    let inner = &opening(&flow)[14..];
    // An authentication header of twelve bytes that says what comes next.
    let payload =
        if number == 51 { [&[4, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1], inner].concat() } else { inner.to_vec() };
    packet(Egress, (flow.local, remote), number, &payload)
}

#[test]
fn no_tunnel_leads_from_a_pod_to_a_node() {
    for mut world in World::both() {
        for isolated in [true, false] {
            let node = world.node();
            for number in PROTOCOLS {
                let sent = world.packet(&tunnel(&world, node, number), Egress);
                assert_eq!(sent.reason, Reason::Tunnel, "protocol {number}, isolated: {isolated}");
            }
            for port in PORTS {
                let flow = to(&world, node, Protocol::UDP, port);
                assert_eq!(world.open(&flow).reason, Reason::Tunnel, "port {port}, isolated: {isolated}");
            }
            // The rest of the node is a matter of policy.
            world.allow_all();
            assert!(world.open(&to(&world, node, Protocol::UDP, 53)).passes());
            assert!(world.open(&to(&world, node, Protocol::TCP, 8472)).passes());
            world.open_up();
            world.memory.forget();
        }
    }
}

#[test]
fn an_address_of_a_pod_range_that_nobody_has_may_be_a_nodes() {
    for mut world in World::both() {
        world.open_up();
        let stranger = world.stranger(Egress, Protocol::UDP, 4789);
        assert_eq!(world.open(&stranger).reason, Reason::NotIsolated, "to the world");
        world.change(|tables| {
            tables.addresses.insert(stranger.remote, 9);
            tables.classes.insert(9, ClassPair::new([CLASS_UNKNOWN_POD; 2]));
        });
        assert_eq!(world.open(&stranger).reason, Reason::Tunnel);
    }
}

#[test]
fn elsewhere_a_tunnel_is_a_protocol_without_ports() {
    for mut world in World::both() {
        let stranger = world.stranger(Egress, Protocol::UDP, 1).remote;
        let into = |world: &World, number| {
            let flow = world.stranger(Ingress, Protocol::UDP, 1);
            world.packet(&packet(Ingress, (flow.remote, flow.local), number, &[0; 40]), Ingress).reason
        };
        for number in [4, 41, 47, 50, 97, 115] {
            assert_eq!(world.packet(&tunnel(&world, stranger, number), Egress).reason, Reason::DefaultDeny);
            assert_eq!(into(&world, number), Reason::DefaultDeny);
        }
        world.allow_all();
        for number in [4, 41, 47, 50, 97, 115] {
            assert_eq!(world.packet(&tunnel(&world, stranger, number), Egress).reason, Reason::Allowed);
            world.memory.forget();
            assert_eq!(into(&world, number), Reason::Allowed);
            world.memory.forget();
        }
    }
}

#[test]
fn what_is_not_read_to_its_end_may_hide_one() {
    let [_, mut six] = World::both();
    six.open_up();
    let padding = || (60_u8, vec![0, 0, 1, 4, 0, 0, 0, 0]);
    let long: Vec<_> = (0..12).map(|_| padding()).collect();
    let to_node = to(&six, six.node(), Protocol(41), 0);
    assert_eq!(six.packet(&with_extensions(&to_node, &long), Egress).reason, Reason::Extension);
    let elsewhere = six.stranger(Egress, Protocol(41), 0);
    assert_eq!(six.packet(&with_extensions(&elsewhere, &long), Egress).reason, Reason::NotIsolated);
    let forged = Flow { local: "fd00::77".parse().expect("an address"), ..elsewhere };
    assert_eq!(six.packet(&with_extensions(&forged, &long), Egress).reason, Reason::Spoofed);
}
