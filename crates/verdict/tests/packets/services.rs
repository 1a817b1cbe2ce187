//! A Service is a reason to wait: two hooks in a row, and what translates between them.

use std::net::IpAddr;

use cellwall_abi::{
    Be16, ClassPair, ENDPOINT_AUDIT, ENDPOINT_IDENTIFIED, EndpointRecord, Family, Live, Reason,
    SERVICE_TOO_MANY, SERVICE_TRANSLATED, STAMP_DEFERRED, STAMP_SLOTS, ServiceBackend, ServiceRecord, V4,
};
use cellwall_policy::flow::{Direction, Flow, Protocol};
use cellwall_testkit::frame::{Frame, answer, opening, segment};
use cellwall_testkit::memory::MARK;
use cellwall_verdict::conn::CLOSING_TICKS;
use cellwall_verdict::header::{ACK, RST, SYN};
use cellwall_verdict::{Verdict, arrive};

use crate::fragments::fragment;
use crate::scans::{NEIGHBOUR_SLOT, neighbour};
use crate::world::{FAMILIES, POD, SLOT, World};

/// An interface of the node that is no pod's.
pub(crate) const BRIDGE: u32 = 30;
/// Both ways in which a pod's packet reaches the next hook: routed from its own interface, or from a bridge.
const WAYS: [u32; 2] = [POD, BRIDGE];
const OUT: Direction = Direction::Egress;
type Backends<'a> = &'a [(IpAddr, u16)];

/// A packet without a stamp.
const NONE: (u32, u32) = (0, 0);
pub(crate) const STAMPED: (u32, u32) = (MARK, SLOT + 1);
const DEFERRED: (u32, u32) = (MARK, STAMP_DEFERRED | (SLOT + 1));

impl World {
    /// This node translates the address of the stranger, at these ports.
    pub(crate) fn translate(&mut self, flow: &Flow, flags: u32, backends: &[(IpAddr, u16)]) {
        let mut record = ServiceRecord { flags: SERVICE_TRANSLATED | flags, ..ServiceRecord::default() };
        for (row, (address, port)) in record.backends.iter_mut().zip(backends) {
            let address = match address {
                IpAddr::V4(v4) => V4::widen((*v4).into()),
                IpAddr::V6(v6) => (*v6).into(),
            };
            *row = ServiceBackend { address, port: Be16::new(*port), pad: [0; 2] };
        }
        record.count = u32::try_from(backends.len()).expect("a few");
        self.memory.services.insert((flow.remote, flow.port, flow.protocol.0), [record; 2]);
    }

    /// The Service that every test asks: at an address that no policy allows.
    pub(crate) fn virtual_address(&self) -> Flow {
        self.stranger(OUT, Protocol::TCP, 443)
    }

    /// Sends a frame out of the pod: the verdict, and the stamp that it leaves with.
    fn leave(&self, bytes: &[u8]) -> (Reason, (u32, u32)) {
        let mut frame = Frame::new(bytes, POD);
        frame.ingress_ifindex = POD;
        let verdict = self.judge(&frame, OUT);
        (verdict.reason, frame.stamp.get())
    }

    /// A frame at the next hook, received by an interface: the verdict, and the stamp that it leaves with.
    pub(crate) fn next_hook(
        &self,
        bytes: &[u8],
        stamp: (u32, u32),
        received: u32,
    ) -> (Verdict, u32, (u32, u32)) {
        let mut frame = Frame::new(bytes, BRIDGE + 1);
        frame.ingress_ifindex = received;
        frame.stamp.set(stamp);
        let arrival = arrive(&frame, &self.memory);
        (arrival.verdict, arrival.ifindex, frame.stamp.get())
    }

    /// What the next hook says of the first packet of a flow that was translated to this.
    fn behind(&self, flow: &Flow, received: u32) -> Reason {
        let (verdict, ifindex, stamp) = self.next_hook(&opening(flow), STAMPED, received);
        assert_eq!(stamp, if verdict.passes() { NONE } else { STAMPED }, "{verdict:?}");
        assert_eq!(ifindex, POD, "the pod is named: {verdict:?}");
        verdict.reason
    }

    fn deny_the_friend(&mut self) {
        self.change(|tables| {
            tables.live = Live(5);
            tables.classes.insert(5, ClassPair::new([0, 0]));
        });
        self.record(|record| record.since = 5);
    }
}

#[test]
fn a_service_is_judged_on_the_backend_that_was_chosen() {
    for mut world in World::both() {
        let asked = world.virtual_address();
        assert_eq!(world.leave(&opening(&asked)), (Reason::DefaultDeny, NONE), "an address like any other");
        world.translate(&asked, 0, &[]);
        for way in WAYS {
            world.memory.forget();
            assert_eq!(world.leave(&opening(&asked)), (Reason::Deferred, DEFERRED));
            let allowed = world.friend(OUT, Protocol::TCP, 443);
            assert_eq!(world.behind(&allowed, way), Reason::Allowed);
            assert_eq!(world.behind(&allowed, way), Reason::Established, "remembered");
            let wrong_port = world.friend(OUT, Protocol::TCP, 444);
            assert_eq!(world.behind(&wrong_port, way), Reason::DefaultDeny);
            let wrong_address = world.stranger(OUT, Protocol::TCP, 444);
            assert_eq!(world.behind(&wrong_address, way), Reason::DefaultDeny);
            // The source was masqueraded: the destination is judged.
            let from_node = |flow: Flow| Flow { local: other_address(&world), ..flow };
            assert_eq!(world.behind(&from_node(allowed), way), Reason::Established, "one row for a backend");
            assert_eq!(world.behind(&from_node(wrong_port), way), Reason::DefaultDeny);
        }
        for protocol in [Protocol::UDP, Protocol::SCTP] {
            let other = Flow { protocol, ..asked };
            assert_eq!(world.leave(&opening(&other)), (Reason::DefaultDeny, NONE), "another protocol");
        }
        let other = Flow { port: 444, ..asked };
        assert_eq!(world.leave(&opening(&other)), (Reason::DefaultDeny, NONE), "another port");
    }
}

/// An address of the node.
fn other_address(world: &World) -> IpAddr {
    if world.is_v4() { "10.0.0.1" } else { "fd00::1" }.parse().expect("an address")
}

#[test]
fn a_deferred_connection_is_stamped_to_its_end_and_answered_as_any_other() {
    for mut world in World::both() {
        let asked = world.virtual_address();
        world.translate(&asked, 0, &[]);
        assert_eq!(world.leave(&opening(&asked)), (Reason::Deferred, DEFERRED));
        assert_eq!(world.packet(&answer(&asked), Direction::Ingress).reason, Reason::Established);
        for _ in 0..3 {
            let data = segment(&asked, true, ACK);
            assert_eq!(world.leave(&data), (Reason::Established, DEFERRED));
            assert_eq!(
                world.packet(&segment(&asked, false, ACK), Direction::Ingress).reason,
                Reason::Established
            );
        }
        assert_eq!(world.connections(), (1, 0), "answered");
        assert_eq!(world.leave(&segment(&asked, true, SYN)), (Reason::Deferred, DEFERRED), "and once more");
    }
}

#[test]
fn what_no_table_lists_is_judged_where_it_leads_until_it_is_seen_unchanged() {
    for world in World::both() {
        let asked = world.friend(OUT, Protocol::TCP, 443);
        assert_eq!(world.leave(&opening(&asked)), (Reason::Allowed, STAMPED));
        for way in WAYS {
            assert_eq!(world.behind(&world.stranger(OUT, Protocol::TCP, 443), way), Reason::DefaultDeny);
            assert_eq!(world.behind(&world.friend(OUT, Protocol::TCP, 80), way), Reason::DefaultDeny);
        }
        // An answer does not end it: nothing says that it came from where the packets went.
        assert_eq!(world.packet(&answer(&asked), Direction::Ingress).reason, Reason::Established);
        let data = segment(&asked, true, ACK);
        assert_eq!(world.leave(&data), (Reason::Established, STAMPED));
        assert_eq!(world.leave(&data), (Reason::Established, STAMPED));
        assert_eq!(world.next_hook(&data, STAMPED, POD).0.reason, Reason::Established, "its own tuple");
        assert_eq!(world.leave(&data), (Reason::Established, NONE), "nothing translates it");
        assert_eq!(world.connections(), (1, 0), "and no second entry was made for it");
    }
}

#[test]
fn a_tuple_that_was_seen_unchanged_is_judged_again_with_its_policy() {
    for mut world in World::both() {
        let asked = world.friend(OUT, Protocol::TCP, 443);
        world.connect(&asked);
        world.deny_the_friend();
        // Its own next packet would be revoked; this one was sent to a Service and translated to the same tuple.
        assert_eq!(world.behind(&asked, POD), Reason::DefaultDeny);
    }
}

#[test]
fn a_tuple_that_was_seen_unchanged_is_judged_again_when_its_connection_has_ended() {
    for mut world in World::both() {
        let asked = world.friend(OUT, Protocol::TCP, 443);
        world.connect(&asked);
        let rest = world.next_hook(&segment(&asked, true, RST), STAMPED, POD).0;
        assert_eq!(rest.reason, Reason::Established);
        world.segment(&asked, true, RST);
        let say = |world: &World| world.next_hook(&opening(&asked), STAMPED, BRIDGE).0.reason;
        assert_eq!(say(&world), Reason::Established, "until it is forgotten");
        world.memory.tick += CLOSING_TICKS + 1;
        assert_eq!(say(&world), Reason::Allowed, "policy is asked");
        assert_eq!(say(&world), Reason::Established, "and what it said is remembered");
    }
}

/// The friend may come in from a port that the pod may not reach.
#[test]
fn who_came_in_is_no_destination() {
    for world in World::both() {
        let entered = world.friend(Direction::Ingress, Protocol::TCP, 80);
        world.connect(&entered);
        let data = segment(&entered, false, ACK);
        assert_eq!(world.leave(&data), (Reason::Established, NONE), "an answer follows its connection");
        // Sent to a Service, and translated to where the friend came from.
        assert_eq!(world.next_hook(&data, STAMPED, BRIDGE).0.reason, Reason::DefaultDeny);
    }
}

#[test]
fn a_deferred_entry_says_nothing_about_its_own_tuple() {
    for mut world in World::both() {
        let asked = world.virtual_address();
        world.translate(&asked, 0, &[]);
        world.leave(&opening(&asked));
        // Nobody translates it after all.
        assert_eq!(world.behind(&asked, POD), Reason::DefaultDeny);
    }
}

#[test]
fn every_backend_on_this_node_must_be_allowed() {
    for mut world in World::both() {
        let asked = world.virtual_address();
        let [_, friend, stranger] = world.addresses;
        let (allowed, wrong_port, denied) = ((friend, 443), (friend, 80), (stranger, 443));
        let cases: [(Backends<'_>, u32, Reason); 7] = [
            (&[allowed], 0, Reason::Deferred),
            (&[allowed, allowed, allowed, allowed], 0, Reason::Deferred),
            (&[denied], 0, Reason::DefaultDeny),
            (&[allowed, denied], 0, Reason::DefaultDeny),
            (&[allowed, allowed, allowed, denied], 0, Reason::DefaultDeny),
            (&[allowed, wrong_port], 0, Reason::DefaultDeny),
            (&[allowed], SERVICE_TOO_MANY, Reason::DefaultDeny),
        ];
        for (backends, flags, reason) in cases {
            world.memory.forget();
            world.translate(&asked, flags, backends);
            assert_eq!(world.leave(&opening(&asked)).0, reason, "{backends:?} {flags}");
        }
        world.record(|record| record.image[1] = 0);
        assert_eq!(world.leave(&opening(&asked)).0, Reason::NotIsolated);
    }
}

#[test]
fn a_change_of_policy_is_no_news_to_the_source_of_a_deferred_connection() {
    for mut world in World::both() {
        let (asked, backend) = (world.virtual_address(), world.friend(OUT, Protocol::TCP, 443));
        world.translate(&asked, 0, &[]);
        world.connect(&asked);
        assert_eq!(world.behind(&backend, POD), Reason::Allowed);
        world.deny_the_friend();
        for is_known in [true, false] {
            if !is_known {
                world.memory.services.clear();
                world.change(|tables| tables.live = Live(6));
                world.record(|record| record.since = 6);
            }
            let data = segment(&asked, true, ACK);
            assert_eq!(world.leave(&data), (Reason::Established, DEFERRED), "Service known: {is_known}");
            assert_eq!(world.behind(&backend, POD), Reason::DefaultDeny, "where it leads, it is cut");
        }
    }
}

#[test]
fn backends_on_this_node_are_asked_about_again_when_policy_changes() {
    for mut world in World::both() {
        let asked = world.virtual_address();
        let [_, friend, stranger] = world.addresses;
        world.translate(&asked, 0, &[(friend, 443)]);
        world.connect(&asked);
        let data = segment(&asked, true, ACK);
        // Other backends: who is connected stays so.
        world.translate(&asked, 0, &[(friend, 443), (stranger, 443)]);
        world.change(|tables| tables.live = Live(5));
        assert_eq!(world.leave(&data).0, Reason::Established);
        world.translate(&asked, 0, &[(friend, 443)]);
        world.change(|tables| tables.live = Live(6));
        world.record(|record| record.since = 6);
        assert_eq!(world.leave(&data).0, Reason::Established, "still allowed");
        world.change(|tables| {
            tables.live = Live(7);
            tables.classes.insert(5, ClassPair::new([0, 0]));
        });
        world.record(|record| record.since = 7);
        assert_eq!(world.leave(&data).0, Reason::Revoked);
        assert_eq!(world.connections(), (0, 0));
    }
}

#[test]
fn a_connection_from_before_its_service_was_known_is_deferred_at_its_next_judgement() {
    for mut world in World::both() {
        let asked = world.friend(OUT, Protocol::TCP, 443);
        world.connect(&asked);
        assert_eq!(world.behind(&asked, POD), Reason::Established);
        assert_eq!(world.leave(&segment(&asked, true, ACK)), (Reason::Established, NONE));
        world.translate(&asked, 0, &[]);
        world.deny_the_friend();
        assert_eq!(world.leave(&segment(&asked, true, ACK)), (Reason::Established, DEFERRED));
        assert_eq!(world.behind(&asked, POD), Reason::DefaultDeny);
    }
}

/// Its first packet went where the address leads as such, and is sent once more.
#[test]
fn a_connection_that_is_not_answered_is_deferred_once_its_service_is_known() {
    for mut world in World::both() {
        let asked = world.friend(OUT, Protocol::TCP, 443);
        assert_eq!(world.leave(&opening(&asked)), (Reason::Allowed, STAMPED));
        world.translate(&asked, 0, &[]);
        assert_eq!(world.leave(&opening(&asked)), (Reason::Deferred, DEFERRED));
        assert_eq!(world.packet(&answer(&asked), Direction::Ingress).reason, Reason::Established);
        assert_eq!(world.leave(&segment(&asked, true, ACK)), (Reason::Established, DEFERRED));
    }
}

/// Whichever packet comes first after a change of policy, the Service is that of the opener's destination.
#[test]
fn an_answer_is_judged_by_the_service_that_was_asked() {
    let worlds =
        [true, false].into_iter().flat_map(|is_allowed| World::both().map(|world| (world, is_allowed)));
    for (mut world, is_allowed) in worlds {
        let (asked, backend) = (world.virtual_address(), world.addresses[1]);
        world.translate(&asked, 0, &[(backend, 443)]);
        world.connect(&asked);
        if is_allowed {
            world.change(|tables| tables.live = Live(6));
            world.record(|record| record.since = 6);
        } else {
            world.deny_the_friend();
        }
        let answered = world.packet(&segment(&asked, false, ACK), Direction::Ingress).reason;
        assert_eq!(answered, if is_allowed { Reason::Established } else { Reason::Revoked });
    }
}

/// Only IP is stamped: whatever this was, nothing says where it leads.
#[test]
fn a_stamp_on_a_frame_of_another_type_is_dropped() {
    let world = World::new(FAMILIES[0]);
    let arp = cellwall_testkit::frame::ethernet(OUT, 0x0806, &[0; 28]);
    for way in WAYS {
        assert_eq!(world.next_hook(&arp, STAMPED, way).0.reason, Reason::EtherType);
        assert!(world.next_hook(&arp, NONE, way).0.passes(), "without one it is nobody's");
    }
}

#[test]
fn a_stamp_that_names_nobody_is_dropped() {
    for mut world in World::both() {
        let backend = opening(&world.friend(OUT, Protocol::TCP, 443));
        for tc_index in [0, SLOT, SLOT + 2, 0xffff] {
            let (verdict, ifindex, _) = world.next_hook(&backend, (MARK, tc_index), BRIDGE);
            assert_eq!((verdict.reason, ifindex), (Reason::StampUnknown, 0), "{tc_index}");
        }
        // The interface that received it says enough.
        assert!(world.next_hook(&backend, (MARK, 0), POD).0.passes());
        // Of a pod that is not identified yet nothing is known to judge it by.
        world.record(|record| record.flags &= !ENDPOINT_IDENTIFIED);
        for way in WAYS {
            assert_eq!(world.next_hook(&backend, STAMPED, way).0.reason, Reason::StampUnknown);
        }
    }
}

/// Whoever is behind the interface that received a packet sent it, whatever is written on it.
#[test]
fn the_interface_names_the_pod_before_the_stamp_does() {
    for mut world in World::both() {
        let friend = neighbour(&mut world);
        let backend = opening(&world.friend(OUT, Protocol::TCP, 443));
        let of_neighbour = (MARK, NEIGHBOUR_SLOT + 1);
        for (received, expected) in [(POD, POD), (friend, friend), (BRIDGE, friend)] {
            let (_, ifindex, _) = world.next_hook(&backend, of_neighbour, received);
            assert_eq!(ifindex, expected, "received by {received}");
        }
    }
}

/// A slot with no room in `tc_index` names nobody, least of all the pod of another slot.
#[test]
fn a_slot_without_room_is_named_by_its_interface_alone() {
    for mut world in World::both() {
        world.change(|tables| {
            tables.endpoints.insert(POD, STAMP_SLOTS);
            for bank in [0, 1] {
                let own = tables.records[&(SLOT, bank)];
                tables.records.insert((STAMP_SLOTS, bank), own);
            }
        });
        let (asked, backend) = (world.virtual_address(), world.friend(OUT, Protocol::TCP, 443));
        assert_eq!(world.leave(&opening(&backend)), (Reason::Allowed, (MARK, 0)));
        world.translate(&asked, 0, &[]);
        assert_eq!(world.leave(&opening(&asked)), (Reason::Deferred, (MARK, STAMP_DEFERRED)));
        let stamp = (MARK, STAMP_DEFERRED);
        assert!(world.next_hook(&opening(&backend), stamp, POD).0.passes());
        assert_eq!(world.next_hook(&opening(&backend), stamp, BRIDGE).0.reason, Reason::StampUnknown);
    }
}

#[test]
fn marks_of_others_are_left_alone_and_what_the_node_sends_is_nobodys() {
    for mut world in World::both() {
        let denied = opening(&world.stranger(OUT, Protocol::TCP, 443));
        for stamp in [(!MARK, SLOT + 1), (0, SLOT + 1), NONE] {
            let (verdict, _, after) = world.next_hook(&denied, stamp, BRIDGE);
            assert!(verdict.passes() && after == stamp, "{stamp:?}");
        }
        assert!(world.next_hook(&denied, STAMPED, 0).0.passes(), "made by the node");
        // Other bits stay where the stamp is put on and taken off.
        let allowed = world.friend(OUT, Protocol::TCP, 443);
        let mut frame = Frame::new(&opening(&allowed), POD);
        frame.ingress_ifindex = POD;
        frame.stamp.set((0x4000, 9));
        assert!(world.judge(&frame, OUT).passes());
        assert_eq!(frame.stamp.get(), (0x4000 | MARK, SLOT + 1));
        let (verdict, _, after) = world.next_hook(&opening(&allowed), frame.stamp.get(), POD);
        assert!(verdict.passes());
        assert_eq!(after, (0x4000, 0));
        world.memory.mark = 0;
        assert!(world.next_hook(&denied, (u32::MAX, 1), BRIDGE).0.passes(), "switched off");
    }
}

#[test]
fn a_pod_puts_no_stamp_on_its_packets_itself() {
    for world in World::both() {
        let known = world.friend(OUT, Protocol::TCP, 443);
        world.connect(&known);
        assert_eq!(world.behind(&known, POD), Reason::Established);
        let packets = [
            segment(&known, true, ACK),
            cellwall_testkit::frame::ethernet(OUT, 0x0806, &[0; 28]),
            opening(&world.stranger(OUT, Protocol::TCP, 443)),
        ];
        for bytes in packets {
            let mut frame = Frame::new(&bytes, POD);
            frame.ingress_ifindex = POD;
            frame.stamp.set((MARK, 77));
            world.judge(&frame, OUT);
            assert_eq!(frame.stamp.get().0, 0);
        }
    }
}

#[test]
fn what_was_chosen_for_a_pod_opens_no_way_back_into_it() {
    for mut world in World::both() {
        let asked = world.virtual_address();
        world.translate(&asked, 0, &[]);
        world.leave(&opening(&asked));
        let backend = world.friend(OUT, Protocol::TCP, 443);
        assert_eq!(world.behind(&backend, POD), Reason::Allowed);
        for bytes in [answer(&backend), segment(&backend, false, ACK), segment(&backend, false, SYN)] {
            assert!(world.packet(&bytes, Direction::Ingress).reason.is_drop(), "from the backend itself");
        }
        assert_eq!(world.packet(&answer(&asked), Direction::Ingress).reason, Reason::Established);
    }
}

#[test]
fn a_pod_that_asks_itself_is_let_in() {
    for mut world in World::both() {
        let asked = world.virtual_address();
        world.translate(&asked, 0, &[]);
        let own = world.addresses[0];
        let sent = world.leave(&opening(&asked));
        assert_eq!(sent, (Reason::Deferred, DEFERRED));
        // Translated to the pod itself, masqueraded, and back by a bridge.
        let into = Flow {
            local: own,
            remote: other_address(&world),
            direction: Direction::Ingress,
            from_own_node: false,
            protocol: Protocol::TCP,
            port: 9999,
        };
        let (verdict, _, stamp) = world.next_hook(&opening(&into), sent.1, BRIDGE);
        assert_eq!((verdict.reason, stamp), (Reason::OwnPod, DEFERRED), "kept for the pod's own hook");
        let enter = |world: &World, bytes: &[u8], stamp| {
            let mut frame = Frame::new(bytes, POD);
            frame.ingress_ifindex = BRIDGE;
            frame.stamp.set(stamp);
            let stamped = arrive(&frame, &world.memory).verdict;
            if stamped.passes() { world.judge(&frame, Direction::Ingress).reason } else { stamped.reason }
        };
        assert_eq!(
            enter(&world, &opening(&into), NONE),
            Reason::DefaultDeny,
            "without it, it is the bridge that asks"
        );
        assert_eq!(enter(&world, &opening(&into), STAMPED), Reason::OwnPod);
        assert_eq!(world.leave(&answer(&into)), (Reason::Established, NONE), "the pod answers");
        assert_eq!(enter(&world, &segment(&into, true, ACK), STAMPED), Reason::Established);
        // Somebody else's stamp is not the pod.
        world.memory.forget();
        assert!(enter(&world, &opening(&into), (MARK, SLOT + 2)).is_drop());
    }
}

/// What one pod may reach says nothing of another behind the same bridge.
#[test]
fn a_destination_is_remembered_of_one_pod() {
    for mut world in World::both() {
        let friend = neighbour(&mut world);
        let backend = opening(&world.friend(OUT, Protocol::TCP, 443));
        assert_eq!(world.next_hook(&backend, STAMPED, BRIDGE).0.reason, Reason::Allowed);
        assert_eq!(world.next_hook(&backend, STAMPED, BRIDGE).0.reason, Reason::Established);
        world.change(|tables| {
            let own = tables.records[&(SLOT, 0)];
            for bank in [0, 1] {
                let closed = EndpointRecord { ifindex: friend, image: [301, 302], ..own };
                tables.records.insert((NEIGHBOUR_SLOT, bank), closed);
            }
        });
        let (verdict, ifindex, _) = world.next_hook(&backend, (MARK, NEIGHBOUR_SLOT + 1), BRIDGE);
        assert_eq!((verdict.reason, ifindex), (Reason::DefaultDeny, friend));
    }
}

#[test]
fn fragments_behind_a_translation_follow_their_first() {
    for mut world in World::both() {
        let (allowed, asked) = (world.friend(OUT, Protocol::UDP, 53), world.stranger(OUT, Protocol::UDP, 53));
        world.translate(&asked, 0, &[]);
        let say = |bytes: &[u8]| world.next_hook(bytes, STAMPED, BRIDGE).0.reason;
        assert_eq!(say(&fragment(&allowed, 1, 0, true)), Reason::Allowed);
        assert_eq!(say(&fragment(&allowed, 1, 10, false)), Reason::FragmentFollows);
        assert_eq!(say(&fragment(&asked, 2, 0, true)), Reason::DefaultDeny);
        assert_eq!(say(&fragment(&asked, 2, 10, false)), Reason::FragmentDenied);
        // What was said at the pod's own hook says nothing there.
        assert_eq!(world.leave(&fragment(&asked, 3, 0, true)).0, Reason::Deferred);
        assert_eq!(world.leave(&fragment(&asked, 3, 10, false)).0, Reason::FragmentFollows);
        assert_eq!(say(&fragment(&asked, 3, 10, false)), Reason::FragmentDenied);
    }
}

#[test]
fn an_audited_pod_is_told_of_and_let_through() {
    for mut world in World::both() {
        world.record(|record| record.flags |= ENDPOINT_AUDIT);
        let denied = opening(&world.stranger(OUT, Protocol::TCP, 443));
        let (verdict, ifindex, stamp) = world.next_hook(&denied, STAMPED, BRIDGE);
        assert_eq!((verdict.reason, verdict.audit, ifindex), (Reason::DefaultDeny, true, POD));
        assert_eq!(stamp, NONE);
        assert_eq!(world.next_hook(&denied, STAMPED, BRIDGE).0.reason, Reason::Established, "told of once");
    }
}

#[test]
fn who_is_not_isolated_is_stamped_for_nobody() {
    for mut world in World::both() {
        let asked = world.virtual_address();
        world.translate(&asked, 0, &[]);
        world.record(|record| record.image = [0; 2]);
        assert_eq!(world.leave(&opening(&asked)), (Reason::NotIsolated, NONE));
        world.connect(&asked);
        let data = segment(&asked, true, ACK);
        assert_eq!(world.leave(&data), (Reason::Established, NONE));
        // The first policy on the pod finds the connection as it is: deferred.
        world.change(|tables| tables.live = Live(5));
        world.record(|record| (record.image, record.since) = ([0, 102], 5));
        assert_eq!(world.leave(&data), (Reason::Established, DEFERRED));
    }
}

#[test]
fn without_a_bit_of_the_mark_an_address_is_an_address() {
    for mut world in World::both() {
        let asked = world.virtual_address();
        world.translate(&asked, 0, &[]);
        world.memory.mark = 0;
        assert_eq!(world.leave(&opening(&asked)), (Reason::DefaultDeny, NONE));
        assert_eq!(world.leave(&opening(&world.friend(OUT, Protocol::TCP, 443))), (Reason::Allowed, NONE));
    }
}

/// Datagrams have nothing that opens: what was seen to arrive where it was sent is deferred once that is a Service, which moves
/// `since` (`plan`).
#[test]
fn datagrams_to_an_address_that_becomes_a_service_are_judged_where_they_lead() {
    for mut world in World::both() {
        let asked = world.friend(OUT, Protocol::UDP, 53);
        assert_eq!(world.leave(&opening(&asked)), (Reason::Allowed, STAMPED));
        let mut frame = Frame::new(&opening(&asked), 31);
        frame.ingress_ifindex = POD;
        frame.stamp.set(STAMPED);
        assert_eq!(arrive(&frame, &world.memory).verdict.reason, Reason::Established, "seen unchanged");
        assert_eq!(world.leave(&opening(&asked)), (Reason::Established, NONE));

        world.translate(&asked, 0, &[]);
        world.change(|tables| tables.live = Live(5));
        world.record(|record| record.since = 5);
        let (reason, (mark, _)) = world.leave(&opening(&asked));
        assert!(!reason.is_drop() && mark == MARK, "somebody has to judge the backend");
    }
}
