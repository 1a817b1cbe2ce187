//! What one pod may take of the tables that all pods share, and what it is given back.

use cellwall_abi::{Bucket, Reason, Share};
use cellwall_policy::flow::{Direction, Flow, Protocol};
use cellwall_testkit::frame::{answer, opening_from, segment};
use cellwall_verdict::header::ACK;
use cellwall_verdict::process;

use crate::fragments::fragment;
use crate::world::{SLOT, World, frame, other};

/// Not by `judge`: it copies all rows for every packet.
fn send(world: &World, bytes: &[u8], direction: Direction) -> Reason {
    process(&frame(bytes, direction), &world.memory, direction).reason
}

/// The port of the opener, in a frame from it or to it.
fn from_port(world: &World, mut bytes: Vec<u8>, from_opener: bool, port: u32) -> Vec<u8> {
    let at = if world.is_v4() { 34 } else { 54 } + if from_opener { 0 } else { 2 };
    bytes[at..at + 2].copy_from_slice(&u16::try_from(port).expect("a port").to_be_bytes());
    bytes
}

fn opens(world: &World, flow: &Flow, port: u32) -> Reason {
    send(world, &opening_from(flow, u16::try_from(port).expect("a port")), flow.direction)
}

fn answers(world: &World, flow: &Flow, port: u32) -> Reason {
    send(world, &from_port(world, answer(flow), false, port), other(flow.direction))
}

/// A DNS server that may ask nobody itself answers whoever may ask it, each from a port of its own.
#[test]
fn every_question_that_is_allowed_is_answered() {
    for mut world in World::both() {
        for direction in Direction::ALL {
            let flow = world.friend(direction, Protocol::UDP, 54);
            assert_eq!(answers(&world, &flow, 7), Reason::DefaultDeny, "nobody asked");
            let flow = Flow { port: 53, ..flow };
            for port in 1_000..1_000 + 2 * Bucket::UNANSWERED {
                assert_eq!(opens(&world, &flow, port), Reason::Allowed);
                assert_eq!(answers(&world, &flow, port), Reason::Established, "question {port}");
            }
            world.memory.forget();
        }
    }
}

/// Answers come from whomever the pod has agreed with: what it adds with their help has an end, too.
#[test]
fn a_flood_that_is_answered_is_bounded() {
    for mut world in World::both() {
        let flow = world.friend(Direction::Egress, Protocol::UDP, 53);
        let flood = |world: &World, first: u32| {
            for port in first..first + Bucket::ANSWERS + 2 * Bucket::UNANSWERED {
                assert_eq!(opens(world, &flow, port), Reason::Allowed);
                answers(world, &flow, port);
            }
            world.connections().1
        };
        let most = usize::try_from(Bucket::ANSWERS + Bucket::UNANSWERED).expect("a number of rows");
        assert_eq!(flood(&world, 1_000), most);
        // A quarter of the table, with both directions: what others have there stays for four ticks.
        let rows = cellwall_abi::tables::PENDING4.capacity;
        assert_eq!(4 * (Bucket::ANSWERS + 2 * Bucket::UNANSWERED), rows);
        world.memory.tick += 1;
        assert_eq!(flood(&world, 30_000), 2 * most, "and more in the next tick");
    }
}

/// A connection that has left for FLOWS takes nothing where floods are.
#[test]
fn what_is_established_counts_no_more() {
    for world in World::both() {
        let flow = world.allowed(Direction::Ingress);
        for port in 1..=Bucket::ANSWERS + 2 * Bucket::UNANSWERED {
            assert_eq!(opens(&world, &flow, port), Reason::Allowed);
            assert_eq!(answers(&world, &flow, port), Reason::Established, "connection {port}");
            let third = from_port(&world, segment(&flow, true, ACK), true, port);
            assert_eq!(send(&world, &third, flow.direction), Reason::Established);
        }
        assert_eq!(world.connections().1, 0);
    }
}

/// What one client may do would take the connections of all others.
#[test]
fn a_flood_in_one_direction_takes_nothing_from_the_other() {
    for mut world in World::both() {
        for direction in Direction::ALL {
            let flood = world.allowed(direction);
            for port in 1..=Bucket::UNANSWERED {
                assert_eq!(opens(&world, &flood, port), Reason::Allowed);
            }
            let more = Bucket::UNANSWERED + 1;
            assert_eq!(opens(&world, &flood, more), Reason::Allowed);
            assert!(answers(&world, &flood, more) != Reason::Established, "the flood itself is bounded");
            let own = world.allowed(other(direction));
            assert_eq!(opens(&world, &own, 1), Reason::Allowed);
            assert_eq!(answers(&world, &own, 1), Reason::Established);
            world.memory.forget();
        }
    }
}

/// Without room in FLOWS an established connection stays in PENDING, as long as it would there.
#[test]
fn without_room_an_established_connection_lives_as_long() {
    for direction in Direction::ALL {
        for mut world in World::both() {
            world.memory.four.full.set(true);
            world.memory.six.full.set(true);
            let flow = world.allowed(direction);
            world.connect(&flow);
            assert_eq!(world.connections(), (0, 1));
            let unanswered = Flow { port: 85, ..world.allowed(Direction::Ingress) };
            world.open(&unanswered);
            world.memory.tick += 5_000;
            assert_eq!(world.segment(&flow, false, ACK).reason, Reason::Established, "{direction:?}");
            assert!(world.answer(&unanswered).reason.is_drop(), "one that was not answered is over");
            world.memory.four.full.set(false);
            world.memory.six.full.set(false);
            assert_eq!(world.segment(&flow, true, ACK).reason, Reason::Established);
            assert_eq!(world.connections(), (1, 0), "there is room again");
        }
    }
}

/// Whoever has no room left in FLOWS loses nothing by it, and takes nothing from others.
#[test]
fn a_pod_has_the_room_that_it_was_given() {
    for world in World::both() {
        // It holds 40 rows, 120 are free.
        let room = u32::MAX - Share::taken_of(40, 120);
        assert_eq!(room, 10);
        world.memory.four.shares.borrow_mut().insert(SLOT, room);
        world.memory.six.shares.borrow_mut().insert(SLOT, room);
        for port in 80..=90 {
            world.connect(&Flow { port, ..world.allowed(Direction::Ingress) });
        }
        assert_eq!(world.connections(), (10, 1));
        world.memory.four.shares.borrow_mut().insert(SLOT, 1);
        world.memory.six.shares.borrow_mut().insert(SLOT, 1);
        let last = Flow { port: 90, ..world.allowed(Direction::Ingress) };
        assert_eq!(world.segment(&last, true, ACK).reason, Reason::Established);
        assert_eq!(world.connections(), (11, 0), "there is room again");
    }
    // One pod fills half of a table, two fill two thirds, and what is too much is not taken away.
    for pods in 1..=7 {
        let mut held = 0;
        for _ in 0..200 {
            held += u32::MAX - Share::taken_of(held, 1200 - pods * held);
        }
        let most = 1200 / (pods + 1);
        assert!(held <= most && held + 8 >= most, "{pods} pods hold {held} each");
    }
    assert_eq!(Share::taken_of(900, 300), u32::MAX);
}

/// Whoever may send nothing fills no room of what a pod may be sent.
#[test]
fn a_flood_of_denied_first_fragments_takes_nothing_from_allowed_ones() {
    for world in World::both() {
        let firsts = || world.memory.four.first_fragments() + world.memory.six.first_fragments();
        let most = usize::try_from(Bucket::DENIED_FRAGMENTS).expect("a number of rows");
        for (before, direction) in Direction::ALL.into_iter().enumerate() {
            let denied = world.stranger(direction, Protocol::UDP, 53);
            for id in 0..3000 {
                assert_eq!(
                    world.packet(&fragment(&denied, id, 0, true), direction).reason,
                    Reason::DefaultDeny
                );
            }
            assert_eq!(firsts(), before * (most + 1) + most);
            let allowed = world.friend(direction, Protocol::UDP, 53);
            assert_eq!(world.packet(&fragment(&allowed, 1, 0, true), direction).reason, Reason::Allowed);
            assert_eq!(firsts(), (before + 1) * (most + 1));
        }
    }
}

/// Nor does one pod push out all others' first fragments at once, in whatever direction.
#[test]
fn a_flood_of_first_fragments_is_bounded_in_each_direction() {
    for mut world in World::both() {
        let most = usize::try_from(Bucket::FRAGMENTS).expect("a number of rows");
        let firsts = |world: &World| world.memory.four.first_fragments() + world.memory.six.first_fragments();
        for (before, direction) in Direction::ALL.into_iter().enumerate() {
            let flow = world.friend(direction, Protocol::UDP, 53);
            for id in 0..u16::try_from(most).expect("an id") + 100 {
                assert_eq!(
                    send(&world, &fragment(&flow, id, 0, true), direction),
                    if id == 0 { Reason::Allowed } else { Reason::Established }
                );
            }
            assert_eq!(firsts(&world), (before + 1) * most);
        }
        world.memory.tick += 1;
        let flow = world.friend(Direction::Egress, Protocol::UDP, 53);
        send(&world, &fragment(&flow, 60_000, 0, true), Direction::Egress);
        assert_eq!(firsts(&world), 2 * most + 1, "there is room in the next tick");
    }
}
