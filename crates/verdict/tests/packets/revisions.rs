//! What a change of policy does to live connections.

use std::net::IpAddr;

use cellwall_abi::{
    Be16, CLASS_UNKNOWN_POD, CONN_ESTABLISHED, CONN_MIDFLOW, CONN_OPENED_BY_POD, CONN_REPLIED, ClassPair,
    Conn, Family, Live, Reason, V4, V6,
};
use cellwall_policy::flow::{Direction, Flow, Protocol};
use cellwall_testkit::frame::{CLIENT_PORT, pod_mac};
use cellwall_verdict::header::{ACK, FIN, RST, SYN};

use crate::world::{POD, RULES, World, other};

/// Every pod in both families, with a live connection that either side has opened.
fn live() -> impl Iterator<Item = (World, Flow)> {
    Direction::ALL.into_iter().flat_map(|direction| {
        World::both().map(|world| {
            let flow = world.allowed(direction);
            world.connect(&flow);
            (world, flow)
        })
    })
}

/// The next revision, in which the friend has no class that is allowed, and records say since when.
fn next(world: &mut World, since: u64) {
    world.change(|tables| {
        tables.live = Live(5);
        tables.classes.insert(5, ClassPair::new([0, CLASS_UNKNOWN_POD]));
    });
    world.record(|record| record.since = since);
}

#[test]
fn a_connection_that_policy_forbids_is_cut() {
    for (mut world, flow) in live() {
        next(&mut world, 5);
        assert_eq!(world.segment(&flow, true, ACK).reason, Reason::Revoked);
        assert_eq!(world.connections(), (0, 0));
        assert_eq!(world.segment(&flow, true, ACK).reason, Reason::DefaultDeny, "and stays cut");
        assert!(world.segment(&flow, false, ACK).reason.is_drop(), "from either side");
    }
}

#[test]
fn a_connection_that_is_cut_is_not_taken_over_in_the_other_direction() {
    for (mut world, flow) in live() {
        let until = world.memory.tick + 10;
        // As any new pod that one direction is isolated of: in the other all is allowed.
        world.record(|record| {
            record.image[other(flow.direction) as usize] = 0;
            record.midflow_until = until;
        });
        next(&mut world, 5);
        for from_opener in [true, false, true] {
            assert_eq!(world.segment(&flow, from_opener, ACK).reason, Reason::Revoked);
        }
        world.memory.tick += 20;
        assert_eq!(world.segment(&flow, true, ACK).reason, Reason::Revoked);
        assert_eq!(world.connections(), (0, 0), "then nothing needs to be remembered");
        assert_eq!(world.segment(&flow, true, ACK).reason, Reason::DefaultDeny);
    }
}

/// After a revocation, or without the programs, whoever was asked may be the first to be seen.
#[test]
fn who_was_seen_first_has_not_therefore_opened_it() {
    for direction in Direction::ALL {
        for [first, next_first] in [[true, true], [true, false], [false, true], [false, false]] {
            for mut world in World::both() {
                let flow = world.allowed(direction);
                // As of most pods: one direction is isolated.
                world.record(|record| record.image[other(flow.direction) as usize] = 0);
                for from_opener in [first, !first, first, !first] {
                    assert!(world.segment(&flow, from_opener, ACK).passes());
                }
                assert_ne!(world.connections(), (0, 0), "it is known");
                next(&mut world, 5);
                for from_opener in [next_first, !next_first, true, false] {
                    let passes = world.segment(&flow, from_opener, ACK).passes();
                    assert_eq!(passes, !from_opener, "what is isolated is cut");
                }
                assert_eq!(world.connections(), (0, 0));
            }
        }
    }
}

/// One side opens a connection on the tuple of one that the other had opened, and nobody has ended.
#[test]
fn an_older_connection_goes_on_until_the_new_one_is_answered() {
    for (mut world, flow) in live() {
        world.record(|record| record.image[other(flow.direction) as usize] = 0);
        assert_eq!(world.segment(&flow, false, SYN).reason, Reason::NotIsolated);
        assert_eq!(world.connections(), (1, 1));
        for from_opener in [true, false] {
            assert_eq!(world.segment(&flow, from_opener, ACK).reason, Reason::Established);
        }
        assert_eq!(world.segment(&flow, true, SYN | ACK).reason, Reason::Established);
        assert_eq!(world.connections(), (1, 0), "one row of one connection");
        next(&mut world, 5);
        for from_opener in [false, true] {
            let reason = world.segment(&flow, from_opener, ACK).reason;
            assert_eq!(reason, Reason::Established, "nothing keeps that side from opening it");
        }
    }
}

#[test]
fn a_cut_connection_takes_no_new_one_with_it() {
    for (mut world, flow) in live() {
        world.record(|record| record.image[other(flow.direction) as usize] = 0);
        next(&mut world, 5);
        assert_eq!(world.segment(&flow, false, SYN).reason, Reason::NotIsolated);
        assert_eq!(world.segment(&flow, true, ACK).reason, Reason::Revoked, "of the older one");
        assert_eq!(world.segment(&flow, true, SYN | ACK).reason, Reason::Established);
        assert_eq!(world.segment(&flow, false, ACK).reason, Reason::Established);
    }
}

#[test]
fn a_connection_is_judged_again_only_when_its_pod_may_have_changed() {
    for (mut world, flow) in live() {
        // Were it judged again, it would be cut: this pod has not changed since revision 4.
        next(&mut world, 4);
        assert_eq!(world.segment(&flow, true, ACK).reason, Reason::Established);
        let stamped = world.memory.four.flows().iter().map(|(_, conn)| conn.revision).collect::<Vec<_>>();
        let stamped6 = world.memory.six.flows().iter().map(|(_, conn)| conn.revision).collect::<Vec<_>>();
        assert_eq!([stamped, stamped6].concat(), [5]);
    }
}

#[test]
fn a_connection_that_stays_allowed_goes_on() {
    for (mut world, flow) in live() {
        world.change(|tables| tables.live = Live(5));
        world.record(|record| record.since = 5);
        for from_opener in [true, false] {
            assert_eq!(world.segment(&flow, from_opener, ACK).reason, Reason::Established);
        }
    }
}

#[test]
fn the_bank_of_the_live_word_is_read() {
    for direction in Direction::ALL {
        for mut world in World::both() {
            let flow = world.allowed(direction);
            world.change(|tables| {
                tables.classes.insert(5, ClassPair::new([17, 0]));
            });
            assert_eq!(world.open(&flow).reason, Reason::Allowed, "revision 4 reads bank 0");
            world.change(|tables| tables.live = Live(5));
            assert_eq!(world.open(&flow).reason, Reason::DefaultDeny, "revision 5 reads bank 1");
        }
    }
}

/// Either side opened it before anybody looked, and the first packet that is seen comes from either side.
#[test]
fn running_connections_are_taken_over_for_a_while() {
    for (direction, from_opener) in Direction::ALL.into_iter().flat_map(|d| [(d, true), (d, false)]) {
        for mut world in World::both() {
            let flow = world.allowed(direction);
            let never = world.stranger(direction, Protocol::TCP, flow.port);
            let first = |world: &World, flow: &Flow| world.segment(flow, from_opener, ACK).reason;
            if !from_opener {
                assert!(first(&world, &flow).is_drop(), "a pod that is not taken over");
            }
            let until = world.memory.tick + 10;
            world.record(|record| record.midflow_until = until);
            // The opener's own segment policy allows as it is.
            let expected = if from_opener { Reason::Allowed } else { Reason::Midflow };
            assert_eq!(first(&world, &flow), expected, "{direction:?}");
            if from_opener {
                assert_eq!(world.segment(&flow, false, ACK).reason, Reason::Midflow, "{direction:?}");
            }
            for from_opener in [true, false] {
                assert_eq!(world.segment(&flow, from_opener, ACK).reason, Reason::Established);
            }
            assert!(first(&world, &never).is_drop(), "nobody would have been allowed to open it");
            assert!(world.segment(&never, from_opener, SYN).reason.is_drop());
            assert!(world.segment(&flow, false, SYN).reason.is_drop(), "what opens is not running");
            world.memory.tick += 20;
            world.memory.forget();
            assert!(world.segment(&flow, false, ACK).reason.is_drop(), "the time is over");
        }
    }
}

/// An answered connection that nobody here saw, as it is taken over from nf_conntrack.
fn take_over(world: &World, flow: &Flow) {
    let (flags, ports) = match flow.direction {
        Direction::Egress => (CONN_OPENED_BY_POD, (CLIENT_PORT, flow.port)),
        Direction::Ingress => (0, (flow.port, CLIENT_PORT)),
    };
    let conn = Conn {
        seen: world.memory.tick,
        state: CONN_REPLIED | CONN_ESTABLISHED,
        flags: flags | CONN_MIDFLOW,
        ..Conn::default()
    };
    let (ports, protocol) = ((Be16::new(ports.0), Be16::new(ports.1)), flow.protocol.0);
    match (flow.local, flow.remote) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => {
            let key = V4::flow_key(POD, (local.into(), remote.into()), ports, protocol);
            world.memory.four.put(key, conn, true);
        }
        (IpAddr::V6(local), IpAddr::V6(remote)) => {
            let key = V6::flow_key(POD, (local.into(), remote.into()), ports, protocol);
            world.memory.six.put(key, conn, true);
        }
        _ => unreachable!("a flow has one family"),
    }
}

#[test]
fn a_connection_from_before_the_programs_is_judged_at_its_next_packet() {
    for mut world in World::both() {
        for (direction, protocol, port) in [
            (Direction::Ingress, Protocol::TCP, 80),
            (Direction::Ingress, Protocol::UDP, 53),
            (Direction::Egress, Protocol::TCP, 443),
            (Direction::Egress, Protocol::UDP, 53),
        ] {
            let next = |world: &World, flow: &Flow, from_opener: bool| match (protocol, from_opener) {
                (Protocol::TCP, _) => world.segment(flow, from_opener, ACK),
                (_, true) => world.open(flow),
                (_, false) => world.answer(flow),
            };
            let allowed = world.friend(direction, protocol, port);
            assert!(next(&world, &allowed, false).reason.is_drop(), "an answer to nothing");
            take_over(&world, &allowed);
            for from_opener in [false, true, false] {
                assert_eq!(next(&world, &allowed, from_opener).reason, Reason::Established);
            }
            let conn = [
                world.memory.four.flows().iter().map(|(_, conn)| *conn).collect::<Vec<_>>(),
                world.memory.six.flows().iter().map(|(_, conn)| *conn).collect(),
            ]
            .concat()[0];
            assert_eq!((conn.revision, conn.mac, conn.rule), (4, pod_mac(), RULES[direction as usize]));
            world.memory.forget();

            let denied = world.stranger(direction, protocol, port);
            for from_opener in [false, true] {
                take_over(&world, &denied);
                assert_eq!(next(&world, &denied, from_opener).reason, Reason::Revoked);
                assert_eq!(world.connections(), (0, 0));
                assert!(next(&world, &denied, from_opener).reason.is_drop(), "and stays cut");
            }
        }
    }
}

#[test]
fn a_segment_without_a_connection_leaves_nothing_that_admits_the_other_direction() {
    for direction in Direction::ALL {
        for mut world in World::both() {
            // Allowed in its own direction; the other side may not open it.
            let flow = world.allowed(direction);
            assert!(world.segment(&flow, true, ACK).passes());
            assert_eq!(world.connections(), (0, 0));
            for flags in [SYN, RST, FIN, ACK] {
                assert!(world.segment(&flow, false, flags).reason.is_drop());
            }
            world.allow_all();
            assert!(world.segment(&flow, true, ACK).passes());
            assert!(world.segment(&flow, false, ACK).passes(), "where either side may open it");
        }
    }
}
