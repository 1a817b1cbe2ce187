//! Who opened it, who may answer, when it ends.

use cellwall_abi::{ACTION_DENY, Bucket, Conn, PolicyEntry, RULE_NONE, Reason};
use cellwall_policy::flow::{Direction, Flow, Protocol};
use cellwall_testkit::frame::{Frame, opening_from};
use cellwall_verdict::header::{ACK, FIN, RST, SYN};
use cellwall_verdict::process;

use crate::world::{POD, RULES, World, frame, other};

#[test]
fn what_a_rule_denies_is_told_apart_from_what_no_rule_allows() {
    for direction in Direction::ALL {
        for mut world in World::both() {
            let flow = world.allowed(direction);
            for (rule, reason) in [(RULE_NONE, Reason::DefaultDeny), (7, Reason::Denied)] {
                world.change(|tables| {
                    for entry in tables.policy.values_mut() {
                        *entry = PolicyEntry::only_rest(ACTION_DENY, rule);
                    }
                });
                let verdict = world.open(&flow);
                assert_eq!((verdict.reason, verdict.rule, verdict.passes()), (reason, rule, false));
            }
        }
    }
}

#[test]
fn a_first_packet_is_judged_by_its_own_direction() {
    for world in World::both() {
        let cases = [
            (world.friend(Direction::Ingress, Protocol::TCP, 79), Reason::DefaultDeny, 0),
            (world.friend(Direction::Ingress, Protocol::TCP, 80), Reason::Allowed, RULES[0]),
            (world.friend(Direction::Ingress, Protocol::TCP, 90), Reason::Allowed, RULES[0]),
            (world.friend(Direction::Ingress, Protocol::TCP, 91), Reason::DefaultDeny, 0),
            (world.friend(Direction::Ingress, Protocol::UDP, 80), Reason::DefaultDeny, 0),
            (world.friend(Direction::Ingress, Protocol::SCTP, 80), Reason::DefaultDeny, 0),
            (world.friend(Direction::Ingress, world.icmp(), 0), Reason::DefaultDeny, 0),
            (world.friend(Direction::Ingress, Protocol(47), 0), Reason::DefaultDeny, 0),
            (world.friend(Direction::Egress, Protocol::TCP, 80), Reason::DefaultDeny, 0),
            (world.friend(Direction::Egress, Protocol::TCP, 443), Reason::Allowed, RULES[1]),
            (world.stranger(Direction::Ingress, Protocol::TCP, 80), Reason::DefaultDeny, 0),
            (world.stranger(Direction::Egress, Protocol::TCP, 443), Reason::DefaultDeny, 0),
        ];
        for (flow, reason, rule) in cases {
            let verdict = world.open(&flow);
            assert_eq!((verdict.reason, verdict.rule), (reason, rule), "{flow:?}");
        }
    }
}

#[test]
fn a_reply_rides_on_the_entry_and_nothing_else_does() {
    for world in World::both() {
        for direction in Direction::ALL {
            let flow = world.allowed(direction);
            assert_eq!(world.answer(&flow).reason, Reason::DefaultDeny, "before anybody asked");
            world.connect(&flow);
            assert_eq!(world.segment(&flow, false, ACK).reason, Reason::Established);
            let elsewhere = world.stranger(direction, Protocol::TCP, flow.port);
            assert!(world.segment(&elsewhere, false, ACK).reason.is_drop(), "the tuple of another");
        }
    }
}

#[test]
fn a_syn_from_the_other_side_of_an_entry_is_judged_as_new() {
    for direction in Direction::ALL {
        for mut world in World::both() {
            let flow = world.allowed(direction);
            world.connect(&flow);
            let before = (world.memory.four.flows(), world.memory.six.flows());
            assert_eq!(world.segment(&flow, false, SYN).reason, Reason::DefaultDeny);
            assert_eq!(
                before,
                (world.memory.four.flows(), world.memory.six.flows()),
                "denied, it touches nothing"
            );
            assert_eq!(world.segment(&flow, true, ACK).reason, Reason::Established);
            world.allow_all();
            assert_eq!(world.segment(&flow, false, SYN).reason, Reason::Allowed, "where it may");
            world.open_up();
            assert_eq!(world.segment(&flow, false, SYN).reason, Reason::NotIsolated, "where nobody asks");
        }
    }
}

#[test]
fn denied_packets_leave_nothing() {
    for world in World::both() {
        for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP, world.icmp(), Protocol(47)] {
            world.open(&world.stranger(Direction::Ingress, protocol, 80));
            world.open(&world.stranger(Direction::Egress, protocol, 80));
        }
        assert_eq!(world.connections(), (0, 0));
    }
}

#[test]
fn packets_that_open_nothing_and_belong_to_nothing_are_dropped() {
    for mut world in World::both() {
        for direction in Direction::ALL {
            let allowed = world.allowed(direction);
            for flags in [SYN | ACK, RST, 0, FIN | 0x28] {
                let reason = world.segment(&allowed, true, flags).reason;
                assert_eq!(reason, Reason::NoConnection, "flags {flags:#x}");
            }
            let denied = world.stranger(direction, Protocol::TCP, allowed.port);
            for flags in [SYN | ACK, RST, 0, ACK, FIN | ACK, SYN | FIN] {
                assert!(world.segment(&denied, true, flags).reason.is_drop(), "flags {flags:#x}");
            }
            assert_eq!(world.connections(), (0, 0));
        }
        world.open_up();
        for direction in Direction::ALL {
            for flags in [SYN | ACK, RST, 0, FIN | 0x28] {
                let denied = world.stranger(direction, Protocol::TCP, 22);
                assert_eq!(world.segment(&denied, true, flags).reason, Reason::NotIsolated, "{flags:#x}");
            }
        }
    }
}

#[test]
fn answered_connections_move_away_from_unanswered_ones() {
    for mut world in World::both() {
        for direction in Direction::ALL {
            let tcp = world.allowed(direction);
            world.open(&tcp);
            assert_eq!(world.connections(), (0, 1));
            world.answer(&tcp);
            assert_eq!(world.connections(), (0, 1), "after SYN and SYN-ACK");
            world.segment(&tcp, true, ACK);
            assert_eq!(world.connections(), (1, 0), "after the third packet of the handshake");

            let dns = world.friend(direction, Protocol::UDP, 53);
            world.open(&dns);
            world.answer(&dns);
            assert_eq!(world.connections(), (1, 1), "one question and one answer stay apart");
            world.open(&dns);
            assert_eq!(world.connections(), (2, 0), "the opener's second packet after an answer");
            world.memory.forget();
        }
    }
}

/// Out of the pod it is the pod that floods, into it whoever may reach it.
#[test]
fn a_flood_of_one_pod_is_bounded_and_passes_by_policy() {
    for mut world in World::both() {
        let tokens = usize::try_from(Bucket::UNANSWERED).expect("a number of rows");
        for direction in Direction::ALL {
            let allowed = world.allowed(direction);
            let denied = Flow { port: 22, ..allowed };
            // Not by `judge`: it copies all rows for every packet.
            let send = |world: &World, flow: &Flow, port: usize| {
                let bytes = opening_from(flow, u16::try_from(port + 1).expect("a port"));
                process(&frame(&bytes, direction), &world.memory, direction).reason
            };
            for port in 0..tokens + 500 {
                assert_eq!(send(&world, &allowed, port), Reason::Allowed);
            }
            assert_eq!(send(&world, &denied, 1), Reason::DefaultDeny, "without room as with it");
            assert_eq!(world.connections(), (0, tokens));
            world.memory.tick += 1;
            assert_eq!(send(&world, &allowed, tokens + 500), Reason::Allowed);
            assert_eq!(world.connections(), (0, tokens + 1), "there is room in the next tick");
            world.memory.forget();
        }
    }
}

#[test]
fn the_same_syn_once_more_takes_nothing_from_others() {
    for mut world in World::both() {
        for direction in Direction::ALL {
            let flow = world.allowed(direction);
            for _ in 0..=Bucket::UNANSWERED {
                assert_eq!(world.open(&flow).reason, Reason::Allowed);
            }
            world.open(&world.friend(direction, Protocol::UDP, 53));
            assert_eq!(world.connections(), (0, 2));
            world.memory.forget();
        }
    }
}

#[test]
fn a_tuple_that_is_used_again_is_unanswered_again() {
    for direction in Direction::ALL {
        for mut world in World::both() {
            let flow = world.allowed(direction);
            world.connect(&flow);
            world.segment(&flow, false, RST);
            world.memory.tick += 11;
            assert_eq!(world.connections(), (1, 0));
            assert_eq!(world.open(&flow).reason, Reason::Allowed);
            assert_eq!(world.answer(&flow).reason, Reason::Established);
            assert_eq!(world.connections(), (0, 1), "a flood of one pod must not get among the answered");
            world.memory.tick += 57;
            assert_eq!(world.open(&flow).reason, Reason::Allowed);
            assert_eq!(world.answer(&flow).reason, Reason::Established, "as if there had been none before");
        }
    }
}

#[test]
fn a_full_table_drops_nothing() {
    for direction in Direction::ALL {
        for full in [true, false] {
            for world in World::both() {
                world.memory.four.full.set(full);
                world.memory.six.full.set(full);
                let flow = world.allowed(direction);
                world.connect(&flow);
                for from_opener in [false, true] {
                    assert_eq!(world.segment(&flow, from_opener, ACK).reason, Reason::Established);
                }
                assert_eq!(world.connections(), if full { (0, 1) } else { (1, 0) });
                // Nor does it let anything in.
                let denied = world.stranger(direction, Protocol::TCP, flow.port);
                assert_eq!(world.open(&denied).reason, Reason::DefaultDeny);
                assert_eq!(world.segment(&flow, false, SYN).reason, Reason::DefaultDeny);
            }
        }
    }
}

#[test]
fn a_responder_alone_does_not_keep_a_hole_open() {
    for mut world in World::both() {
        for direction in Direction::ALL {
            let dns = world.friend(direction, Protocol::UDP, 53);
            for opener_speaks in [true, false] {
                world.open(&dns);
                for _ in 0..10 {
                    world.memory.tick += 20;
                    if opener_speaks {
                        world.open(&dns);
                    }
                    world.answer(&dns);
                }
                let expected = if opener_speaks { Reason::Established } else { Reason::DefaultDeny };
                assert_eq!(world.answer(&dns).reason, expected, "{direction:?}");
                world.memory.forget();
            }
        }
    }
}

/// A packet looks at the clock and is held up; one on another CPU, of the next tick, overtakes it.
#[test]
fn a_packet_that_another_has_overtaken_ends_nothing() {
    for mut world in World::both() {
        for direction in Direction::ALL {
            let dns = world.friend(direction, Protocol::UDP, 53);
            world.memory.tick += 1000;
            world.open(&dns);
            world.answer(&dns);
            world.open(&dns);
            world.memory.tick -= 1;
            assert_eq!(world.answer(&dns).reason, Reason::Established, "{direction:?}");
            world.memory.tick += 1;
            assert_eq!(world.answer(&dns).reason, Reason::Established, "{direction:?}");
            world.memory.forget();
        }
    }
}

#[test]
fn both_fins_or_a_reset_end_it() {
    for direction in Direction::ALL {
        for mut world in World::both() {
            let flow = world.allowed(direction);
            world.connect(&flow);
            world.segment(&flow, true, FIN | ACK);
            world.memory.tick += 100;
            assert_eq!(
                world.segment(&flow, false, ACK).reason,
                Reason::Established,
                "one side has not ended"
            );
            world.segment(&flow, false, FIN | ACK);
            assert_eq!(
                world.segment(&flow, true, ACK).reason,
                Reason::Established,
                "the last acknowledgement"
            );
            world.memory.tick += 11;
            assert!(world.segment(&flow, false, ACK).reason.is_drop());

            world.connect(&flow);
            world.segment(&flow, false, RST);
            world.memory.tick += 11;
            assert!(world.segment(&flow, false, ACK).reason.is_drop());
        }
    }
}

#[test]
fn an_error_belongs_to_the_packet_it_quotes() {
    for mut world in World::both() {
        for direction in Direction::ALL {
            let asked = world.allowed(direction);
            world.open(&asked);
            let at = other(direction);
            let error = |flow| world.packet(&crate::headers::error_about(flow, at), at).reason;
            assert_eq!(error(&asked), Reason::Related);
            let never = Flow { port: asked.port + 1, ..asked };
            assert_eq!(error(&never), Reason::Unrelated);
            assert_eq!(world.connections(), (0, 1), "an error makes no state");
            world.memory.forget();
        }
        world.open_up();
        let never = world.stranger(Direction::Egress, Protocol::TCP, 22);
        let error = crate::headers::error_about(&never, Direction::Ingress);
        assert_eq!(world.packet(&error, Direction::Ingress).reason, Reason::NotIsolated);
    }
}

#[test]
fn the_own_node_is_told_by_the_interface_and_not_by_its_address() {
    for world in World::both() {
        let flow = world.stranger(Direction::Ingress, Protocol::TCP, 80);
        let mut frame = Frame::opening(&flow, POD);
        frame.ingress_ifindex = 0;
        assert_eq!(world.judge(&frame, Direction::Ingress).reason, Reason::OwnNode);
        assert_eq!(world.answer(&flow).reason, Reason::Established);
        assert_eq!(
            world.segment(&flow, true, SYN).reason,
            Reason::DefaultDeny,
            "the same address from elsewhere"
        );
        // Nor is it told by an address that is a node's, which anybody on the wire may write into a packet.
        let flow = Flow { remote: world.node(), ..world.stranger(Direction::Ingress, Protocol::TCP, 81) };
        assert_eq!(world.open(&flow).reason, Reason::DefaultDeny);
        let mut frame = Frame::opening(&flow, POD);
        frame.ingress_ifindex = 0;
        assert_eq!(world.judge(&frame, Direction::Ingress).reason, Reason::OwnNode);
    }
}

#[test]
fn the_pod_itself_through_its_own_interface_passes() {
    for world in World::both() {
        let flow = world.stranger(Direction::Ingress, Protocol::UDP, 80);
        let mut frame = Frame::opening(&flow, POD);
        frame.ingress_ifindex = POD;
        assert_eq!(world.judge(&frame, Direction::Ingress).reason, Reason::OwnPod);
    }
}

/// The only connection that there is.
fn only(world: &World) -> Conn {
    let memory = &world.memory;
    let four = memory.four.flows().into_iter().chain(memory.four.pendings()).map(|(_, conn)| conn);
    let six = memory.six.flows().into_iter().chain(memory.six.pendings()).map(|(_, conn)| conn);
    let all: Vec<Conn> = four.chain(six).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]
}

/// Packets and bytes of the opener and of the other side, and the microseconds of the handshake.
fn numbers(world: &World, direction: Direction) -> ([u32; 2], [u64; 2], u32) {
    let conn = only(world);
    let sides = [direction as usize, other(direction) as usize];
    (sides.map(|side| conn.packets[side]), sides.map(|side| conn.bytes[side]), conn.handshake_us)
}

#[test]
fn packets_and_bytes_are_counted_and_a_handshake_is_timed() {
    for direction in Direction::ALL {
        for mut world in World::both() {
            // The 32 bits of the microseconds are over in the middle of the handshake.
            world.memory.tick = 4294;
            let flow = world.allowed(direction);
            let length: u64 = if world.is_v4() { 14 + 20 + 20 } else { 14 + 40 + 20 };
            world.open(&flow);
            assert_eq!(numbers(&world, direction), ([1, 0], [length, 0], 4_294_000_000), "when it began");
            world.open(&flow);
            world.memory.tick += 2;
            world.answer(&flow);
            assert_eq!(numbers(&world, direction), ([2, 1], [2 * length, length], 4_294_000_000));
            world.memory.tick += 1;
            world.segment(&flow, true, ACK);
            assert_eq!(numbers(&world, direction), ([3, 1], [3 * length, length], 3_000_000), "and took");
            assert_eq!((only(&world).created, only(&world).seen), (4294, 4297));
            // Whole frames, whatever of them is the packet; and what is denied is nobody's.
            world.memory.tick += 1;
            let mut padded = cellwall_testkit::frame::segment(&flow, false, ACK);
            padded.extend([0; 100]);
            for _ in 0..3 {
                assert_eq!(world.packet(&padded, other(direction)).reason, Reason::Established);
            }
            assert_eq!(world.segment(&flow, false, SYN).reason, Reason::DefaultDeny);
            let answered = 4 * length + 300;
            assert_eq!(numbers(&world, direction), ([3, 4], [3 * length, answered], 3_000_000));
            // Packets that end it are the last that count, and another on its tuple counts from one.
            world.segment(&flow, true, RST);
            assert_eq!(numbers(&world, direction), ([4, 4], [4 * length, answered], 3_000_000));
            world.memory.tick += 20;
            assert!(world.segment(&flow, false, ACK).reason.is_drop());
            world.memory.tick = 4400;
            let began = 4_400_000_000_u64 - (1 << 32);
            world.open(&flow);
            let began = u32::try_from(began).expect("the lower half");
            assert_eq!(numbers(&world, direction), ([1, 0], [length, 0], began));
        }
    }
}

#[test]
fn what_has_no_handshake_is_counted_and_not_timed() {
    for direction in Direction::ALL {
        for mut world in World::both() {
            let dns = world.friend(direction, Protocol::UDP, 53);
            let length: u64 = if world.is_v4() { 14 + 20 + 16 } else { 14 + 40 + 16 };
            for n in 1..5 {
                world.open(&dns);
                world.answer(&dns);
                world.memory.tick += 1;
                assert_eq!(numbers(&world, direction), ([n; 2], [u64::from(n) * length; 2], 0));
            }
            // A segment of a connection that nobody saw begin; it leaves an entry where both directions are allowed.
            world.memory.forget();
            world.allow_all();
            let flow = world.allowed(direction);
            for n in 1..4 {
                assert!(world.segment(&flow, true, ACK).passes());
                assert!(world.segment(&flow, false, ACK).passes());
                let (packets, _, handshake) = numbers(&world, direction);
                assert_eq!((packets, handshake), ([n; 2], 0));
            }
        }
    }
}
