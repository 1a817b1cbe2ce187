//! Headers that are odd, and packets that lie.

use cellwall_abi::Reason;
use cellwall_policy::flow::{Direction, Flow, Protocol};
use cellwall_testkit::frame::{ethernet, opening};

use crate::world::{World, frame};

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

#[test]
fn options_move_the_ports() {
    let [mut four, _] = World::both();
    for direction in Direction::ALL {
        let allowed = four.allowed(direction);
        let denied = Flow { port: 22, ..allowed };
        // At the place of the ports stands a packet to a port that is open; as options it is padding, or one without content.
        let [high, low] = allowed.port.to_be_bytes();
        let decoy = with_options(&denied, &[1, 1, high, low, 2, 0, 0, 0]);
        assert_eq!(four.packet(&decoy, direction).reason, Reason::DefaultDeny);
        let padded = with_options(&allowed, &[1, 1, 0, 22]);
        assert_eq!(four.packet(&padded, direction).reason, Reason::Allowed);
    }
    four.open_up();
    for direction in Direction::ALL {
        let denied = Flow { port: 22, ..four.allowed(direction) };
        assert_eq!(
            four.packet(&with_options(&denied, &[1, 1, 0, 80]), direction).reason,
            Reason::NotIsolated
        );
    }
}

#[test]
fn source_routes_and_lying_options_are_dropped() {
    let [mut four, _] = World::both();
    let cases: [(&[u8], Reason); 5] = [
        (&[1, 1, 1, 0], Reason::Allowed),
        (&[131, 3, 4, 0], Reason::SourceRoute),
        (&[1, 137, 3, 4], Reason::SourceRoute),
        (&[7, 0, 0, 0], Reason::Malformed),
        (&[7, 1, 0, 0], Reason::Malformed),
    ];
    for isolated in [true, false] {
        for direction in Direction::ALL {
            for (options, reason) in cases {
                let found = four.packet(&with_options(&four.allowed(direction), options), direction).reason;
                let expected = if isolated { reason } else { Reason::NotIsolated };
                assert_eq!(found, expected, "{direction:?}, {options:?}, isolated: {isolated}");
            }
        }
        four.open_up();
        four.memory.forget();
    }
}

#[test]
fn extension_headers_are_walked() {
    let [_, mut six] = World::both();
    let options = || (0_u8, vec![0, 0, 1, 4, 0, 0, 0, 0]);
    let destination = || (60_u8, vec![0, 0, 1, 4, 0, 0, 0, 0]);
    let routing_0 = (43_u8, vec![0, 0, 0, 1, 0, 0, 0, 0]);
    let none = (59_u8, vec![0, 0, 0, 0, 0, 0, 0, 0]);
    let endless: Vec<_> = (0..40).map(|_| destination()).collect();
    for isolated in [true, false] {
        for direction in Direction::ALL {
            let allowed = six.allowed(direction);
            let denied = Flow { port: 22, ..allowed };
            let cases = [
                (&allowed, vec![options(), destination()], Reason::Allowed),
                (&denied, vec![options(), destination()], Reason::DefaultDeny),
                (&allowed, vec![routing_0.clone()], Reason::Extension),
                (&allowed, endless.clone(), Reason::Extension),
                (&allowed, vec![none.clone()], Reason::Extension),
            ];
            for (flow, extensions, reason) in cases {
                let expected = if isolated { reason } else { Reason::NotIsolated };
                let found = six.packet(&with_extensions(flow, &extensions), direction).reason;
                assert_eq!(found, expected, "{direction:?}, isolated: {isolated}: {extensions:?}");
            }
        }
        six.open_up();
        six.memory.forget();
    }
}

#[test]
fn every_cut_of_a_packet_is_dropped() {
    for mut world in World::both() {
        for isolated in [true, false] {
            for direction in Direction::ALL {
                for flow in [world.allowed(direction), world.friend(direction, Protocol::UDP, 53)] {
                    let whole = opening(&flow);
                    assert!(world.packet(&whole, direction).passes(), "{flow:?}");
                    // Of less than this nobody can tell who has sent it.
                    let addresses = if world.is_v4() { 34 } else { 54 };
                    for length in 14..whole.len() {
                        let verdict = world.packet(&whole[..length], direction);
                        let passes = !isolated && (direction == Direction::Ingress || length >= addresses);
                        assert_eq!(verdict.passes(), passes, "{length} of {}: {verdict:?}", whole.len());
                    }
                }
            }
            world.open_up();
            world.memory.forget();
        }
    }
}

#[test]
fn lengths_that_lie_are_dropped_unless_a_segment_is_still_to_be_cut() {
    for mut world in World::both() {
        let at = if world.is_v4() { 16 } else { 18 };
        for isolated in [true, false] {
            for direction in Direction::ALL {
                let flow = world.allowed(direction);
                let expected = |reason| if isolated { reason } else { Reason::NotIsolated };
                assert_eq!(world.open(&flow).reason, expected(Reason::Allowed), "it says what it is");
                let mut bytes = opening(&flow);
                bytes[at..at + 2].copy_from_slice(&2000_u16.to_be_bytes());
                assert_eq!(world.packet(&bytes, direction).reason, expected(Reason::Malformed));
                let mut segment = frame(&bytes, direction);
                segment.is_segmented = true;
                assert_eq!(world.judge(&segment, direction).reason, expected(Reason::Allowed));
                let mut denied = opening(&Flow { port: 22, ..flow });
                denied[at..at + 2].copy_from_slice(&2000_u16.to_be_bytes());
                let mut segment = frame(&denied, direction);
                segment.is_segmented = true;
                assert_eq!(world.judge(&segment, direction).reason, expected(Reason::DefaultDeny));
            }
            world.open_up();
            world.memory.forget();
        }
    }
}

#[test]
fn versions_and_ethertypes_that_contradict_each_other_are_dropped() {
    for world in World::both() {
        for direction in Direction::ALL {
            let flow = world.allowed(direction);
            let whole = opening(&flow);
            assert_eq!(world.packet(&whole, direction).reason, Reason::Allowed);
            let mut bytes = whole.clone();
            bytes[14] = 0x75;
            assert_eq!(world.packet(&bytes, direction).reason, Reason::Malformed);
            let vlan = ethernet(direction, 0x8100, &whole[12..]);
            assert_eq!(world.packet(&vlan, direction).reason, Reason::EtherType);
            let mut tagged = frame(&whole, direction);
            tagged.has_vlan_tag = true;
            assert_eq!(world.judge(&tagged, direction).reason, Reason::EtherType);
            if world.is_v4() {
                let mut short = whole.clone();
                short[14] = 0x44;
                assert_eq!(world.packet(&short, direction).reason, Reason::Malformed);
            }
        }
    }
}

#[test]
fn a_pod_that_nothing_isolates_gets_and_sends_what_nobody_understands() {
    for mut world in World::both() {
        for isolated in [true, false] {
            for direction in Direction::ALL {
                let whole = opening(&world.allowed(direction));
                let mut other_version = whole.clone();
                other_version[14] = 0x75;
                let mut tagged = frame(&whole, direction);
                tagged.has_vlan_tag = true;
                let lldp = ethernet(direction, 0x88cc, &[0; 46]);
                let verdicts = [
                    world.packet(&lldp, direction),
                    world.packet(&other_version, direction),
                    world.packet(&whole[..whole.len() - 10], direction),
                    world.judge(&tagged, direction),
                ];
                for verdict in verdicts {
                    assert_eq!(
                        verdict.reason == Reason::NotIsolated,
                        !isolated,
                        "{direction:?}: {verdict:?}"
                    );
                    assert_eq!(verdict.passes(), !isolated, "{direction:?}: {verdict:?}");
                }
            }
            world.open_up();
        }
    }
}
