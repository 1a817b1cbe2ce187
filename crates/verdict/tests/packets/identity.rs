//! Who may send as whom, and who is spoken to.

use cellwall_abi::{ENDPOINT_AUDIT, ENDPOINT_IDENTIFIED, Reason};
use cellwall_policy::flow::{Direction, Flow, Protocol};
use cellwall_testkit::frame::{HOST_MAC, POD_MAC, ethernet, opening};

use cellwall_verdict::Verdict;

use crate::world::World;

fn as_another(world: &World, flow: Flow) -> Flow {
    Flow { local: world.stranger(Direction::Egress, Protocol::TCP, 1).remote, ..flow }
}

#[test]
fn a_pod_sends_from_its_own_addresses_alone() {
    for mut world in World::both() {
        for isolated in [true, false] {
            let flow = world.friend(Direction::Egress, Protocol::TCP, 443);
            assert!(world.open(&flow).passes());
            assert_eq!(world.open(&as_another(&world, flow)).reason, Reason::Spoofed, "isolated: {isolated}");
            let mut forged = opening(&world.friend(Direction::Egress, Protocol::UDP, 53));
            forged[6] ^= 2;
            forged[11] ^= 1;
            assert_eq!(world.packet(&forged, Direction::Egress).reason, Reason::Spoofed);
            world.record(|record| record.image = [0; 2]);
        }
    }
}

#[test]
fn what_enters_a_pod_is_addressed_to_it() {
    for mut world in World::both() {
        for isolated in [true, false] {
            let flow = world.friend(Direction::Ingress, Protocol::TCP, 80);
            assert_eq!(
                world.open(&as_another(&world, flow)).reason,
                Reason::NotAddressed,
                "isolated: {isolated}"
            );
            let mut misled = opening(&flow);
            misled[5] ^= 1;
            assert_eq!(world.packet(&misled, Direction::Ingress).reason, Reason::NotAddressed);
            world.record(|record| record.image = [0; 2]);
        }
    }
}

/// The first packet of a UDP or TCP flow, from another source port.
fn from_port(flow: &Flow, port: u16) -> Vec<u8> {
    let mut bytes = opening(flow);
    let at = if flow.local.is_ipv4() { 14 + 20 } else { 14 + 40 };
    bytes[at..at + 2].copy_from_slice(&port.to_be_bytes());
    bytes
}

/// S50.
#[test]
fn source_ports_are_never_looked_at() {
    for world in World::both() {
        for (direction, allowed) in [(Direction::Ingress, 80), (Direction::Egress, 443)] {
            for port in [0, 1, 53, 80, 443, 65535] {
                let (open, closed) = (
                    world.friend(direction, Protocol::TCP, allowed),
                    world.friend(direction, Protocol::TCP, 22),
                );
                let ask = |flow| world.packet(&from_port(flow, port), direction).reason;
                assert_eq!(ask(&open), Reason::Allowed, "{direction:?} from {port}");
                assert_eq!(ask(&closed), Reason::DefaultDeny, "{direction:?} from {port}");
            }
        }
    }
}

/// S54: of two packets that differ in their source alone, the one whose source is allowed passes.
#[test]
fn a_peer_is_the_source_that_the_pod_sees() {
    for world in World::both() {
        let friend = world.friend(Direction::Ingress, Protocol::TCP, 80);
        let stranger = world.stranger(Direction::Ingress, Protocol::TCP, 80);
        assert_eq!(world.open(&friend).reason, Reason::Allowed);
        assert_eq!(world.open(&stranger).reason, Reason::DefaultDeny);
    }
}

#[test]
fn a_source_that_no_wire_carries_is_forged() {
    for world in World::both() {
        let flow = world.friend(Direction::Ingress, Protocol::TCP, 80);
        let remote = if world.is_v4() { "127.0.0.1" } else { "::1" }.parse().expect("an address");
        assert_eq!(world.open(&Flow { remote, ..flow }).reason, Reason::Spoofed);
    }
}

/// An ARP packet (RFC 826): sender's Ethernet and IPv4 address.
fn arp(direction: Direction, sender: [u8; 6], address: [u8; 4]) -> Vec<u8> {
    let mut payload = vec![0, 1, 8, 0, 6, 4, 0, 2];
    payload.extend(sender);
    payload.extend(address);
    payload.extend([0; 10]);
    ethernet(direction, 0x0806, &payload)
}

#[test]
fn arp_passes_where_it_is_true() {
    let [mut world, _] = World::both();
    for isolated in [true, false] {
        for (direction, sender, address, reason) in [
            (Direction::Egress, POD_MAC, [10, 0, 0, 2], Reason::Neighbour),
            // A probe.
            (Direction::Egress, POD_MAC, [0; 4], Reason::Neighbour),
            (Direction::Egress, POD_MAC, [10, 0, 0, 1], Reason::Spoofed),
            (Direction::Egress, [2, 0, 0, 0, 0, 9], [10, 0, 0, 2], Reason::Spoofed),
            // What comes into a pod is of others, and whether it is true their own hooks have seen.
            (Direction::Ingress, HOST_MAC, [10, 0, 0, 1], Reason::Neighbour),
            (Direction::Ingress, [2, 0, 0, 0, 0, 9], [10, 0, 0, 3], Reason::Neighbour),
        ] {
            let found = world.packet(&arp(direction, sender, address), direction).reason;
            assert_eq!(found, reason, "{direction:?}: {address:?} at {sender:x?}, isolated: {isolated}");
        }
        world.open_up();
    }
}

#[test]
fn an_audited_pod_loses_nothing_and_is_told_everything() {
    for mut world in World::both() {
        world.record(|record| record.flags = ENDPOINT_IDENTIFIED | ENDPOINT_AUDIT);
        let flow = world.stranger(Direction::Ingress, Protocol::TCP, 80);
        let verdict = world.open(&flow);
        assert_eq!((verdict.reason, verdict.audit, verdict.passes()), (Reason::DefaultDeny, true, true));
        assert!(world.answer(&flow).passes());
    }
}

/// It is the pod's own annotation: it lifts the policies on the pod, and not what other pods' policies rely on.
#[test]
fn audit_lets_nobody_speak_for_another() {
    for mut world in World::both() {
        world.record(|record| record.flags |= ENDPOINT_AUDIT);
        let dropped = |verdict: Verdict, reason| {
            assert_eq!((verdict.reason, verdict.audit, verdict.passes()), (reason, false, false));
        };
        let flow = world.friend(Direction::Egress, Protocol::TCP, 443);
        dropped(world.open(&as_another(&world, flow)), Reason::Spoofed);
        let into = world.friend(Direction::Ingress, Protocol::TCP, 80);
        dropped(world.open(&as_another(&world, into)), Reason::NotAddressed);
        dropped(
            world.packet(&arp(Direction::Egress, POD_MAC, [10, 0, 0, 1]), Direction::Egress),
            Reason::Spoofed,
        );
        let mut forged = ethernet(Direction::Egress, 0x88cc, &[0; 46]);
        forged[11] ^= 1;
        dropped(world.packet(&forged, Direction::Egress), Reason::Spoofed);
        // Where the headers are not read to their end, the source is.
        let unread = |flow: &Flow| {
            let mut bytes = opening(flow);
            let end = if flow.local.is_ipv4() { 14 + 20 + 10 } else { 14 + 40 + 10 };
            bytes.truncate(end);
            bytes
        };
        let verdict = world.packet(&unread(&flow), Direction::Egress);
        assert!(verdict.reason.is_drop() && verdict.audit, "{verdict:?}");
        dropped(world.packet(&unread(&as_another(&world, flow)), Direction::Egress), Reason::Spoofed);
    }
}

#[test]
fn an_interface_without_a_known_pod_passes_unless_strict() {
    for mut world in World::both() {
        let flow = world.stranger(Direction::Ingress, Protocol::TCP, 80);
        world.record(|record| record.flags = 0);
        assert_eq!(world.open(&flow).reason, Reason::Unidentified);
        world.memory.strict = true;
        assert_eq!(world.open(&flow).reason, Reason::UnidentifiedStrict);
    }
}
