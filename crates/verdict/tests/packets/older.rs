//! Connections that are older than what is known of their destination: a Service that has gone, or come; a translation
//! that nobody tells of; an answer that nobody gave.

use std::net::IpAddr;

use cellwall_abi::{CLASS_NODE, ClassPair, Live, PolicyEntry, Reason};
use cellwall_policy::flow::{Direction, Flow, Protocol};
use cellwall_testkit::frame::{Frame, answer, opening, segment};
use cellwall_testkit::memory::MARK;
use cellwall_verdict::arrive;
use cellwall_verdict::conn::{IDLE_TICKS, QUIET_TICKS};
use cellwall_verdict::header::ACK;

use crate::headers::error_about;
use crate::world::{IMAGES, POD, SLOT, World};

const OUT: Direction = Direction::Egress;
const STAMPED: (u32, u32) = (MARK, SLOT + 1);

/// Sends a frame out of the pod: the verdict, and whether somebody has still to judge where it leads.
fn leave(world: &World, bytes: &[u8]) -> (Reason, bool) {
    let mut frame = Frame::new(bytes, POD);
    frame.ingress_ifindex = POD;
    let verdict = world.judge(&frame, OUT);
    (verdict.reason, frame.stamp.get().0 == MARK)
}

/// A later hook sees a packet of the pod as it was sent.
fn arrives_unchanged(world: &World, bytes: &[u8]) {
    let mut frame = Frame::new(bytes, 31);
    frame.ingress_ifindex = POD;
    frame.stamp.set(STAMPED);
    assert_eq!(arrive(&frame, &world.memory).verdict.reason, Reason::Established);
}

/// What the pod may do to this address from the next revision on: nothing else of it changes.
fn friend_may(world: &mut World, may: PolicyEntry) {
    world.change(|tables| {
        tables.live = Live(5);
        for (key, entry) in &mut tables.policy {
            if key.image == IMAGES[1] {
                *entry = may;
            }
        }
    });
    world.record(|record| record.since = 5);
}

/// The friend is a node.
fn friend_is_a_node(world: &mut World) {
    world.change(|tables| {
        let class = tables.classes[&5].class(0) | CLASS_NODE;
        tables.classes.insert(5, ClassPair::new([class, class]));
        tables.policy = tables
            .policy
            .iter()
            .map(|(key, entry)| (cellwall_abi::PolicyKey { class: key.class | CLASS_NODE, ..*key }, *entry))
            .collect();
    });
}

#[test]
fn a_connection_to_this_node_ends_with_its_policy_although_its_service_is_gone() {
    for is_listed in [true, false] {
        for mut world in World::both() {
            let asked = world.virtual_address();
            let backend: (IpAddr, u16) = (world.addresses[1], 443);
            let backends = [backend];
            world.translate(&asked, 0, &backends[..usize::from(is_listed)]);
            world.connect(&asked);
            world.memory.services.clear();
            assert_eq!(
                leave(&world, &segment(&asked, true, ACK)),
                (Reason::Established, true),
                "that alone cuts nothing"
            );
            friend_may(&mut world, PolicyEntry::only_rest(cellwall_abi::ACTION_DENY, 0));
            let (reason, is_stamped) = leave(&world, &segment(&asked, true, ACK));
            if is_listed {
                assert_eq!(reason, Reason::Revoked, "nobody judges it where it leads");
            } else {
                assert_eq!((reason, is_stamped), (Reason::Established, true), "a later hook judges it");
            }
        }
    }
}

#[test]
fn a_pod_that_nothing_isolates_keeps_such_a_connection() {
    for mut world in World::both() {
        let asked = world.virtual_address();
        world.open_up();
        world.translate(&asked, 0, &[(world.addresses[1], 443)]);
        world.connect(&asked);
        world.memory.services.clear();
        world.change(|tables| tables.live = Live(5));
        world.record(|record| record.since = 5);
        assert_eq!(leave(&world, &segment(&asked, true, ACK)).0, Reason::Established);
    }
}

/// A connection to a process of a node, from before somebody put a Service there, goes on to where it went.
#[test]
fn a_connection_from_before_its_service_is_cut_where_policy_denies_its_address() {
    for is_denied in [true, false] {
        for mut world in World::both() {
            friend_is_a_node(&mut world);
            let asked = world.friend(OUT, Protocol::TCP, 443);
            world.connect(&asked);
            let backend = world.addresses[2];
            world.translate(&asked, 0, &[(backend, 443)]);
            // The Service leads to the stranger, to whom the pod may; twice, since being judged once must not be forgotten.
            let all = PolicyEntry { some: 15, ..PolicyEntry::only_rest(cellwall_abi::ACTION_ALLOW, 1) };
            world.record(|record| record.default[1] = all);
            friend_may(&mut world, all);
            assert_eq!(leave(&world, &segment(&asked, true, ACK)), (Reason::Established, true));
            let none = PolicyEntry::only_rest(cellwall_abi::ACTION_DENY, 0);
            friend_may(&mut world, if is_denied { none } else { all });
            world.change(|tables| tables.live = Live(7));
            world.record(|record| record.since = 7);
            let reason = leave(&world, &segment(&asked, true, ACK)).0;
            assert_eq!(reason, if is_denied { Reason::Revoked } else { Reason::Established });
        }
    }
}

/// nf_conntrack forgets a flow of datagrams after 30 s, and then translates what comes next.
#[test]
fn what_was_quiet_is_judged_where_it_leads_again() {
    for mut world in World::both() {
        for protocol in [Protocol::UDP, Protocol::TCP] {
            let asked = world.friend(OUT, protocol, if protocol == Protocol::UDP { 53 } else { 443 });
            let data = if protocol == Protocol::UDP { opening(&asked) } else { segment(&asked, true, ACK) };
            let back = if protocol == Protocol::UDP { answer(&asked) } else { segment(&asked, false, ACK) };
            for is_answered in [false, true] {
                assert_eq!(leave(&world, &opening(&asked)), (Reason::Allowed, true));
                if is_answered {
                    assert_eq!(world.answer(&asked).reason, Reason::Established);
                    leave(&world, &data);
                } else if protocol == Protocol::TCP {
                    continue;
                }
                arrives_unchanged(&world, &data);
                assert_eq!(leave(&world, &data), (Reason::Established, false), "nothing translates it");
                world.memory.tick += QUIET_TICKS;
                assert_eq!(leave(&world, &data), (Reason::Established, false), "nothing has forgotten it");
                world.memory.tick += QUIET_TICKS + 1;
                assert_eq!(leave(&world, &data), (Reason::Established, true), "{protocol:?}, {is_answered}");
                assert_eq!(leave(&world, &data), (Reason::Established, true), "until it is seen again");
                arrives_unchanged(&world, &data);
                assert_eq!(leave(&world, &data), (Reason::Established, false));
                // Answers ride on the entry for as long as they did.
                world.memory.tick += if is_answered { IDLE_TICKS } else { QUIET_TICKS + 1 };
                assert_eq!(world.packet(&back, Direction::Ingress).reason, Reason::Established);
                world.memory.forget();
            }
        }
    }
}

/// Nobody has answered from the address of the Service: an error about an answer would go where nobody judges it.
#[test]
fn an_error_about_an_answer_that_nobody_gave_leaves_for_no_service() {
    for mut world in World::both() {
        let asked = world.stranger(OUT, Protocol::UDP, 53);
        assert!(leave(&world, &opening(&asked)).0.is_drop(), "who has this address must not be asked");
        world.translate(&asked, 0, &[]);
        assert_eq!(leave(&world, &opening(&asked)).0, Reason::Deferred);
        let error = about_an_answer(&world, &asked);
        assert_eq!(leave(&world, &error).0, Reason::Unrelated);
        assert_eq!(world.answer(&asked).reason, Reason::Established);
        assert_eq!(leave(&world, &error).0, Reason::Related, "now there is an answer");
        // What comes back about the question is told in any case.
        world.memory.forget();
        leave(&world, &opening(&asked));
        let told = world.packet(&error_about(&asked, Direction::Ingress), Direction::Ingress);
        assert_eq!(told.reason, Reason::Related);
    }
}

/// An error out of the pod about what answers this flow.
fn about_an_answer(world: &World, flow: &Flow) -> Vec<u8> {
    let icmp = if world.is_v4() { [3, 3, 0, 0, 0, 0, 0, 0] } else { [1, 4, 0, 0, 0, 0, 0, 0] };
    let payload = [&icmp[..], &answer(flow)[14..]].concat();
    cellwall_testkit::frame::packet(
        OUT,
        (flow.local, flow.remote),
        if world.is_v4() { 1 } else { 58 },
        &payload,
    )
}
