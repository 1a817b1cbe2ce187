//! Row A10 of docs/robustness.md: ICMP about something, and about nothing.

use std::net::IpAddr;

use cellwall_abi::Reason;
use cellwall_policy::flow::Direction::{self, Egress, Ingress};
use cellwall_policy::flow::{Flow, Protocol};
use cellwall_testkit::frame::{CLIENT_PORT, packet};
use cellwall_verdict::header::ACK;

use crate::headers::error_about;
use crate::world::{World, other};

/// An ICMP message of a type with an identifier, between the ends of a flow.
fn message(flow: &Flow, from_opener: bool, kind: u8) -> (Vec<u8>, Direction) {
    let direction = if from_opener { flow.direction } else { other(flow.direction) };
    let ends = if direction == Egress { (flow.local, flow.remote) } else { (flow.remote, flow.local) };
    let [high, low] = CLIENT_PORT.to_be_bytes();
    let protocol = if flow.local.is_ipv4() { 1 } else { 58 };
    (packet(direction, ends, protocol, &[kind, 0, 0, 0, high, low, 0, 1]), direction)
}

#[test]
fn an_echo_is_answered_by_its_reply_alone() {
    for mut world in World::both() {
        let (request, reply) = if world.is_v4() { (8, 0) } else { (128, 129) };
        for direction in Direction::ALL {
            world.memory.forget();
            let flow = world.friend(direction, world.icmp(), 0);
            let send = |world: &World, from_opener, kind| {
                let (bytes, at) = message(&flow, from_opener, kind);
                world.packet(&bytes, at).reason
            };
            assert_eq!(send(&world, true, request), Reason::DefaultDeny, "rules have ports");
            assert_eq!(send(&world, false, reply), Reason::DefaultDeny, "to nothing");
            // Only this direction is open.
            world.record(|record| record.image[direction as usize] = 0);
            assert!(world.open(&flow).passes());
            assert_eq!(send(&world, false, reply), Reason::Established);
            assert_eq!(send(&world, false, request), Reason::DefaultDeny, "the same identifier reversed");
            for kind in (0..=255).filter(|kind| *kind != reply && *kind != request) {
                let reason = send(&world, false, kind);
                let is_discovery = !world.is_v4() && (130..=137).contains(&kind) || kind == 143;
                assert!(reason.is_drop() || is_discovery, "type {kind}: {reason:?}");
            }
            world.record(|record| record.image = crate::world::IMAGES);
        }
    }
}

#[test]
fn errors_pass_about_live_connections_and_about_nothing_else() {
    for world in World::both() {
        for direction in Direction::ALL {
            world.memory.four.remove_all();
            world.memory.six.remove_all();
            let port = if direction == Ingress { 80 } else { 443 };
            let live = world.friend(direction, Protocol::TCP, port);
            // The packet that is quoted goes the opener's way, so the error about it goes the other.
            let at = other(direction);
            let error = |flow: &Flow| world.packet(&error_about(flow, at), at).reason;
            assert_eq!(error(&live), Reason::Unrelated, "before there was one");
            world.connect(&live);
            assert_eq!(error(&live), Reason::Related);
            for forged in [
                Flow { port: port + 1, ..live },
                Flow { remote: world.stranger(direction, Protocol::TCP, 1).remote, ..live },
                Flow { protocol: Protocol::UDP, ..live },
            ] {
                assert_eq!(error(&forged), Reason::Unrelated, "{forged:?}");
            }
            // What is quoted was not sent by this pod, or not to it.
            let elsewhere = Flow { local: "10.0.0.77".parse().expect("an address"), ..live };
            if world.is_v4() {
                assert!(error(&elsewhere).is_drop());
            }
            let mut cut = error_about(&live, at);
            cut.truncate(cut.len() - 14);
            assert!(world.packet(&cut, at).reason.is_drop());
            assert_eq!(world.packet(&quotes_behind_its_end(&live, at), at).reason, Reason::Malformed);
            assert_eq!(world.segment(&live, true, ACK).reason, Reason::Established, "it still lives");
        }
    }
}

/// What a pod complains about goes to whom it complains of, and nowhere else.
#[test]
fn an_error_leaves_for_the_sender_of_what_it_quotes_alone() {
    for world in World::both() {
        let live = world.friend(Ingress, Protocol::TCP, 80);
        world.connect(&live);
        let mut bytes = error_about(&live, Egress);
        assert_eq!(world.packet(&bytes, Egress).reason, Reason::Related);
        let stranger = world.stranger(Ingress, Protocol::TCP, 80).remote;
        match stranger {
            IpAddr::V4(to) => bytes[30..34].copy_from_slice(&to.octets()),
            IpAddr::V6(to) => bytes[38..54].copy_from_slice(&to.octets()),
        }
        assert_eq!(world.packet(&bytes, Egress).reason, Reason::Unrelated);
    }
}

/// What is quoted is in the frame, but not in the packet.
fn quotes_behind_its_end(flow: &Flow, at: Direction) -> Vec<u8> {
    let mut frame = error_about(flow, at);
    // Both end behind two bytes of the quoted transport header: the payload length of IPv6, the total length of IPv4.
    let (field, length) =
        if flow.local.is_ipv6() { (18..20, 8 + 40 + 2_u16) } else { (16..18, 20 + 8 + 20 + 2) };
    frame[field].copy_from_slice(&length.to_be_bytes());
    frame
}

/// Every kind of error that a path, a host or a port gives, about connections that the pod opened and that it was
/// asked for.
#[test]
fn every_kind_of_error_is_told() {
    for mut world in World::both() {
        let kinds: &[u8] = if world.is_v4() { &[3, 11, 12] } else { &[1, 2, 3, 4] };
        world.allow_all();
        for direction in Direction::ALL {
            for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP, world.icmp(), Protocol(47)] {
                let flow = world.friend(direction, protocol, 53);
                let at = other(direction);
                let error = |kind, code| {
                    let mut bytes = error_about(&flow, at);
                    let network = if world.is_v4() { 34 } else { 54 };
                    bytes[network..network + 2].copy_from_slice(&[kind, code]);
                    world.packet(&bytes, at).reason
                };
                for kind in kinds {
                    assert_eq!(error(*kind, 0), Reason::Unrelated, "before there was a packet of {flow:?}");
                }
                assert!(world.open(&flow).passes());
                for (kind, code) in kinds.iter().flat_map(|kind| (0..=15).map(move |code| (*kind, code))) {
                    assert_eq!(error(kind, code), Reason::Related, "type {kind} code {code} about {flow:?}");
                }
                world.memory.forget();
            }
        }
    }
}
