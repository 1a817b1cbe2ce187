//! Headers that are odd, and packets that lie.

use cellwall_abi::Reason;
use cellwall_policy::flow::{Direction, Flow, Protocol};
use cellwall_testkit::frame::{Frame, ethernet, opening};

use crate::world::{POD, World};

/// Ethernet, and the network header behind it, of the first packet of a flow.
fn split(flow: &Flow) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let bytes = opening(flow);
    let network = if flow.local.is_ipv4() { 20 } else { 40 };
    (bytes[..14].to_vec(), bytes[14..14 + network].to_vec(), bytes[14 + network..].to_vec())
}

/// With IPv4 options of whole words, lengths put right.
pub(crate) fn with_options(flow: &Flow, options: &[u8]) -> Vec<u8> {
    let (mut bytes, mut ip, transport) = split(flow);
    ip[0] = 0x45 + u8::try_from(options.len() / 4).expect("few options");
    let total = u16::try_from(20 + options.len() + transport.len()).expect("a small packet");
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    bytes.extend(ip);
    bytes.extend(options);
    bytes.extend(transport);
    bytes
}

/// With IPv6 extension headers: (kind, content), each told to the one before; lengths put right.
pub(crate) fn with_extensions(flow: &Flow, extensions: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let (mut bytes, mut ip, transport) = split(flow);
    let mut payload = Vec::new();
    let mut next = ip[6];
    for (kind, content) in extensions.iter().rev() {
        let mut header = content.clone();
        header[0] = next;
        header.extend(&payload);
        payload = header;
        next = *kind;
    }
    ip[6] = next;
    let length = u16::try_from(payload.len() + transport.len()).expect("a small packet");
    ip[4..6].copy_from_slice(&length.to_be_bytes());
    bytes.extend(ip);
    bytes.extend(payload);
    bytes.extend(transport);
    bytes
}

/// An ICMP error about the first packet of a flow, as a router far away sends it.
pub(crate) fn error_about(flow: &Flow, direction: Direction) -> Vec<u8> {
    let quoted = &opening(flow)[14..];
    let reversed = Flow { direction, protocol: Protocol(1), port: 0, ..*flow };
    let (mut bytes, mut ip, _) = split(&reversed);
    let icmp = if flow.local.is_ipv4() { [3, 1, 0, 0, 0, 0, 0, 0] } else { [1, 0, 0, 0, 0, 0, 0, 0] };
    let length = u16::try_from(icmp.len() + quoted.len()).expect("a small packet");
    if flow.local.is_ipv4() {
        ip[2..4].copy_from_slice(&(length + 20).to_be_bytes());
    } else {
        ip[6] = 58;
        ip[4..6].copy_from_slice(&length.to_be_bytes());
    }
    bytes.extend(ip);
    bytes.extend(icmp);
    bytes.extend(quoted);
    bytes
}

fn worlds() -> (World, World) {
    let [four, six] = World::both();
    (four, six)
}

#[test]
fn options_move_the_ports() {
    let (four, _) = worlds();
    let denied = four.friend(Direction::Ingress, Protocol::TCP, 22);
    // At the place of the ports stands a packet to port 80.
    let decoy = with_options(&denied, &[1, 1, 0, 80]);
    assert_eq!(four.packet(&decoy, Direction::Ingress).reason, Reason::DefaultDeny);
    let allowed = four.friend(Direction::Ingress, Protocol::TCP, 80);
    let padded = with_options(&allowed, &[1, 1, 0, 22]);
    assert_eq!(four.packet(&padded, Direction::Ingress).reason, Reason::Allowed);
}

#[test]
fn source_routes_and_lying_options_are_dropped() {
    let (four, _) = worlds();
    let flow = four.friend(Direction::Ingress, Protocol::TCP, 80);
    let cases: [(&[u8], Reason); 4] = [
        (&[131, 3, 4, 0], Reason::SourceRoute),
        (&[1, 137, 3, 4], Reason::SourceRoute),
        (&[7, 0, 0, 0], Reason::Malformed),
        (&[7, 1, 0, 0], Reason::Malformed),
    ];
    for (options, reason) in cases {
        assert_eq!(
            four.packet(&with_options(&flow, options), Direction::Ingress).reason,
            reason,
            "{options:?}"
        );
    }
}

#[test]
fn extension_headers_are_walked() {
    let (_, six) = worlds();
    let allowed = six.friend(Direction::Ingress, Protocol::TCP, 80);
    let denied = six.friend(Direction::Ingress, Protocol::TCP, 22);
    let options = || (0_u8, vec![0, 0, 1, 4, 0, 0, 0, 0]);
    let destination = || (60_u8, vec![0, 0, 1, 4, 0, 0, 0, 0]);
    for (flow, reason) in [(allowed, Reason::Allowed), (denied, Reason::DefaultDeny)] {
        let frame = with_extensions(&flow, &[options(), destination()]);
        assert_eq!(six.packet(&frame, Direction::Ingress).reason, reason);
    }
    let routing_0 = (43_u8, vec![0, 0, 0, 1, 0, 0, 0, 0]);
    let none = (59_u8, vec![0, 0, 0, 0, 0, 0, 0, 0]);
    let endless: Vec<_> = (0..40).map(|_| destination()).collect();
    for extensions in [vec![routing_0], endless] {
        let frame = with_extensions(&allowed, &extensions);
        assert_eq!(six.packet(&frame, Direction::Ingress).reason, Reason::Extension);
    }
    assert!(six.packet(&with_extensions(&allowed, &[none]), Direction::Ingress).reason.is_drop());
}

#[test]
fn every_cut_of_a_packet_is_dropped() {
    for world in World::both() {
        for protocol in [Protocol::TCP, Protocol::UDP] {
            let port = if protocol == Protocol::TCP { 80 } else { 53 };
            let whole = opening(&world.friend(Direction::Ingress, protocol, port));
            assert!(world.packet(&whole, Direction::Ingress).passes());
            for length in 14..whole.len() {
                let verdict = world.packet(&whole[..length], Direction::Ingress);
                assert!(verdict.reason.is_drop(), "{length} of {} bytes: {verdict:?}", whole.len());
            }
        }
    }
}

#[test]
fn lengths_that_lie_are_dropped_unless_a_segment_is_still_to_be_cut() {
    let (four, six) = worlds();
    for (world, at) in [(four, 16), (six, 18)] {
        let flow = world.friend(Direction::Ingress, Protocol::TCP, 80);
        let mut bytes = opening(&flow);
        bytes[at..at + 2].copy_from_slice(&2000_u16.to_be_bytes());
        assert_eq!(world.packet(&bytes, Direction::Ingress).reason, Reason::Malformed);
        let mut frame = Frame::new(&bytes, POD);
        frame.is_segmented = true;
        assert_eq!(world.judge(&frame, Direction::Ingress).reason, Reason::Allowed);
    }
}

#[test]
fn versions_and_ethertypes_that_contradict_each_other_are_dropped() {
    let (four, six) = worlds();
    for world in [&four, &six] {
        let flow = world.friend(Direction::Ingress, Protocol::TCP, 80);
        let mut bytes = opening(&flow);
        bytes[14] = 0x75;
        assert_eq!(world.packet(&bytes, Direction::Ingress).reason, Reason::Malformed);
        let vlan = ethernet(Direction::Ingress, 0x8100, &opening(&flow)[12..]);
        assert_eq!(world.packet(&vlan, Direction::Ingress).reason, Reason::EtherType);
        let mut tagged = Frame::opening(&flow, POD);
        tagged.has_vlan_tag = true;
        assert_eq!(world.judge(&tagged, Direction::Ingress).reason, Reason::EtherType);
    }
    let mut short = opening(&four.friend(Direction::Ingress, Protocol::TCP, 80));
    short[14] = 0x44;
    assert_eq!(four.packet(&short, Direction::Ingress).reason, Reason::Malformed);
}

#[test]
fn a_pod_that_nothing_isolates_gets_what_nobody_understands() {
    for mut world in World::both() {
        world.record(|record| record.image = [0; 2]);
        let vlan = ethernet(Direction::Ingress, 0x88cc, &[0; 46]);
        assert_eq!(world.packet(&vlan, Direction::Ingress).reason, Reason::NotIsolated);
        let flow = world.friend(Direction::Ingress, Protocol::TCP, 80);
        assert_eq!(world.packet(&opening(&flow)[..40], Direction::Ingress).reason, Reason::NotIsolated);
    }
}
