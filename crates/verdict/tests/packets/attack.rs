//! What was found by looking for it.

use cellwall_abi::{Bucket, ClassPair, Live, PolicyEntry, Reason, ACTION_ALLOW};
use cellwall_policy::flow::{Direction, Flow, Protocol};
use cellwall_testkit::frame::{CLIENT_PORT, Frame, answer, opening, opening_from, packet, segment};
use cellwall_testkit::memory::MARK;
use cellwall_verdict::header::ACK;
use cellwall_verdict::arrive;

use crate::world::{POD, SLOT, World};

const OUT: Direction = Direction::Egress;

/// Sends a frame out of the pod: reason, and stamp.
fn leave(world: &World, bytes: &[u8]) -> (Reason, (u32, u32)) {
    let mut frame = Frame::new(bytes, POD);
    frame.ingress_ifindex = POD;
    let verdict = world.judge(&frame, OUT);
    (verdict.reason, frame.stamp.get())
}

fn at_port(bytes: &mut [u8], world: &World, offset: usize, port: u16) {
    let at = offset + if world.is_v4() { 34 } else { 54 };
    bytes[at..at + 2].copy_from_slice(&port.to_be_bytes());
}

/// UDP has nothing that opens: a flow that was seen unchanged goes on unstamped when a Service is made for its address.
#[test]
fn datagrams_to_an_address_that_becomes_a_service_are_judged_where_they_lead() {
    for mut world in World::both() {
        let asked = world.friend(OUT, Protocol::UDP, 53);
        assert_eq!(leave(&world, &opening(&asked)), (Reason::Allowed, (MARK, SLOT + 1)));
        let mut frame = Frame::new(&opening(&asked), 31);
        frame.ingress_ifindex = POD;
        frame.stamp.set((MARK, SLOT + 1));
        assert_eq!(arrive(&frame, &world.memory).verdict.reason, Reason::Established, "seen unchanged");
        assert_eq!(leave(&world, &opening(&asked)), (Reason::Established, (0, 0)));
        // kubectl apply: a Service with this clusterIP or externalIP. Services move no pod's `since`.
        world.translate(&asked, 0, &[]);
        world.change(|tables| tables.live = Live(5));
        let (_, (mark, _)) = leave(&world, &opening(&asked));
        assert_eq!(mark, MARK, "nobody judges the backend");
    }
}

/// A DNS server that may ask nobody itself answers whoever may ask it, each from a port of its own.
#[test]
fn every_question_that_is_allowed_is_answered() {
    for world in World::both() {
        let flow = world.friend(Direction::Ingress, Protocol::UDP, 53);
        let mut lost = 0;
        for port in 1..=2 * Bucket::PER_TICK {
            let port = u16::try_from(port).expect("a port");
            assert!(world.packet(&opening_from(&flow, port), Direction::Ingress).passes());
            let mut reply = answer(&flow);
            at_port(&mut reply, &world, 2, port);
            lost += u32::from(!world.packet(&reply, OUT).passes());
        }
        assert_eq!(lost, 0, "of {} in one tick", 2 * Bucket::PER_TICK);
    }
}

/// What one client may do takes the connections of all others.
#[test]
fn a_flood_into_a_pod_takes_nothing_from_what_it_opens() {
    for world in World::both() {
        let flow = world.friend(Direction::Ingress, Protocol::TCP, 80);
        for port in 1..=Bucket::PER_TICK {
            let port = u16::try_from(port).expect("a port");
            world.packet(&opening_from(&flow, port), Direction::Ingress);
        }
        let own = world.friend(OUT, Protocol::TCP, 443);
        assert!(world.open(&own).passes());
        assert_eq!(world.answer(&own).reason, Reason::Established);
    }
}

/// FLOWS is full: an established connection waits in PENDING, and is over after a minute of silence.
#[test]
fn a_full_table_drops_nothing_after_a_minute_either() {
    for mut world in World::both() {
        world.memory.four.full.set(true);
        world.memory.six.full.set(true);
        let flow = world.friend(Direction::Ingress, Protocol::TCP, 80);
        world.connect(&flow);
        world.memory.tick += 57;
        assert_eq!(world.segment(&flow, false, ACK).reason, Reason::Established);
    }
}

/// The address of a Service is judged nowhere for an error about it: no hook waits for it.
#[test]
fn an_error_to_a_virtual_address_is_judged_where_it_leads() {
    for mut world in World::both() {
        let asked = world.stranger(OUT, Protocol::UDP, 53);
        assert!(leave(&world, &opening(&asked)).0.is_drop(), "who has this address must not be asked");
        world.translate(&asked, 0, &[]);
        assert_eq!(leave(&world, &opening(&asked)).0, Reason::Deferred);
        let icmp = if world.is_v4() { [3, 3, 0, 0, 0, 0, 0, 0] } else { [1, 4, 0, 0, 0, 0, 0, 0] };
        let mut payload = icmp.to_vec();
        payload.extend(&answer(&asked)[14..]);
        payload.extend(b"whatever the pod wants to tell");
        let protocol = if world.is_v4() { 1 } else { 58 };
        let error = packet(OUT, (asked.local, asked.remote), protocol, &payload);
        let (reason, (mark, _)) = leave(&world, &error);
        assert!(reason.is_drop() || mark == MARK, "{reason:?}, and without a stamp");
    }
}

/// A Service that is gone, and a policy that denies what it led to on this node.
#[test]
fn a_connection_to_this_node_is_cut_when_policy_denies_it_although_its_service_is_gone() {
    for mut world in World::both() {
        let asked = world.virtual_address();
        let [_, friend, _] = world.addresses;
        world.translate(&asked, 0, &[(friend, 443)]);
        world.connect(&asked);
        world.memory.services.clear();
        world.change(|tables| {
            tables.live = Live(5);
            tables.classes.insert(5, ClassPair::new([0, 0]));
        });
        world.record(|record| record.since = 5);
        assert_eq!(leave(&world, &segment(&asked, true, ACK)).0, Reason::Revoked);
    }
}

/// A connection to a process of this node, from before somebody put a Service there.
#[test]
fn a_connection_from_before_its_service_is_cut_where_policy_denies_its_address() {
    for mut world in World::both() {
        let asked = world.friend(OUT, Protocol::TCP, 443);
        world.connect(&asked);
        let backend = world.addresses[2];
        world.translate(&asked, 0, &[(backend, 443)]);
        // Now the friend is denied, and the stranger, to whom the Service leads, allowed.
        let all = PolicyEntry { some: 15, ..PolicyEntry::only_rest(ACTION_ALLOW, 1) };
        world.change(|tables| {
            tables.live = Live(5);
            let friend = tables.policy.keys().find(|key| key.image == crate::world::IMAGES[1]).copied();
            let none = PolicyEntry::only_rest(cellwall_abi::ACTION_DENY, 0);
            tables.policy.insert(friend.expect("one"), none);
        });
        world.record(|record| {
            record.since = 5;
            record.default[1] = all;
        });
        assert!(leave(&world, &segment(&asked, true, ACK)).0.is_drop(), "its packets go where they went, to this node");
        let _ = (CLIENT_PORT, Flow { ..asked });
    }
}
