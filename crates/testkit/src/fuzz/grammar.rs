//! Frames from a grammar: mostly whole, each class odd in its own way.

use core::net::IpAddr;

use cellwall_policy::flow::Direction;

use super::layers::{PROTOCOLS, chain, ipv4, ipv6, options4, ports, transport};
use crate::objects::Rng;

/// What is odd about a frame; the rows of `docs/robustness.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Nothing, and everything a little.
    Any,
    /// A1.
    Fragments,
    /// A2.
    Options,
    /// A3.
    Chains,
    /// A4.
    Cuts,
    /// A6.
    EtherTypes,
    /// A7 and A8.
    Sources,
    /// A9, and ARP.
    Neighbours,
    /// A10.
    Icmp,
    /// A11.
    Tunnels,
    /// A12.
    Sctp,
    /// A13.
    Groups,
    /// B1 and B2.
    Scans,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Any,
        Self::Fragments,
        Self::Options,
        Self::Chains,
        Self::Cuts,
        Self::EtherTypes,
        Self::Sources,
        Self::Neighbours,
        Self::Icmp,
        Self::Tunnels,
        Self::Sctp,
        Self::Groups,
        Self::Scans,
    ];
}

/// Who is there: each list is IPv4, then IPv6.
#[derive(Clone, Debug)]
pub struct Place {
    /// The pod's addresses.
    pub pod: [IpAddr; 2],
    /// Addresses that are asked about: peers of the pod and others, none of them in its own words.
    pub remotes: [Vec<IpAddr>; 2],
    /// Ethernet address of the pod.
    pub pod_mac: [u8; 6],
    /// Ethernet address of whoever is on the other side.
    pub other_mac: [u8; 6],
}

/// Addresses that say something about themselves.
const ODD: [[&str; 9]; 2] = [
    [
        "127.0.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "169.254.1.1",
        "0.1.2.3",
        "224.0.0.251",
        "10.244.0.255",
        "240.0.0.1",
    ],
    [
        "::1",
        "::",
        "ff02::1",
        "fe80::1",
        "::ffff:10.244.1.2",
        "ff02::16",
        "ff02::fb",
        "fe80::ff:fe00:2",
        "::10.0.0.1",
    ],
];

fn odd(rng: &mut Rng, family: usize) -> IpAddr {
    rng.pick(&ODD[family]).parse().expect("an address")
}

/// A frame of a class through the hook of a direction.
#[must_use]
pub fn generate(rng: &mut Rng, class: Class, place: &Place, direction: Direction) -> Vec<u8> {
    let family = match class {
        Class::Options => 0,
        Class::Chains => 1,
        _ => rng.below(2),
    };
    if (class == Class::Neighbours && rng.percent(30)) || rng.percent(1) {
        return arp(rng, place, direction);
    }
    let ends = ends(rng, class, place, direction, family);
    let protocol = protocol(rng, class, family);
    let ports = ports(rng);
    // What an error is about went the other way, and may be about something.
    let quoted_transport = transport(rng, 17, (ports.1, ports.0), &[]);
    let quoted = match family {
        0 => {
            [ipv4((ends.1, ends.0), (17, 64), [0; 4], &[], quoted_transport.len()), quoted_transport].concat()
        }
        _ => [ipv6((ends.1, ends.0), 17, 64, quoted_transport.len()), quoted_transport].concat(),
    };
    let discovery = neighbour(rng, class, place, direction, (ends.0, ends.1));
    let payload = discovery.unwrap_or_else(|| transport(rng, protocol, ports, &quoted));
    let on_link = class == Class::Neighbours || rng.percent(2);
    let hops = if on_link { *rng.pick(&[255, 255, 255, 1, 1, 64]) } else { 64 };
    let network = match family {
        0 => packet4(rng, class, ends, (protocol, hops), payload),
        _ => packet6(rng, class, ends, (protocol, hops), payload),
    };
    let mut frame = ethernet(rng, class, place, direction, family);
    frame.extend(network);
    if class == Class::Cuts || rng.percent(1) {
        cut(rng, &mut frame);
    }
    frame
}

fn ends(rng: &mut Rng, class: Class, place: &Place, direction: Direction, family: usize) -> (IpAddr, IpAddr) {
    let mut pod = place.pod[family];
    let mut remote = *rng.pick(&place.remotes[family]);
    let share = if class == Class::Sources { 70 } else { 1 };
    if rng.percent(share) {
        let forged = if rng.percent(50) { odd(rng, family) } else { *rng.pick(&place.remotes[family]) };
        if rng.percent(70) == (direction == Direction::Egress) { pod = forged } else { remote = forged }
    }
    if class == Class::Groups && rng.percent(80) || class == Class::Neighbours && rng.percent(30) {
        let group = odd(rng, family);
        if direction == Direction::Egress { remote = group } else { pod = group }
    }
    if class == Class::Neighbours && family == 1 && rng.percent(40) {
        let local = link_local(if rng.percent(50) { place.pod_mac } else { place.other_mac });
        if direction == Direction::Egress { pod = local } else { remote = local }
    }
    if direction == Direction::Egress { (pod, remote) } else { (remote, pod) }
}

/// The link-local address that a kernel makes of an Ethernet address (RFC 4291, appendix A).
#[must_use]
pub fn link_local(mac: [u8; 6]) -> IpAddr {
    let words =
        [[mac[0] ^ 2, mac[1]], [mac[2], 0xff], [0xfe, mac[3]], [mac[4], mac[5]]].map(u16::from_be_bytes);
    std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, words[0], words[1], words[2], words[3]).into()
}

fn protocol(rng: &mut Rng, class: Class, family: usize) -> u8 {
    let icmp = if family == 0 { 1 } else { 58 };
    match class {
        Class::Icmp | Class::Neighbours => icmp,
        Class::Tunnels => *rng.pick(&[4, 41, 47, 50, 51, 97, 115, 17]),
        Class::Sctp => 132,
        Class::Scans => 6,
        Class::Groups => *rng.pick(&[17, 17, 2, icmp]),
        Class::Fragments | Class::Chains | Class::Options => *rng.pick(&[6, 17, 17, 132, icmp, 47]),
        _ => *rng.pick(&PROTOCOLS),
    }
}

/// A message of neighbour discovery, sometimes.
fn neighbour(
    rng: &mut Rng,
    class: Class,
    place: &Place,
    direction: Direction,
    (source, destination): (IpAddr, IpAddr),
) -> Option<Vec<u8>> {
    if class != Class::Neighbours || source.is_ipv4() {
        return None;
    }
    let mut bytes = vec![*rng.pick(&[133, 134, 135, 136, 136, 137, 130, 131, 143]), 0, 0, 0, 0, 0, 0, 0];
    let targets =
        [source, destination, place.pod[1], link_local(place.pod_mac), *rng.pick(&place.remotes[1])];
    if let (true, IpAddr::V6(target)) = (bytes[0] != 133, *rng.pick(&targets)) {
        bytes.extend(target.octets());
    }
    for _ in 0..rng.below(3) {
        let own = (direction == Direction::Egress) != rng.percent(20);
        let mac = if own { place.pod_mac } else { place.other_mac };
        bytes.extend([*rng.pick(&[1, 2, 14]), u8::from(rng.percent(95))]);
        bytes.extend(mac);
    }
    Some(bytes)
}

fn packet4(
    rng: &mut Rng,
    class: Class,
    ends: (IpAddr, IpAddr),
    (protocol, hops): (u8, u8),
    payload: Vec<u8>,
) -> Vec<u8> {
    let options = if class == Class::Options || rng.percent(2) { options4(rng) } else { vec![] };
    let mut id = [0; 4];
    if class == Class::Fragments || rng.percent(1) {
        let offset = *rng.pick(&[0, 0, 0, 1, 2, 3, 185]);
        let more = if rng.percent(60) { 0x20 } else { 0 };
        id = [0, u8::try_from(rng.below(16)).expect("a byte"), more, offset];
    }
    let mut bytes = ipv4(ends, (protocol, hops), id, &options, payload.len());
    if class == Class::Options && rng.percent(10) {
        bytes[0] = 0x40 | u8::try_from(rng.below(16)).expect("half a byte");
    }
    bytes.extend(payload);
    bytes
}

fn packet6(
    rng: &mut Rng,
    class: Class,
    ends: (IpAddr, IpAddr),
    (protocol, hops): (u8, u8),
    payload: Vec<u8>,
) -> Vec<u8> {
    let count = if class == Class::Chains { rng.below(13) } else { usize::from(rng.percent(4)) };
    let is_fragment = class == Class::Fragments || rng.percent(1);
    let fragment = is_fragment.then(|| {
        let offset = *rng.pick(&[0_u16, 0, 0, 1, 2, 3, 185]);
        let [high, low] = (offset << 3 | u16::from(rng.percent(60))).to_be_bytes();
        [0, 0, high, low, 0, 0, 0, u8::try_from(rng.below(16)).expect("a byte")]
    });
    let (next, headers) = chain(rng, count, protocol, fragment);
    let mut bytes = ipv6(ends, next, hops, headers.len() + payload.len());
    bytes.extend(headers);
    bytes.extend(payload);
    bytes
}

fn ethernet(rng: &mut Rng, class: Class, place: &Place, direction: Direction, family: usize) -> Vec<u8> {
    let (mut from, mut to) = if direction == Direction::Egress {
        (place.pod_mac, place.other_mac)
    } else {
        (place.other_mac, place.pod_mac)
    };
    let odd = if matches!(class, Class::Sources | Class::EtherTypes) { 20 } else { 1 };
    if rng.percent(odd) {
        from = *rng.pick(&[place.other_mac, place.pod_mac, [2, 9, 9, 9, 9, 9]]);
    }
    if rng.percent(odd) || class == Class::Groups {
        to = *rng.pick(&[[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1], [2, 9, 9, 9, 9, 9], to]);
    }
    let mut bytes = [to, from].concat();
    if class == Class::EtherTypes || rng.percent(1) {
        for _ in 0..rng.below(3) {
            bytes.extend(rng.pick(&[[0x81, 0], [0x88, 0xa8]]));
            bytes.extend([*rng.pick(&[0, 0, 0x60, 1]), u8::from(rng.percent(20))]);
        }
        let other = [
            [0x08, 0x00],
            [0x86, 0xdd],
            [0x08, 0x06],
            [0x88, 0x47],
            [0x88, 0x63],
            [0x88, 0x64],
            [0x88, 0xcc],
            [0, 38],
            [0x80, 0x35],
            [0x12, 0x34],
        ];
        if rng.percent(60) {
            bytes.extend(rng.pick(&other));
            return bytes;
        }
    }
    bytes.extend([[0x08, 0x00], [0x86, 0xdd]][family]);
    bytes
}

/// RFC 826; from the pod mostly about itself.
fn arp(rng: &mut Rng, place: &Place, direction: Direction) -> Vec<u8> {
    let mut bytes = ethernet(rng, Class::Any, place, direction, 0);
    bytes.truncate(12);
    bytes.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, *rng.pick(&[1, 2])]);
    let own = direction == Direction::Egress;
    bytes.extend(if own == rng.percent(15) { place.other_mac } else { place.pod_mac });
    let sender = if own == rng.percent(15) { *rng.pick(&place.remotes[0]) } else { place.pod[0] };
    if let IpAddr::V4(sender) = sender {
        bytes.extend(if rng.percent(10) { [0; 4] } else { sender.octets() });
    }
    bytes.extend([0; 10]);
    bytes
}

/// Too short, or with a length that is not the packet's.
fn cut(rng: &mut Rng, frame: &mut Vec<u8>) {
    let at = if frame.get(12) == Some(&0x86) { 18 } else { 16 };
    if rng.percent(50) {
        frame.truncate(rng.between(14, frame.len().max(15)));
    }
    if rng.percent(50) && frame.len() > at + 1 {
        let length = u16::try_from(rng.below(frame.len() + 8)).expect("small");
        frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
    }
}
