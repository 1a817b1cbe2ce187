//! Row A11 of docs/robustness.md: what a node takes out of a tunnel, nobody has judged.

use std::net::IpAddr;

use cellwall_abi::{CLASS_UNKNOWN_POD, ClassPair, ENDPOINT_AUDIT, Live, Reason, SERVICE_TUNNEL};
use cellwall_policy::flow::Direction::{Egress, Ingress};
use cellwall_policy::flow::{Flow, Protocol};
use cellwall_testkit::frame::{opening, packet};
use cellwall_verdict::header::ACK;

use crate::headers::with_extensions;
use crate::services::{BRIDGE, STAMPED};
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

/// A translation hides where a packet goes until a later hook: at that hook for a pod that is isolated, whose packets have
/// a stamp; from the table of Services for every pod.
#[test]
fn no_tunnel_leads_to_a_node_behind_a_translation_either() {
    for mut world in World::both() {
        world.allow_all();
        let node = world.node();
        for number in PROTOCOLS {
            let (verdict, _, stamp) = world.next_hook(&tunnel(&world, node, number), STAMPED, BRIDGE);
            assert_eq!((verdict.reason, stamp), (Reason::Tunnel, STAMPED), "protocol {number}");
        }
        for port in PORTS {
            let arrive =
                |port| world.next_hook(&opening(&to(&world, node, Protocol::UDP, port)), STAMPED, BRIDGE);
            assert_eq!(arrive(port).0.reason, Reason::Tunnel, "port {port}");
            assert!(arrive(53).0.passes());
        }
        let asked = world.virtual_address();
        for isolated in [true, false] {
            world.translate(&asked, SERVICE_TUNNEL, &[]);
            assert_eq!(world.open(&asked).reason, Reason::Tunnel, "isolated: {isolated}");
            world.translate(&asked, 0, &[]);
            assert!(world.open(&asked).passes());
            world.open_up();
            world.memory.forget();
        }
    }
}

/// An annotation of the pod's own lifts its policies, not what others rely on.
#[test]
fn audit_lifts_no_tunnel() {
    for mut world in World::both() {
        world.record(|record| record.flags |= ENDPOINT_AUDIT);
        let node = world.node();
        let asked = world.virtual_address();
        world.translate(&asked, SERVICE_TUNNEL, &[]);
        let sent = [
            world.packet(&tunnel(&world, node, 4), Egress),
            world.open(&to(&world, node, Protocol::UDP, 8472)),
            world.open(&asked),
            world.open(&asked),
            world.next_hook(&tunnel(&world, node, 4), STAMPED, BRIDGE).0,
        ];
        for verdict in sent {
            assert_eq!((verdict.reason, verdict.audit), (Reason::Tunnel, false));
        }
        let denied = world.open(&to(&world, node, Protocol::TCP, 53));
        assert!(denied.audit && denied.passes(), "{denied:?}");
        // Nor the one to which the Service of a running connection comes to lead.
        world.translate(&asked, 0, &[]);
        world.connect(&asked);
        world.translate(&asked, SERVICE_TUNNEL, &[]);
        world.change(|tables| tables.live = Live(5));
        world.record(|record| record.since = 5);
        let verdict = world.segment(&asked, true, ACK);
        assert_eq!((verdict.reason, verdict.audit), (Reason::Tunnel, false));
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
