//! Rows A2 and A4 of docs/robustness.md: packets that end too early, or say so.

use cellwall_abi::Reason;
use cellwall_policy::flow::Direction::{self, Ingress};
use cellwall_policy::flow::{Flow, Protocol};
use cellwall_testkit::frame::{ethernet, opening, packet, segment};
use cellwall_verdict::header::ACK;

use crate::headers::with_options;
use crate::world::{World, other};

/// Protocols with a header that is read, and others.
const PROTOCOLS: [u8; 12] = [6, 17, 132, 1, 58, 2, 4, 41, 47, 50, 89, 253];

/// The first packet of a protocol, long enough to hold every header: a SYN, an echo request, an INIT, or ports.
fn whole(world: &World, direction: Direction, protocol: u8) -> Vec<u8> {
    let flow = world.stranger(direction, Protocol::TCP, 80);
    let ends = if direction == Ingress { (flow.remote, flow.local) } else { (flow.local, flow.remote) };
    let mut payload = [0; 94];
    match protocol {
        1 => payload[0] = 8,
        58 => payload[0] = 128,
        6 => payload[13] = 2,
        _ => payload[12] = 1,
    }
    packet(direction, ends, protocol, &payload)
}

/// Every length of 12 protocols: cut off on the way, with the length that it had; and saying of itself that it ends
/// there. All of it to and from a pod that may do everything, so that only what is missing can be why.
#[test]
fn no_length_passes_that_a_receiver_would_not_take() {
    for mut world in World::both() {
        world.allow_all();
        for direction in Direction::ALL {
            for protocol in PROTOCOLS {
                let whole = whole(&world, direction, protocol);
                assert!(world.packet(&whole, direction).passes(), "protocol {protocol}");
                world.memory.forget();
                for length in 0..whole.len() {
                    let cut = world.packet(&whole[..length], direction);
                    assert!(cut.reason.is_drop(), "protocol {protocol}, {length} bytes: {cut:?}");
                }
                says_how_long_it_is(&world, direction, protocol, &whole);
                world.memory.forget();
            }
        }
    }
}

fn says_how_long_it_is(world: &World, direction: Direction, protocol: u8, whole: &[u8]) {
    let least = match protocol {
        6 => 20,
        132 => 16,
        1 | 17 | 58 => 8,
        _ => 0,
    };
    let (at, header) = if world.is_v4() { (16, 20) } else { (18, 0) };
    for said in 0..=whole.len() + 10 {
        let mut bytes = whole.to_vec();
        bytes[at..at + 2].copy_from_slice(&u16::try_from(said).expect("small").to_be_bytes());
        let verdict = world.packet(&bytes, direction);
        let end = if world.is_v4() { 14 + said } else { 54 + said };
        let holds = end <= whole.len() && said >= header + least;
        assert_eq!(verdict.passes(), holds, "protocol {protocol} of {said} bytes: {verdict:?}");
        world.memory.four.remove_all();
        world.memory.six.remove_all();
    }
}

/// A connection that lives takes no packet that its receiver would not take, from either side.
#[test]
fn no_length_passes_within_a_connection_either() {
    for world in World::both() {
        for (direction, from_opener) in
            Direction::ALL.into_iter().flat_map(|direction| [(direction, true), (direction, false)])
        {
            let flow = world.allowed(direction);
            world.connect(&flow);
            let whole = segment(&flow, from_opener, ACK);
            let way = if from_opener { direction } else { other(direction) };
            let at = if world.is_v4() { 16 } else { 18 };
            let length = u16::from_be_bytes([whole[at], whole[at + 1]]);
            for said in 0..length + 10 {
                let mut bytes = whole.clone();
                bytes[at..at + 2].copy_from_slice(&said.to_be_bytes());
                let expected = if said == length { Reason::Established } else { Reason::Malformed };
                let reason = world.packet(&bytes, way).reason;
                assert!(
                    reason == expected || said < 20 && reason.is_drop(),
                    "{way:?}: {said} of {length} bytes: {reason:?}"
                );
            }
            assert_eq!(world.segment(&flow, from_opener, ACK).reason, Reason::Established);
        }
    }
}

#[test]
fn frames_without_a_packet_are_dropped() {
    for world in World::both() {
        for direction in Direction::ALL {
            for ether_type in [0x0800, 0x86dd, 0x0806, 0x1234] {
                for length in 0..20 {
                    let bytes = ethernet(direction, ether_type, &vec![0x45; length]);
                    let verdict = world.packet(&bytes, direction);
                    // What a pod hears about neighbours is never judged.
                    let is_heard = ether_type == 0x0806 && direction == Ingress;
                    assert!(verdict.reason.is_drop() || is_heard, "{ether_type:#x}, {length}: {verdict:?}");
                }
            }
        }
    }
}

/// Every length of header, with what belongs in it and without.
#[test]
fn the_length_of_the_header_says_where_the_ports_are() {
    let [world, _] = World::both();
    let judged = |flow: &Flow, bytes: &[u8]| {
        let reason = world.packet(bytes, flow.direction).reason;
        world.memory.four.remove_all();
        reason
    };
    for direction in Direction::ALL {
        let port = if direction == Ingress { 80 } else { 443 };
        let allowed = world.friend(direction, Protocol::TCP, port);
        let denied = world.friend(direction, Protocol::TCP, 22);
        for words in 0_u8..11 {
            let nops = vec![1; usize::from(words) * 4];
            assert_eq!(judged(&allowed, &with_options(&allowed, &nops)), Reason::Allowed, "{words} words");
            assert_eq!(judged(&denied, &with_options(&denied, &nops)), Reason::DefaultDeny, "{words} words");
        }
        // Record route, timestamp, router alert: they change nothing.
        let kinds: [&[u8]; 3] = [&[7, 7, 4, 0, 0, 0, 0, 0], &[68, 8, 5, 0, 0, 0, 0, 0], &[148, 4, 0, 0]];
        for options in kinds {
            assert_eq!(judged(&allowed, &with_options(&allowed, options)), Reason::Allowed, "{options:?}");
            assert_eq!(judged(&denied, &with_options(&denied, options)), Reason::DefaultDeny);
        }
        for header in 0..16 {
            // The packet of a denied flow, whatever its header says about its length.
            let mut lie = opening(&denied);
            lie[14] = 0x40 | header;
            let reason = judged(&denied, &lie);
            assert!(reason.is_drop(), "{header} words: {reason:?}");
            if header < 5 {
                assert_eq!(reason, Reason::Malformed);
            }
        }
    }
}
