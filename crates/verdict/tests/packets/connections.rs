//! Who opened it, who may answer, when it ends.

use cellwall_abi::{Bucket, Reason};
use cellwall_policy::flow::{Direction, Protocol};
use cellwall_testkit::frame::Frame;
use cellwall_verdict::header::{ACK, FIN, RST, SYN};

use crate::world::{POD, RULES, World};

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
        let flow = world.friend(Direction::Egress, Protocol::TCP, 443);
        assert_eq!(world.answer(&flow).reason, Reason::DefaultDeny, "before anybody asked");
        world.connect(&flow);
        assert_eq!(world.segment(&flow, false, ACK).reason, Reason::Established);
        let elsewhere = world.stranger(Direction::Egress, Protocol::TCP, 443);
        assert!(world.segment(&elsewhere, false, ACK).reason.is_drop(), "the tuple of another");
    }
}

#[test]
fn a_syn_from_the_other_side_of_an_entry_is_judged_as_new() {
    for mut world in World::both() {
        let flow = world.friend(Direction::Egress, Protocol::TCP, 443);
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
    for world in World::both() {
        let allowed = world.friend(Direction::Ingress, Protocol::TCP, 80);
        for flags in [SYN | ACK, RST, 0, FIN | 0x28] {
            assert_eq!(world.segment(&allowed, true, flags).reason, Reason::NoConnection, "flags {flags:#x}");
        }
        let denied = world.stranger(Direction::Ingress, Protocol::TCP, 80);
        for flags in [SYN | ACK, RST, 0, ACK, FIN | ACK, SYN | FIN] {
            assert!(world.segment(&denied, true, flags).reason.is_drop(), "flags {flags:#x}");
        }
        assert_eq!(world.connections(), (0, 0));
    }
}

#[test]
fn answered_connections_move_away_from_unanswered_ones() {
    for world in World::both() {
        let tcp = world.friend(Direction::Ingress, Protocol::TCP, 80);
        world.open(&tcp);
        assert_eq!(world.connections(), (0, 1));
        world.answer(&tcp);
        assert_eq!(world.connections(), (0, 1), "after SYN and SYN-ACK");
        world.segment(&tcp, true, ACK);
        assert_eq!(world.connections(), (1, 0), "after the third packet of the handshake");

        let dns = world.friend(Direction::Egress, Protocol::UDP, 53);
        world.open(&dns);
        world.answer(&dns);
        assert_eq!(world.connections(), (1, 1), "one question and one answer stay apart");
        world.open(&dns);
        assert_eq!(world.connections(), (2, 0), "the opener's second packet after an answer");
    }
}

#[test]
fn a_flood_of_one_pod_is_bounded_and_passes_by_policy() {
    for world in World::both() {
        let tokens = usize::try_from(Bucket::PER_TICK).expect("a number of rows");
        let flow = world.friend(Direction::Ingress, Protocol::TCP, 80);
        let port_at = if world.is_v4() { 34 } else { 54 };
        for port in 0..tokens + 500 {
            let mut frame = cellwall_testkit::frame::opening(&flow);
            let port = u16::try_from(port + 1).expect("a port");
            frame[port_at..port_at + 2].copy_from_slice(&port.to_be_bytes());
            assert!(world.packet(&frame, Direction::Ingress).passes());
        }
        assert_eq!(world.connections(), (0, tokens));
    }
}

#[test]
fn the_same_syn_once_more_takes_nothing_from_others() {
    for world in World::both() {
        let flow = world.friend(Direction::Ingress, Protocol::TCP, 80);
        for _ in 0..=Bucket::PER_TICK {
            assert_eq!(world.open(&flow).reason, Reason::Allowed);
        }
        world.open(&world.friend(Direction::Ingress, Protocol::TCP, 90));
        assert_eq!(world.connections(), (0, 2));
    }
}

#[test]
fn a_tuple_that_is_used_again_is_unanswered_again() {
    for mut world in World::both() {
        let flow = world.friend(Direction::Ingress, Protocol::TCP, 80);
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

#[test]
fn a_full_table_drops_nothing() {
    for world in World::both() {
        world.memory.four.full.set(true);
        world.memory.six.full.set(true);
        let flow = world.friend(Direction::Ingress, Protocol::TCP, 80);
        world.connect(&flow);
        assert_eq!(world.segment(&flow, false, ACK).reason, Reason::Established);
        assert_eq!(world.connections(), (0, 1));
    }
}

#[test]
fn a_responder_alone_does_not_keep_a_hole_open() {
    for mut world in World::both() {
        let dns = world.friend(Direction::Egress, Protocol::UDP, 53);
        world.open(&dns);
        for _ in 0..10 {
            world.memory.tick += 20;
            world.answer(&dns);
        }
        assert_eq!(world.answer(&dns).reason, Reason::DefaultDeny);
    }
}

#[test]
fn both_fins_or_a_reset_end_it() {
    for mut world in World::both() {
        let flow = world.friend(Direction::Egress, Protocol::TCP, 443);
        world.connect(&flow);
        world.segment(&flow, true, FIN | ACK);
        world.memory.tick += 100;
        assert_eq!(world.segment(&flow, false, ACK).reason, Reason::Established, "one side has not ended");
        world.segment(&flow, false, FIN | ACK);
        assert_eq!(world.segment(&flow, true, ACK).reason, Reason::Established, "the last acknowledgement");
        world.memory.tick += 11;
        assert!(world.segment(&flow, false, ACK).reason.is_drop());

        world.connect(&flow);
        world.segment(&flow, false, RST);
        world.memory.tick += 11;
        assert!(world.segment(&flow, false, ACK).reason.is_drop());
    }
}

#[test]
fn an_error_belongs_to_the_packet_it_quotes() {
    for world in World::both() {
        let asked = world.friend(Direction::Egress, Protocol::TCP, 443);
        world.open(&asked);
        let error = |flow| crate::headers::error_about(flow, Direction::Ingress);
        assert_eq!(world.packet(&error(&asked), Direction::Ingress).reason, Reason::Related);
        let never = world.friend(Direction::Egress, Protocol::TCP, 444);
        assert_eq!(world.packet(&error(&never), Direction::Ingress).reason, Reason::Unrelated);
        assert_eq!(world.connections(), (0, 1), "an error makes no state");
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
