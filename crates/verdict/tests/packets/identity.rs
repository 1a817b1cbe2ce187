//! Who may send as whom, and who is spoken to.

use cellwall_abi::{ENDPOINT_AUDIT, ENDPOINT_IDENTIFIED, Reason};
use cellwall_policy::flow::{Direction, Flow, Protocol};
use cellwall_testkit::frame::{POD_MAC, ethernet, opening};

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

#[test]
fn a_source_that_no_wire_carries_is_forged() {
    for world in World::both() {
        let flow = world.friend(Direction::Ingress, Protocol::TCP, 80);
        let remote = if world.is_v4() { "127.0.0.1" } else { "::1" }.parse().expect("an address");
        assert_eq!(world.open(&Flow { remote, ..flow }).reason, Reason::Spoofed);
    }
}

/// An ARP packet (RFC 826) from a pod: sender's Ethernet and IPv4 address.
fn arp(sender: [u8; 6], address: [u8; 4]) -> Vec<u8> {
    let mut payload = vec![0, 1, 8, 0, 6, 4, 0, 2];
    payload.extend(sender);
    payload.extend(address);
    payload.extend([0; 10]);
    ethernet(Direction::Egress, 0x0806, &payload)
}

#[test]
fn arp_passes_where_it_is_true() {
    let [world, _] = World::both();
    assert_eq!(world.packet(&arp(POD_MAC, [10, 0, 0, 2]), Direction::Egress).reason, Reason::Neighbour);
    assert_eq!(world.packet(&arp(POD_MAC, [0; 4]), Direction::Egress).reason, Reason::Neighbour, "a probe");
    assert_eq!(world.packet(&arp(POD_MAC, [10, 0, 0, 1]), Direction::Egress).reason, Reason::Spoofed);
    assert_eq!(
        world.packet(&arp([2, 0, 0, 0, 0, 9], [10, 0, 0, 2]), Direction::Egress).reason,
        Reason::Spoofed
    );
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
