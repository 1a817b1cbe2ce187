//! Later fragments carry no ports and follow their first.

use cellwall_abi::Reason;
use cellwall_policy::flow::{Direction, Flow, Protocol};
use cellwall_testkit::frame::opening;

use crate::headers::with_extensions;
use crate::world::{IMAGES, World, other};

/// A fragment of the first datagram of a flow: its offset in eight bytes, and whether more follow.
pub(crate) fn fragment(flow: &Flow, id: u16, offset: u16, more: bool) -> Vec<u8> {
    if flow.local.is_ipv4() {
        let mut bytes = opening(flow);
        bytes[18..20].copy_from_slice(&id.to_be_bytes());
        bytes[20..22].copy_from_slice(&(offset | if more { 0x2000 } else { 0 }).to_be_bytes());
        return bytes;
    }
    let mut header = vec![0, 0, 0, 0, 0, 0, 0, 0];
    header[2..4].copy_from_slice(&((offset << 3) | u16::from(more)).to_be_bytes());
    header[6..8].copy_from_slice(&id.to_be_bytes());
    with_extensions(flow, &[(44, header)])
}

/// Every pod in both families, and both ways of a packet.
fn both_ways() -> impl Iterator<Item = (World, Direction)> {
    Direction::ALL.into_iter().flat_map(|direction| World::both().map(|world| (world, direction)))
}

#[test]
fn later_fragments_do_as_the_first_was_told() {
    for (world, way) in both_ways() {
        let allowed = world.friend(way, Protocol::UDP, 53);
        let denied = world.friend(way, Protocol::UDP, 54);
        assert_eq!(world.packet(&fragment(&allowed, 1, 0, true), way).reason, Reason::Allowed);
        assert_eq!(world.packet(&fragment(&allowed, 1, 10, true), way).reason, Reason::FragmentFollows);
        assert_eq!(world.packet(&fragment(&denied, 2, 0, true), way).reason, Reason::DefaultDeny);
        assert_eq!(world.packet(&fragment(&denied, 2, 10, false), way).reason, Reason::FragmentDenied);
    }
}

/// An answer is allowed by its connection alone: what follows it is allowed by nothing but its first fragment.
#[test]
fn later_fragments_follow_a_first_that_was_allowed() {
    for (mut world, way) in both_ways() {
        let (asked, back) = (world.friend(way, Protocol::UDP, 53), other(way));
        world.change(|tables| tables.policy.retain(|key, _| key.image != IMAGES[back as usize]));
        let answer = |id, offset, more| {
            let mut bytes = fragment(&asked, id, offset, more);
            swap_ends(&world, &mut bytes);
            world.packet(&bytes, back).reason
        };
        assert_eq!(answer(1, 0, true), Reason::DefaultDeny, "nobody asked");
        assert_eq!(answer(1, 10, true), Reason::FragmentDenied);
        world.open(&asked);
        assert_eq!(answer(2, 0, true), Reason::Established);
        assert_eq!(answer(2, 10, true), Reason::FragmentFollows);
        assert_eq!(answer(3, 10, true), Reason::FragmentDenied, "another datagram");
    }
}

#[test]
fn without_its_first_a_fragment_passes_when_some_port_of_its_protocol_could() {
    for (world, way) in both_ways() {
        let cases = [
            (world.friend(way, Protocol::UDP, 1), Reason::FragmentFollows),
            (world.friend(way, Protocol::SCTP, 1), Reason::FragmentDenied),
            (world.stranger(way, Protocol::UDP, 53), Reason::FragmentDenied),
        ];
        for (flow, reason) in cases {
            assert_eq!(world.packet(&fragment(&flow, 9, 20, true), way).reason, reason, "{flow:?}");
        }
    }
}

#[test]
fn a_verdict_about_a_first_does_not_outlive_its_revision() {
    for (mut world, way) in both_ways() {
        let flow = world.friend(way, Protocol::UDP, 53);
        world.packet(&fragment(&flow, 3, 0, true), way);
        assert_eq!(world.packet(&fragment(&flow, 3, 10, true), way).reason, Reason::FragmentFollows);
        world.change(|tables| tables.policy.clear());
        world.record(|record| record.since = 5);
        let later = world.packet(&fragment(&flow, 3, 10, true), way);
        assert_eq!(later.reason, Reason::FragmentDenied);
    }
}

/// Bytes of Ethernet, IP and, of IPv6, the header of the fragment.
fn headers(world: &World) -> usize {
    if world.is_v4() { 34 } else { 62 }
}

/// A fragment whose packet ends behind `length` bytes of what it carries.
fn cut(world: &World, mut fragment: Vec<u8>, length: usize) -> Vec<u8> {
    fragment.truncate(headers(world) + length);
    let (at, before) = if world.is_v4() { (16, 14) } else { (18, 54) };
    let length = u16::try_from(fragment.len() - before).expect("small");
    fragment[at..at + 2].copy_from_slice(&length.to_be_bytes());
    fragment
}

#[test]
fn tiny_first_fragments_and_tcp_at_offset_one_are_dropped() {
    for (mut world, way) in both_ways() {
        world.allow_all();
        let icmp = world.icmp();
        for (protocol, header) in [(Protocol::TCP, 20), (Protocol::UDP, 8), (Protocol::SCTP, 16), (icmp, 8)] {
            let flow = world.friend(way, protocol, 80);
            let whole = fragment(&flow, 4, 0, true);
            assert_eq!(world.packet(&whole, way).reason, Reason::Allowed, "a whole one of {protocol:?}");
            assert!(world.packet(&cut(&world, whole, header), way).passes(), "the header of {protocol:?}");
            for length in 0..header {
                let tiny = cut(&world, fragment(&flow, 5, 0, true), length);
                let reason = world.packet(&tiny, way).reason;
                // Of TCP all that is read is there, and the rest of its header is not.
                let is_read = protocol == Protocol::TCP && length >= 16;
                let expected = if is_read { Reason::Malformed } else { Reason::TinyFragment };
                assert_eq!(reason, expected, "{length} bytes of {protocol:?}");
            }
            let reason = world.packet(&fragment(&flow, 4, 1, false), way).reason;
            let is_tcp = protocol == Protocol::TCP;
            assert_eq!(reason, if is_tcp { Reason::TinyFragment } else { Reason::FragmentFollows });
        }
        world.open_up();
        let flow = world.friend(way, icmp, 0);
        let tiny = cut(&world, fragment(&flow, 5, 0, true), 4);
        assert_eq!(world.packet(&tiny, way).reason, Reason::NotIsolated);
    }
}

/// Later fragments of ICMP have no type, however short they are and whatever stands where one would.
#[test]
fn a_later_fragment_of_icmp_follows_its_first() {
    for (mut world, way) in both_ways() {
        let flow = world.friend(way, world.icmp(), 0);
        for is_allowed in [false, true] {
            let first = world.packet(&fragment(&flow, 6, 0, true), way).reason;
            assert_eq!(first, if is_allowed { Reason::Allowed } else { Reason::DefaultDeny });
            let expected = if is_allowed { Reason::FragmentFollows } else { Reason::FragmentDenied };
            // Echoes, errors, a redirect, advertisements of routers, reports of listeners.
            for kind in [0, 1, 3, 5, 8, 9, 128, 129, 134, 136, 137, 143] {
                for length in [1, 4, 7, 8] {
                    let mut later = cut(&world, fragment(&flow, 6, 10, false), length);
                    later[headers(&world)] = kind;
                    let reason = world.packet(&later, way).reason;
                    assert_eq!(reason, expected, "{way:?}: {length} bytes that begin with {kind}");
                }
            }
            world.allow_all();
            world.memory.forget();
        }
    }
}

/// Each fragment of a datagram in each order, whose flow is denied in one way or another: none of its first fragments
/// passes, so nothing can be put together. Of one that is allowed all pass.
#[test]
fn no_order_of_fragments_delivers_a_denied_datagram() {
    let mut id = 0;
    for world in World::both() {
        for direction in Direction::ALL {
            for (flow, allowed) in [
                (world.friend(direction, Protocol::UDP, 53), true),
                (world.friend(direction, Protocol::UDP, 54), false),
                (world.friend(direction, Protocol::SCTP, 80), false),
                (world.stranger(direction, Protocol::UDP, 53), false),
                (world.stranger(direction, Protocol(47), 0), false),
            ] {
                for first_at in 0..4 {
                    id += 1;
                    let later = [(8, true), (16, true), (24, false)];
                    let mut parts = later.map(|(offset, more)| fragment(&flow, id, offset, more)).to_vec();
                    parts.insert(first_at, fragment(&flow, id, 0, true));
                    for (number, part) in parts.iter().enumerate() {
                        let verdict = world.packet(part, direction);
                        if allowed {
                            assert!(verdict.passes(), "part {number} of {flow:?}: {verdict:?}");
                        } else if number == first_at {
                            assert!(verdict.reason.is_drop(), "the first of {flow:?}: {verdict:?}");
                        }
                    }
                }
            }
        }
    }
}

/// Identifications come round: what another datagram was told, now or long ago, is not what this one is told.
#[test]
fn an_identification_is_used_again() {
    for (mut world, way) in both_ways() {
        let (asked, back) = (world.friend(way, Protocol::UDP, 53), other(way));
        world.open(&asked);
        // A long answer: only its connection allows it, since nothing may go the other way to that port.
        let mut denied = world.stranger(back, Protocol::UDP, 53);
        denied.remote = asked.remote;
        denied.port = 9;
        let answer = |world: &World, offset, more| {
            let mut bytes = fragment(&asked, 7, offset, more);
            swap_ends(world, &mut bytes);
            world.packet(&bytes, back).reason
        };
        for _ in 0..3 {
            assert_eq!(world.packet(&fragment(&denied, 7, 0, true), back).reason, Reason::DefaultDeny);
            assert_eq!(answer(&world, 0, true), Reason::Established);
            assert_eq!(answer(&world, 16, false), Reason::FragmentFollows);
            world.memory.tick += 40;
            world.open(&asked);
        }
    }
}

/// Makes the first packet of a flow its answer, addresses and ports.
fn swap_ends(world: &World, bytes: &mut [u8]) {
    let (addresses, size, ports) = if world.is_v4() { (26, 4, 34) } else { (22, 16, 62) };
    let (head, tail) = bytes.split_at_mut(6);
    head.swap_with_slice(&mut tail[..6]);
    for (at, size) in [(addresses, size), (ports, 2)] {
        let (first, second) = bytes[at..at + 2 * size].split_at_mut(size);
        first.swap_with_slice(second);
    }
}

/// The fragment header may lead to an extension header, of which later fragments know nothing more.
#[test]
fn later_fragments_follow_a_first_with_headers_behind_its_own() {
    for way in Direction::ALL {
        let [_, six] = World::both();
        let part = |port: u16, id: u8, offset: u16, more: bool| {
            let mut header = vec![0; 8];
            header[2..4].copy_from_slice(&((offset << 3) | u16::from(more)).to_be_bytes());
            header[7] = id;
            let flow = six.friend(way, Protocol::UDP, port);
            six.packet(&with_extensions(&flow, &[(44, header), (60, vec![0, 0, 1, 4, 0, 0, 0, 0])]), way)
                .reason
        };
        assert_eq!(part(53, 5, 0, true), Reason::Allowed);
        assert_eq!(part(53, 5, 10, false), Reason::FragmentFollows);
        assert_eq!(part(54, 6, 0, true), Reason::DefaultDeny);
        assert_eq!(part(54, 6, 10, false), Reason::FragmentDenied);
    }
}
