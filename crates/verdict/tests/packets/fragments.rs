//! Later fragments carry no ports and follow their first.

use cellwall_abi::Reason;
use cellwall_policy::flow::{Direction, Flow, Protocol};
use cellwall_testkit::frame::opening;

use crate::headers::with_extensions;
use crate::world::World;

/// A fragment of the first datagram of a flow: its offset in eight bytes, and whether more follow.
pub(crate) fn fragment(flow: &Flow, id: u16, offset: u16, more: bool) -> Vec<u8> {
    if flow.local.is_ipv4() {
        let mut bytes = opening(flow);
        bytes[18..20].copy_from_slice(&id.to_be_bytes());
        bytes[20..22].copy_from_slice(&(offset | if more { 0x2000 } else { 0 }).to_be_bytes());
        return bytes;
    }
    let mut header = vec![0, 0, 0, 0, 0, 0, 0, 0];
    header[2..4].copy_from_slice(&((offset << 3) | u16::from(more)).to_be_bytes());
    header[6..8].copy_from_slice(&id.to_be_bytes());
    with_extensions(flow, &[(44, header)])
}

#[test]
fn later_fragments_do_as_the_first_was_told() {
    for world in World::both() {
        let allowed = world.friend(Direction::Ingress, Protocol::UDP, 53);
        let denied = world.friend(Direction::Ingress, Protocol::UDP, 54);
        let into = Direction::Ingress;
        assert_eq!(world.packet(&fragment(&allowed, 1, 0, true), into).reason, Reason::Allowed);
        assert_eq!(world.packet(&fragment(&allowed, 1, 10, true), into).reason, Reason::FragmentFollows);
        assert_eq!(world.packet(&fragment(&denied, 2, 0, true), into).reason, Reason::DefaultDeny);
        assert_eq!(world.packet(&fragment(&denied, 2, 10, false), into).reason, Reason::FragmentDenied);
    }
}

#[test]
fn without_its_first_a_fragment_passes_when_some_port_of_its_protocol_could() {
    for world in World::both() {
        let into = Direction::Ingress;
        let cases = [
            (world.friend(into, Protocol::UDP, 1), Reason::FragmentFollows),
            (world.friend(into, Protocol::SCTP, 1), Reason::FragmentDenied),
            (world.stranger(into, Protocol::UDP, 53), Reason::FragmentDenied),
        ];
        for (flow, reason) in cases {
            assert_eq!(world.packet(&fragment(&flow, 9, 20, true), into).reason, reason, "{flow:?}");
        }
    }
}

#[test]
fn a_verdict_about_a_first_does_not_outlive_its_revision() {
    for mut world in World::both() {
        let flow = world.friend(Direction::Ingress, Protocol::UDP, 53);
        world.packet(&fragment(&flow, 3, 0, true), Direction::Ingress);
        world.change(|tables| tables.policy.clear());
        world.record(|record| record.since = 5);
        let later = world.packet(&fragment(&flow, 3, 10, true), Direction::Ingress);
        assert_eq!(later.reason, Reason::FragmentDenied);
    }
}

#[test]
fn tiny_first_fragments_and_tcp_at_offset_one_are_dropped() {
    for world in World::both() {
        let flow = world.friend(Direction::Ingress, Protocol::TCP, 80);
        let overlapping = fragment(&flow, 4, 1, false);
        assert_eq!(world.packet(&overlapping, Direction::Ingress).reason, Reason::TinyFragment);
        let mut tiny = fragment(&flow, 5, 0, true);
        let headers = if world.is_v4() { 34 } else { 62 };
        tiny.truncate(headers + 8);
        let length = u16::try_from(tiny.len() - if world.is_v4() { 14 } else { 54 }).expect("small");
        let at = if world.is_v4() { 16 } else { 18 };
        tiny[at..at + 2].copy_from_slice(&length.to_be_bytes());
        assert_eq!(world.packet(&tiny, Direction::Ingress).reason, Reason::TinyFragment);
    }
}
