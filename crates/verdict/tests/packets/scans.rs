//! Rows B1, B2, B3, B5 and B8 of docs/robustness.md: packets that belong to no connection, or to another one.

use cellwall_abi::{ClassPair, ENDPOINT_IDENTIFIED, EndpointRecord, Reason};
use cellwall_policy::flow::Direction::{self, Egress, Ingress};
use cellwall_policy::flow::{Flow, Protocol};
use cellwall_testkit::frame::{Frame, answer, opening, packet};
use cellwall_verdict::conn::{CLOSING_TICKS, IDLE_TICKS, PENDING_TICKS};
use cellwall_verdict::header::{ACK, FIN, RST, SYN};

use crate::world::{IMAGES, POD, World, other};

pub(crate) const NEIGHBOUR_SLOT: u32 = 9;
const PSH: u8 = 8;
const URG: u8 = 32;

#[test]
fn no_syn_comes_in_on_the_tuple_of_another_connection() {
    for mut world in World::both() {
        for direction in Direction::ALL {
            let port = if direction == Ingress { 80 } else { 443 };
            let flow = world.friend(direction, Protocol::TCP, port);
            let reversed = |world: &World| world.segment(&flow, false, SYN).reason;
            assert_eq!(reversed(&world), Reason::DefaultDeny, "before");
            world.connect(&flow);
            for flags in [SYN, SYN | PSH, SYN | URG | PSH, SYN | 0xc0] {
                assert_eq!(world.segment(&flow, false, flags).reason, Reason::DefaultDeny, "live");
            }
            world.segment(&flow, true, FIN | ACK);
            world.segment(&flow, false, FIN | ACK);
            assert_eq!(reversed(&world), Reason::DefaultDeny, "closed");
            world.memory.tick += CLOSING_TICKS + 1;
            assert_eq!(reversed(&world), Reason::DefaultDeny, "long closed");
            // One that nobody answered, while it is waited for and afterwards.
            world.memory.forget();
            world.open(&flow);
            assert_eq!(reversed(&world), Reason::DefaultDeny, "unanswered");
            world.memory.tick += PENDING_TICKS + 1;
            assert_eq!(reversed(&world), Reason::DefaultDeny, "given up");
            assert!(world.segment(&flow, false, SYN | ACK).reason.is_drop(), "too late");
            world.memory.forget();
        }
        // At a pod that nothing isolates the same segment is one that opens.
        world.open_up();
        for direction in Direction::ALL {
            let flow = world.friend(direction, Protocol::TCP, 80);
            assert_eq!(world.segment(&flow, false, SYN).reason, Reason::NotIsolated, "before");
            world.connect(&flow);
            for flags in [SYN, SYN | PSH, SYN | URG | PSH, SYN | 0xc0] {
                assert_eq!(world.segment(&flow, false, flags).reason, Reason::NotIsolated, "live");
            }
            world.memory.forget();
        }
    }
}

#[test]
fn both_sides_open_at_once_where_both_may() {
    for direction in Direction::ALL {
        for mut world in World::both() {
            let flow = world.allowed(direction);
            world.open(&flow);
            assert_eq!(world.segment(&flow, false, SYN).reason, Reason::DefaultDeny, "one may not");
            assert_eq!(world.answer(&flow).reason, Reason::Established, "and loses nothing by it");
            world.allow_all();
            world.memory.forget();
            world.open(&flow);
            assert_eq!(world.segment(&flow, false, SYN).reason, Reason::Allowed);
            for from_opener in [true, false] {
                assert_eq!(world.segment(&flow, from_opener, SYN | ACK).reason, Reason::Established);
                assert_eq!(world.segment(&flow, from_opener, ACK).reason, Reason::Established);
            }
        }
    }
}

/// All combinations of flags, to ports that are allowed and to others, by friends and by strangers.
#[test]
fn no_scan_leaves_or_finds_anything() {
    for mut world in World::both() {
        for direction in Direction::ALL {
            let port = if direction == Ingress { 80 } else { 443 };
            for flags in 0..=255_u8 {
                let opens = flags & (SYN | ACK | RST | FIN) == SYN;
                let continues = flags & (SYN | ACK | RST) == ACK;
                for denied in [
                    world.stranger(direction, Protocol::TCP, port),
                    world.friend(direction, Protocol::TCP, port + 100),
                ] {
                    let reason = world.segment(&denied, true, flags).reason;
                    assert!(reason.is_drop(), "flags {flags:#x}: {reason:?}");
                }
                let allowed = world.friend(direction, Protocol::TCP, port);
                let reason = world.segment(&allowed, true, flags).reason;
                let expected = if opens || continues { Reason::Allowed } else { Reason::NoConnection };
                assert_eq!(reason, expected, "flags {flags:#x}");
                let left = world.connections();
                assert_eq!(left, (0, usize::from(opens)), "flags {flags:#x}");
                world.memory.four.remove_all();
                world.memory.six.remove_all();
            }
        }
        // At a pod that nothing isolates all of them arrive.
        world.open_up();
        for direction in Direction::ALL {
            for flags in 0..=255_u8 {
                let scan = world.stranger(direction, Protocol::TCP, 22);
                assert_eq!(world.segment(&scan, true, flags).reason, Reason::NotIsolated, "flags {flags:#x}");
                world.memory.four.remove_all();
                world.memory.six.remove_all();
            }
        }
    }
}

/// A client that is fast comes back to a port before the other side has forgotten it.
#[test]
fn a_port_is_used_again_at_once() {
    for world in World::both() {
        for direction in Direction::ALL {
            let port = if direction == Ingress { 80 } else { 443 };
            let flow = world.friend(direction, Protocol::TCP, port);
            for ending in [0, 1, 2, 3] {
                for _ in 0..50 {
                    world.connect(&flow);
                    assert_eq!(world.segment(&flow, true, ACK).reason, Reason::Established);
                    match ending {
                        0 => {
                            world.segment(&flow, true, FIN | ACK);
                            world.segment(&flow, false, FIN | ACK);
                            assert_eq!(world.segment(&flow, true, ACK).reason, Reason::Established);
                        }
                        1 => drop(world.segment(&flow, true, RST)),
                        2 => drop(world.segment(&flow, false, RST | ACK)),
                        // Nobody says goodbye.
                        _ => {}
                    }
                }
            }
        }
    }
}

/// Another pod on this node, behind the next interface, with the same policies.
pub(crate) fn neighbour(world: &mut World) -> u32 {
    let ifindex = POD + 1;
    let to_friend = world.friend(Egress, Protocol::TCP, 443);
    world.change(|tables| {
        tables.endpoints.insert(ifindex, NEIGHBOUR_SLOT);
        let mut record: EndpointRecord = tables.records[&(3, 0)];
        record.flags = ENDPOINT_IDENTIFIED;
        record.ifindex = ifindex;
        record.image = IMAGES;
        match to_friend.remote {
            std::net::IpAddr::V4(address) => record.address4 = address.into(),
            std::net::IpAddr::V6(address) => record.address6 = address.into(),
        }
        for bank in [0, 1] {
            tables.records.insert((NEIGHBOUR_SLOT, bank), record);
        }
        tables.classes.insert(5, ClassPair::new([17, 17]));
    });
    ifindex
}

/// The friend forges frames that look as if its victim had opened a connection to it, and answers them.
#[test]
fn what_one_pod_forges_opens_nothing_at_another() {
    for mut world in World::both() {
        let friend = neighbour(&mut world);
        let wished = world.friend(Ingress, Protocol::TCP, 22);
        for forged in [
            opening(&world.friend(Egress, Protocol::TCP, 443)),
            answer(&wished),
            cellwall_testkit::frame::segment(&wished, false, ACK),
        ] {
            // In the friend's egress it is the victim's address that does not belong there, ...
            let mut frame = Frame::new(&forged, friend);
            frame.ingress_ifindex = friend;
            assert_eq!(world.judge(&frame, Egress).reason, Reason::Spoofed);
            // ... and at the friend's own interface nothing it is sent opens anything elsewhere.
            world.judge(&frame, Ingress);
        }
        // Allowed connections of the friend itself are the friend's alone.
        let own = world.friend(Ingress, Protocol::TCP, 80);
        let mut frame = Frame::new(&answer(&own), friend);
        frame.ingress_ifindex = POD;
        world.judge(&frame, Ingress);
        for flags in [ACK, SYN | ACK, RST, FIN | ACK] {
            let reason = world.segment(&wished, true, flags).reason;
            assert!(reason.is_drop(), "flags {flags:#x}: {reason:?}");
        }
        assert_eq!(world.open(&wished).reason, Reason::DefaultDeny);
        // What the friend may do it does all the same, and what the victim sends itself opens the way back ...
        world.connect(&own);
        let asked = world.friend(Egress, Protocol::TCP, 443);
        assert!(world.answer(&asked).reason.is_drop(), "nobody has asked yet");
        assert_eq!(world.packet(&opening(&asked), Egress).reason, Reason::Allowed);
        assert_eq!(world.answer(&asked).reason, Reason::Established);
        // ... and at a pod that nothing isolates all that was wished for arrives.
        world.open_up();
        for flags in [ACK, SYN | ACK, RST, FIN | ACK] {
            assert!(world.segment(&wished, true, flags).passes(), "flags {flags:#x}");
        }
        assert_eq!(world.open(&wished).reason, Reason::NotIsolated);
    }
}

/// The same numbers at two interfaces are two connections.
#[test]
fn a_connection_is_of_one_interface() {
    for direction in Direction::ALL {
        for mut world in World::both() {
            let friend = neighbour(&mut world);
            let flow = world.allowed(direction);
            world.connect(&flow);
            world.change(|tables| {
                let own = tables.records[&(3, 0)];
                for bank in [0, 1] {
                    tables.records.insert((9, bank), own);
                }
            });
            let at_friend = |bytes: &[u8], way: Direction| {
                let mut frame = Frame::new(bytes, friend);
                frame.ingress_ifindex = if way == Egress { friend } else { POD };
                world.judge(&frame, way).reason
            };
            let back = other(direction);
            assert!(at_friend(&answer(&flow), back).is_drop(), "nobody asked behind this interface");
            assert_eq!(world.answer(&flow).reason, Reason::Established);
            assert_eq!(at_friend(&opening(&flow), direction), Reason::Allowed);
            assert_eq!(at_friend(&answer(&flow), back), Reason::Established, "now somebody has");
        }
    }
}

#[test]
fn datagrams_are_answered_for_a_while() {
    for mut world in World::both() {
        for direction in Direction::ALL {
            let dns = world.friend(direction, Protocol::UDP, 53);
            assert_eq!(world.answer(&dns).reason, Reason::DefaultDeny, "to nothing");
            world.open(&dns);
            world.memory.tick += PENDING_TICKS;
            assert_eq!(world.answer(&dns).reason, Reason::Established, "one question: a minute");
            world.memory.tick += 1;
            assert_eq!(world.answer(&dns).reason, Reason::DefaultDeny);
            world.open(&dns);
            world.answer(&dns);
            world.open(&dns);
            world.memory.tick += IDLE_TICKS;
            assert_eq!(world.answer(&dns).reason, Reason::Established, "a conversation: three");
            world.memory.tick += 1;
            assert_eq!(world.answer(&dns).reason, Reason::DefaultDeny);
            // From another port of the one who was asked, it is no answer.
            world.open(&dns);
            let moved = world.friend(direction, Protocol::UDP, 54);
            assert_eq!(world.answer(&moved).reason, Reason::DefaultDeny);
            // Port 0 is a port.
            let zero = world.friend(direction, Protocol::UDP, 0);
            assert_eq!(world.open(&zero).reason, Reason::DefaultDeny);
            world.memory.forget();
        }
        // At a pod that nothing isolates an answer to nothing arrives.
        world.open_up();
        for direction in Direction::ALL {
            let dns = world.friend(direction, Protocol::UDP, 53);
            assert_eq!(world.answer(&dns).reason, Reason::NotIsolated);
        }
    }
}

/// SCTP: chunks 1 (INIT), 2 (INIT ACK), 10 (COOKIE ECHO), 6 (ABORT), 0 (DATA).
#[test]
fn an_init_opens_and_nothing_answers_what_was_not_asked() {
    for direction in Direction::ALL {
        for mut world in World::both() {
            let flow = world.friend(direction, Protocol::SCTP, 80);
            let chunk = |world: &World, from_opener: bool, kind: u8| {
                let way = if from_opener { direction } else { other(direction) };
                let ends = if way == Egress { (flow.local, flow.remote) } else { (flow.remote, flow.local) };
                let ports = if from_opener { [0x9c, 0x40, 0, 80] } else { [0, 80, 0x9c, 0x40] };
                let payload = [&ports[..], &[0; 8], &[kind, 0, 0, 20], &[0; 16]].concat();
                world.packet(&packet(way, ends, 132, &payload), way).reason
            };
            assert_eq!(chunk(&world, true, 1), Reason::DefaultDeny);
            world.record(|record| record.image[direction as usize] = 0);
            for kind in [0, 1, 2, 6, 10] {
                assert_eq!(chunk(&world, false, kind), Reason::DefaultDeny, "chunk {kind} to nothing");
            }
            assert_eq!(chunk(&world, true, 1), Reason::NotIsolated);
            assert_eq!(chunk(&world, false, 2), Reason::Established);
            assert_eq!(chunk(&world, true, 10), Reason::Established);
            assert_eq!(chunk(&world, false, 1), Reason::DefaultDeny, "its own INIT is not an answer");
            assert_eq!(chunk(&world, false, 0), Reason::Established);
            assert_eq!(world.connections(), (1, 0));
            world.record(|record| record.image[other(direction) as usize] = 0);
            assert_eq!(chunk(&world, false, 1), Reason::NotIsolated);
            assert_eq!(world.connections(), (1, 1));
            assert_eq!(chunk(&world, true, 2), Reason::Established);
            assert_eq!(world.connections(), (1, 0), "the older association has ended");
        }
    }
}

/// The same packet with checksums of IPv4 and of its protocol that no receiver takes.
fn with_wrong_checksums(flow: &Flow, mut bytes: Vec<u8>) -> Vec<u8> {
    let transport = if flow.local.is_ipv4() { 34 } else { 54 };
    let at = match flow.protocol {
        Protocol::TCP => 16,
        Protocol::UDP => 6,
        Protocol::SCTP => 8,
        _ => 2,
    };
    bytes[transport + at] ^= 0x5a;
    if flow.local.is_ipv4() {
        bytes[24] ^= 0x5a;
    }
    bytes
}

/// Nobody looks at checksums: a packet that its receiver throws away leaves what one would that it takes, which is
/// nothing where it is denied.
#[test]
fn a_wrong_checksum_makes_no_state_that_a_right_packet_profits_from() {
    for mut world in World::both() {
        for isolated in [true, false] {
            for direction in Direction::ALL {
                let send = |world: &World, bytes: &[u8], way| world.packet(bytes, way).reason;
                for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP, world.icmp()] {
                    let denied = world.stranger(direction, protocol, 80);
                    let wrong = with_wrong_checksums(&denied, opening(&denied));
                    assert_ne!(wrong, opening(&denied));
                    let reason = send(&world, &wrong, direction);
                    if !isolated {
                        assert_eq!(reason, Reason::NotIsolated);
                        continue;
                    }
                    assert_eq!(reason, Reason::DefaultDeny, "{denied:?}");
                    assert_eq!(world.connections(), (0, 0), "{denied:?}");
                    for right in [answer(&denied), with_wrong_checksums(&denied, answer(&denied))] {
                        assert!(send(&world, &right, other(direction)).is_drop(), "{denied:?}");
                    }
                    assert!(world.open(&denied).reason.is_drop());
                }
                if isolated {
                    for flow in [world.allowed(direction), world.friend(direction, Protocol::UDP, 53)] {
                        let right = send(&world, &opening(&flow), direction);
                        let left = (world.memory.four.pendings(), world.memory.six.pendings());
                        world.memory.forget();
                        let wrong = with_wrong_checksums(&flow, opening(&flow));
                        assert_eq!(
                            (send(&world, &wrong, direction), right),
                            (Reason::Allowed, Reason::Allowed)
                        );
                        assert_eq!((world.memory.four.pendings(), world.memory.six.pendings()), left);
                        // The other side opens nothing by it, on this tuple or on another.
                        if flow.protocol == Protocol::TCP {
                            assert_eq!(world.segment(&flow, false, SYN).reason, Reason::DefaultDeny);
                        }
                        let next = Flow { port: flow.port + 1, ..flow };
                        assert_eq!(world.answer(&next).reason, Reason::DefaultDeny);
                        world.memory.forget();
                    }
                }
            }
            world.open_up();
        }
    }
}
