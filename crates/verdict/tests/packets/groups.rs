//! Rows A8 and A13 of docs/robustness.md: groups, broadcasts, and addresses that are nobody's.

use std::net::IpAddr;

use cellwall_abi::Reason;
use cellwall_policy::flow::Direction::{self, Egress, Ingress};
use cellwall_policy::flow::{Flow, Protocol};
use cellwall_testkit::frame::opening;

use crate::world::World;

fn at(world: &World, four: &str, six: &str) -> IpAddr {
    (if world.is_v4() { four } else { six }).parse().expect("an address")
}

/// Names and ports of what is sent to groups.
const GROUPS: [(&str, &str, u16); 5] = [
    ("224.0.0.251", "ff02::fb", 5353),
    ("255.255.255.255", "ff02::1:2", 67),
    ("239.255.255.250", "ff05::c", 1900),
    ("224.0.0.1", "ff02::1", 9),
    ("224.0.0.252", "ff02::1:3", 5355),
];

#[test]
fn groups_are_a_matter_of_policy() {
    for mut world in World::both() {
        for (four, six, port) in GROUPS {
            let group = at(&world, four, six);
            // Out of the pod: the group is who is asked about. Into it: whoever sends to the group.
            let out = Flow { remote: group, ..world.stranger(Egress, Protocol::UDP, port) };
            let into = Flow { local: group, ..world.stranger(Ingress, Protocol::UDP, port) };
            for flow in [&out, &into] {
                assert_eq!(world.open(flow).reason, Reason::DefaultDeny, "{group}");
            }
            let from_friend = Flow { local: group, ..world.friend(Ingress, Protocol::UDP, 53) };
            assert_eq!(world.open(&from_friend).reason, Reason::Allowed, "the friend may, on that port");
        }
        world.allow_all();
        for (four, six, port) in GROUPS {
            let group = at(&world, four, six);
            let out = Flow { remote: group, ..world.stranger(Egress, Protocol::UDP, port) };
            assert_eq!(world.open(&out).reason, Reason::Allowed);
        }
        assert_eq!(world.connections(), (0, 0), "a group does not answer");
        world.open_up();
        let out = Flow {
            remote: at(&world, "224.0.0.251", "ff02::fb"),
            ..world.stranger(Egress, Protocol::UDP, 1)
        };
        assert_eq!(world.open(&out).reason, Reason::NotIsolated);
    }
}

#[test]
fn listeners_of_ipv4_report_by_policy() {
    let [mut four, _] = World::both();
    let report = Flow { remote: at(&four, "224.0.0.22", ""), ..four.stranger(Egress, Protocol(2), 0) };
    assert_eq!(four.open(&report).reason, Reason::DefaultDeny);
    four.allow_all();
    assert_eq!(four.open(&report).reason, Reason::Allowed);
}

/// Who a pod may not be: a peer, a node, loopback, nobody, a group, everybody; and within its link.
const FORGED: [[&str; 9]; 2] = [
    [
        "10.0.0.3",
        "10.9.0.1",
        "127.0.0.1",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "255.255.255.255",
        "10.96.0.1",
        "169.254.1.1",
    ],
    [
        "fd00::3",
        "fd09::1",
        "::1",
        "::",
        "::ffff:10.0.0.3",
        "ff02::1",
        "::10.0.0.3",
        "fd00::a:1",
        "fe80::ff:fe00:1",
    ],
];

#[test]
fn no_pod_speaks_for_another() {
    for mut world in World::both() {
        for isolated in [true, false] {
            for text in FORGED[usize::from(!world.is_v4())] {
                let local = text.parse().expect("an address");
                for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP, world.icmp(), Protocol(47)] {
                    let forged = Flow { local, ..world.friend(Egress, protocol, 443) };
                    assert_eq!(world.open(&forged).reason, Reason::Spoofed, "{text}, isolated: {isolated}");
                }
            }
            for sender in [[2, 0, 0, 0, 0, 0xfe], [2, 0, 0, 0, 0, 2], [0xff; 6], [0; 6]] {
                let mut forged = opening(&world.friend(Egress, Protocol::TCP, 443));
                forged[6..12].copy_from_slice(&sender);
                assert_eq!(world.packet(&forged, Egress).reason, Reason::Spoofed, "{sender:x?}");
            }
            world.open_up();
        }
    }
}

/// Addresses that a packet on a wire has not.
const MARTIAN: [[&str; 4]; 2] =
    [["127.0.0.1", "127.255.0.1", "0.0.0.0", "0.1.2.3"], ["::1", "::", "::ffff:10.0.0.3", "::10.0.0.3"]];

#[test]
fn no_packet_comes_from_nowhere_or_goes_there() {
    for mut world in World::both() {
        for isolated in [true, false] {
            for text in MARTIAN[usize::from(!world.is_v4())] {
                let remote = text.parse().expect("an address");
                for direction in Direction::ALL {
                    let flow = Flow { remote, ..world.friend(direction, Protocol::TCP, 443) };
                    let expected = if direction == Ingress { Reason::Spoofed } else { Reason::NotAddressed };
                    assert_eq!(world.open(&flow).reason, expected, "{text}, isolated: {isolated}");
                }
            }
            let group = at(&world, "224.0.0.1", "ff02::1");
            let flow = Flow { remote: group, ..world.friend(Ingress, Protocol::UDP, 53) };
            assert_eq!(world.open(&flow).reason, Reason::Spoofed, "a group sends nothing");
            world.open_up();
        }
    }
}
