//! Rows A6 and A7 of docs/robustness.md: what is not IP of the pod's own family.

use cellwall_abi::Reason;
use cellwall_abi::{Addr6, Be32};
use cellwall_policy::flow::Direction::{self, Egress, Ingress};
use cellwall_policy::flow::Protocol;
use cellwall_testkit::frame::{Frame, ethernet, opening};

use crate::world::{POD, World};

/// VLAN, service VLAN, PPPoE (discovery and session), MPLS (unicast and multicast), LLDP, EtherCAT, RARP, IPX, EAPOL,
/// loop detection, and the length of an IEEE 802.3 frame.
const OTHERS: [u16; 13] =
    [0x8100, 0x88a8, 0x8863, 0x8864, 0x8847, 0x8848, 0x88cc, 0x88a4, 0x8035, 0x8137, 0x888e, 0x9000, 0x0026];

/// A whole packet behind each: some receivers would look for it.
fn frame(world: &World, direction: Direction, ether_type: u16) -> Vec<u8> {
    let inner = opening(&world.friend(direction, Protocol::UDP, 53));
    let gap: &[u8] = match ether_type {
        0x8100 | 0x88a8 => &[0, 5, 8, 0],
        0x0026 => &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0],
        _ => &[0; 4],
    };
    ethernet(direction, ether_type, &[gap, &inner[14..]].concat())
}

#[test]
fn an_isolated_pod_neither_gets_nor_sends_other_frames() {
    for mut world in World::both() {
        for ether_type in OTHERS {
            for direction in Direction::ALL {
                let verdict = world.packet(&frame(&world, direction, ether_type), direction);
                assert_eq!(verdict.reason, Reason::EtherType, "{ether_type:#x}");
            }
        }
        world.record(|record| record.image[0] = 0);
        let half = world.packet(&frame(&world, Ingress, 0x88cc), Ingress);
        assert_eq!(half.reason, Reason::EtherType, "isolated in one direction: no direction can be told");
        world.open_up();
        for ether_type in OTHERS {
            let sent = world.packet(&frame(&world, Egress, ether_type), Egress).reason;
            let is_tag = matches!(ether_type, 0x8100 | 0x88a8);
            // The kernel has taken off one tag already, if this hook sees another.
            assert_eq!(sent, if is_tag { Reason::EtherType } else { Reason::NotIsolated }, "{ether_type:#x}");
            assert_eq!(
                world.packet(&frame(&world, Ingress, ether_type), Ingress).reason,
                Reason::NotIsolated
            );
        }
    }
}

#[test]
fn a_tag_with_an_id_is_another_network() {
    for mut world in World::both() {
        for (isolated, direction) in [true, false]
            .into_iter()
            .flat_map(|isolated| Direction::ALL.map(|direction| (isolated, direction)))
        {
            if !isolated {
                world.open_up();
            }
            let mut tagged = Frame::opening(&world.allowed(direction), POD);
            assert!(world.judge(&tagged, direction).passes());
            tagged.has_vlan_tag = true;
            let expected = if isolated { Reason::EtherType } else { Reason::NotIsolated };
            assert_eq!(world.judge(&tagged, direction).reason, expected);
        }
    }
}

#[test]
fn every_frame_of_a_pod_has_its_own_ethernet_address() {
    for mut world in World::both() {
        world.open_up();
        for ether_type in [0x88cc, 0x8847, 0x0026] {
            let mut forged = frame(&world, Egress, ether_type);
            forged[11] ^= 4;
            assert_eq!(world.packet(&forged, Egress).reason, Reason::Spoofed, "{ether_type:#x}");
        }
        for forge in [|frame: &mut Frame| frame.has_vlan_tag = true, |_: &mut Frame| ()] {
            let mut bytes = opening(&world.friend(Egress, Protocol::TCP, 443));
            bytes[11] ^= 4;
            let mut forged = Frame::new(&bytes, POD);
            forge(&mut forged);
            assert_eq!(world.judge(&forged, Egress).reason, Reason::Spoofed);
        }
        // What cannot be read has an address, too.
        let mut bytes = opening(&world.friend(Egress, Protocol::TCP, 443));
        bytes[14] = 0x95;
        assert_eq!(world.packet(&bytes, Egress).reason, Reason::NotIsolated);
        bytes[11] ^= 4;
        assert_eq!(world.packet(&bytes, Egress).reason, Reason::Spoofed);
    }
}

#[test]
fn versions_are_those_of_the_ethertype() {
    let [four, six] = World::both();
    for (world, ether_type) in [(&four, [0x86, 0xdd]), (&six, [8, 0])] {
        for direction in Direction::ALL {
            let mut bytes = opening(&world.friend(direction, Protocol::UDP, 53));
            assert_eq!(world.packet(&bytes, direction).reason, Reason::Allowed);
            bytes[12..14].copy_from_slice(&ether_type);
            let reason = world.packet(&bytes, direction).reason;
            assert!(matches!(reason, Reason::Malformed | Reason::Truncated), "{reason:?}");
        }
    }
}

#[test]
fn a_family_that_the_pod_does_not_have_is_not_the_pods() {
    for (world, other) in World::both().into_iter().zip(World::both().into_iter().rev()) {
        let mut world = world;
        for isolated in [true, false] {
            for direction in Direction::ALL {
                // The pod has no address of the other family, and its policies know none.
                let flow = other.friend(direction, Protocol::UDP, 53);
                let reason = world.open(&flow).reason;
                let expected = if direction == Egress { Reason::Spoofed } else { Reason::NotAddressed };
                assert_eq!(reason, expected, "isolated: {isolated}");
                assert!(
                    world.open(&world.friend(direction, Protocol::UDP, 53)).passes(),
                    "of its own family"
                );
            }
            world.open_up();
        }
        // An address that is not there is no address: 0.0.0.0 and :: are nobody's.
        let mut flow = other.friend(Egress, Protocol::UDP, 53);
        flow.local = if flow.local.is_ipv4() { Be32::ZERO.into() } else { Addr6::ZERO.into() };
        assert_eq!(world.open(&flow).reason, Reason::Spoofed);
    }
}
