//! Row A9 of docs/robustness.md: what is said about who has which address.

use std::net::Ipv6Addr;

use cellwall_abi::Reason;
use cellwall_policy::flow::Direction::{self, Egress, Ingress};
use cellwall_policy::flow::Protocol;
use cellwall_testkit::frame::{HOST_MAC, POD_MAC, opening, packet};

use crate::world::World;

const ROUTER_ADVERTISEMENT: u8 = 134;
const REDIRECT: u8 = 137;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// What the kernel makes of [`POD_MAC`].
const OWN_LINK_LOCAL: &str = "fe80::ff:fe00:1";
/// A router's, and another pod's.
const OTHERS: [&str; 2] = ["fe80::1", "fe80::ff:fe00:2"];
const ALL_NODES: &str = "ff02::1";

fn six(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

/// A message of neighbour discovery: target, and options of eight bytes.
struct Message<'a> {
    kind: u8,
    hop_limit: u8,
    source: &'a str,
    destination: &'a str,
    target: &'a str,
    options: Vec<[u8; 8]>,
}

impl Message<'_> {
    fn bytes(&self, direction: Direction) -> Vec<u8> {
        let mut payload = vec![self.kind, 0, 0, 0, 0, 0, 0, 0];
        if self.kind != 133 {
            payload.extend(six(self.target).octets());
        }
        payload.extend(self.options.concat());
        let mut bytes =
            packet(direction, (six(self.source).into(), six(self.destination).into()), 58, &payload);
        bytes[21] = self.hop_limit;
        bytes
    }

    fn sent(&self, world: &World) -> Reason {
        world.packet(&self.bytes(Egress), Egress).reason
    }
}

fn message(kind: u8) -> Message<'static> {
    let options = vec![];
    Message { kind, hop_limit: 255, source: "fd00::2", destination: ALL_NODES, target: "fd00::2", options }
}

/// Source (1) or target (2) link-layer address.
fn link_layer(kind: u8, mac: [u8; 6]) -> [u8; 8] {
    let mut option = [kind, 1, 0, 0, 0, 0, 0, 0];
    option[2..].copy_from_slice(&mac);
    option
}

/// A pod with both families, which nothing isolates: what is dropped here is dropped on every pod.
fn pod() -> World {
    let [_, mut six] = World::both();
    six.open_up();
    six
}

#[test]
fn a_pod_is_no_router() {
    let world = pod();
    for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
        assert_eq!(message(kind).sent(&world), Reason::NeighbourForged, "type {kind}");
        let into = message(kind).bytes(Ingress);
        assert_eq!(world.packet(&into, Ingress).reason, Reason::Neighbour, "a router may");
    }
    let query = packet(Egress, (six("fd00::2").into(), six(ALL_NODES).into()), 58, &[130; 24]);
    assert_eq!(world.packet(&query, Egress).reason, Reason::NeighbourForged, "nor does it ask who listens");
    let [mut four, _] = World::both();
    four.open_up();
    for kind in [5, 9] {
        let mut message = opening(&four.friend(Egress, Protocol::ICMP, 0));
        message[34] = kind;
        assert_eq!(four.packet(&message, Egress).reason, Reason::NeighbourForged, "type {kind}");
    }
}

#[test]
fn a_pod_advertises_itself_alone() {
    let world = pod();
    for target in ["fd00::2", OWN_LINK_LOCAL] {
        for source in ["fd00::2", OWN_LINK_LOCAL] {
            let own = Message { source, target, ..message(ADVERTISEMENT) };
            assert_eq!(own.sent(&world), Reason::Neighbour, "{source} about {target}");
        }
    }
    for other in OTHERS.into_iter().chain(["fd00::3"]) {
        let forged = Message { target: other, ..message(ADVERTISEMENT) };
        assert_eq!(forged.sent(&world), Reason::NeighbourForged, "about {other}");
        for kind in [133, SOLICITATION, ADVERTISEMENT] {
            let forged = Message { source: other, ..message(kind) };
            assert_eq!(forged.sent(&world), Reason::NeighbourForged, "type {kind} from {other}");
        }
        let claimed = Message { source: "::", target: other, ..message(SOLICITATION) };
        assert_eq!(claimed.sent(&world), Reason::NeighbourForged, "{other} is taken");
        let asked = Message { target: other, ..message(SOLICITATION) };
        assert_eq!(asked.sent(&world), Reason::Neighbour, "where is {other}?");
    }
    let claimed = Message { source: "::", target: OWN_LINK_LOCAL, ..message(SOLICITATION) };
    assert_eq!(claimed.sent(&world), Reason::Neighbour);
}

#[test]
fn ethernet_addresses_in_options_are_the_senders() {
    let world = pod();
    for (kind, option) in [(133, 1), (SOLICITATION, 1), (ADVERTISEMENT, 2)] {
        let with = |options: Vec<[u8; 8]>| Message { options, ..message(kind) }.sent(&world);
        assert_eq!(with(vec![link_layer(option, POD_MAC)]), Reason::Neighbour, "type {kind}");
        assert_eq!(with(vec![[14, 1, 1, 2, 3, 4, 5, 6], link_layer(option, POD_MAC)]), Reason::Neighbour);
        let forged = [
            vec![link_layer(option, HOST_MAC)],
            vec![link_layer(3 - option, HOST_MAC)],
            vec![link_layer(option, POD_MAC), link_layer(option, HOST_MAC)],
            vec![[14, 1, 0, 0, 0, 0, 0, 0]; 9],
            vec![[14, 0, 0, 0, 0, 0, 0, 0]],
            vec![[14, 2, 0, 0, 0, 0, 0, 0]],
        ];
        for options in forged {
            assert_eq!(with(options.clone()), Reason::NeighbourForged, "type {kind}: {options:?}");
        }
    }
}

#[test]
fn discovery_comes_from_the_link_and_whole() {
    let world = pod();
    for kind in 133..=137 {
        let near = world.packet(&message(kind).bytes(Ingress), Ingress).reason;
        assert_eq!(near, Reason::Neighbour, "type {kind} from the link");
        for direction in [Ingress, Egress] {
            let far = Message { hop_limit: 254, ..message(kind) }.bytes(direction);
            assert_eq!(
                world.packet(&far, direction).reason,
                Reason::NeighbourForged,
                "type {kind} from afar"
            );
        }
    }
    // The first of two fragments (RFC 6980).
    let whole = message(ADVERTISEMENT).bytes(Egress);
    let mut first = whole[..54].to_vec();
    first[20] = 44;
    first[19] += 8;
    first.extend([58, 0, 0, 1, 0, 0, 0, 9]);
    first.extend(&whole[54..]);
    assert_eq!(world.packet(&first, Egress).reason, Reason::NeighbourForged);
}

#[test]
fn neighbours_are_heard_by_an_isolated_pod() {
    let [_, world] = World::both();
    for kind in [133, ROUTER_ADVERTISEMENT, SOLICITATION, ADVERTISEMENT, REDIRECT] {
        let heard = Message { source: "fe80::1", ..message(kind) }.bytes(Ingress);
        assert_eq!(world.packet(&heard, Ingress).reason, Reason::Neighbour, "type {kind}");
    }
    for kind in [133, SOLICITATION, ADVERTISEMENT] {
        assert_eq!(message(kind).sent(&world), Reason::Neighbour, "type {kind}");
    }
}

#[test]
fn listeners_report_within_the_link_and_to_no_pod() {
    let [_, mut world] = World::both();
    let report = |direction, to: &str, hop_limit| {
        let mut bytes = packet(direction, (six(OWN_LINK_LOCAL).into(), six(to).into()), 58, &[143; 28]);
        bytes[21] = hop_limit;
        bytes
    };
    let sent = |world: &World, to, hop_limit| world.packet(&report(Egress, to, hop_limit), Egress).reason;
    for isolated in [true, false] {
        assert_eq!(sent(&world, "ff02::16", 1), Reason::Neighbour);
        assert_eq!(sent(&world, "ff02::16", 2), Reason::NeighbourForged);
        assert_eq!(sent(&world, "fd00::3", 1), Reason::NeighbourForged, "no way to another pod");
        assert_eq!(sent(&world, "ff05::16", 1), Reason::NeighbourForged);
        let into = world.packet(&report(Ingress, "ff02::16", 1), Ingress).reason;
        assert_eq!(into, if isolated { Reason::DefaultDeny } else { Reason::NotIsolated });
        world.open_up();
    }
}
