//! Row A1 over a veth: fragments that overlap, of which one says that the datagram is allowed and another that it is not. What
//! becomes of them is the receiver's matter: here that of the kernel that puts them together. Needs root.

use cellwall_policy::flow::Direction;

use super::fragments::{Piece, frame};
use super::rig::Rig;
use super::veth::on_thread;

const ALLOWED: u16 = 53;
const DENIED: u16 = 54;
/// Of a datagram, its header included; in IPv6 options may stand before it.
const LENGTH: usize = 40;
const UDP: u8 = 17;
const OPTIONS: u8 = 60;

/// A UDP datagram to a port, behind `before`.
fn datagram(before: &[u8], port: u16) -> Vec<u8> {
    let length = u16::try_from(LENGTH).expect("small").to_be_bytes();
    let udp = [40_000_u16.to_be_bytes(), port.to_be_bytes(), length, [0; 2]].concat();
    [before, &udp, &[7; LENGTH - 8]].concat()
}

/// Fragments in the order in which a sender would send them: where each begins and ends, in bytes, and whose port it has.
struct Case {
    name: &'static str,
    protocol: u8,
    pieces: &'static [(usize, usize, u16)],
}

/// Two parts, of which nothing overlaps. What is allowed is delivered in any order, but for a later fragment that comes first
/// and says only that options follow: whose they are it does not say.
const WHOLE: [Case; 2] = [
    Case { name: "no overlap", protocol: UDP, pieces: &[(0, 16, ALLOWED), (16, LENGTH, ALLOWED)] },
    Case {
        name: "no overlap behind options",
        protocol: OPTIONS,
        pieces: &[(0, 24, ALLOWED), (24, LENGTH + 8, ALLOWED)],
    },
];

/// The port is in the first eight bytes, so what overwrites it is a first fragment itself, or stands behind options (IPv6).
const OVERLAPS: [Case; 6] = [
    Case {
        name: "a second first, as long",
        protocol: UDP,
        pieces: &[(0, 16, ALLOWED), (0, 16, DENIED), (16, LENGTH, ALLOWED)],
    },
    Case {
        name: "a second first, longer",
        protocol: UDP,
        pieces: &[(0, 16, ALLOWED), (0, 24, DENIED), (16, LENGTH, ALLOWED)],
    },
    Case {
        name: "a second first, shorter",
        protocol: UDP,
        pieces: &[(0, 24, ALLOWED), (0, 8, DENIED), (24, LENGTH, ALLOWED)],
    },
    Case {
        name: "a second first that is all",
        protocol: UDP,
        pieces: &[(0, 16, ALLOWED), (0, 32, DENIED), (32, LENGTH, ALLOWED)],
    },
    Case {
        name: "a later one over the port behind options",
        protocol: OPTIONS,
        pieces: &[(0, 24, ALLOWED), (8, 32, DENIED), (32, LENGTH + 8, ALLOWED)],
    },
    Case {
        name: "a last one over the port behind options",
        protocol: OPTIONS,
        pieces: &[(0, 24, ALLOWED), (8, LENGTH + 8, DENIED)],
    },
];

impl Case {
    /// The fragments of one datagram, each with the number of the one that is sent.
    fn frames(&self, rig: &Rig, at: (usize, Direction), id: u32, swapped: bool) -> Vec<Vec<u8>> {
        // Destination options without an option, before UDP.
        let before: &[u8] = if self.protocol == OPTIONS { &[UDP, 0, 1, 4, 0, 0, 0, 0] } else { &[] };
        let whole = |port| datagram(before, port);
        let end = whole(ALLOWED).len();
        let piece = |&(from, to, port): &(usize, usize, u16)| {
            let port = if swapped { ALLOWED + DENIED - port } else { port };
            let bytes = &whole(port)[from..to];
            let offset = u16::try_from(from / 8).expect("small");
            frame(&rig.place, at, id, &Piece { offset, more: to != end, protocol: self.protocol, bytes })
        };
        self.pieces.iter().map(piece).collect()
    }

    /// Sends the datagram with its fragments in every order; how many arrive at the allowed port, and at the other.
    fn delivered(&self, rig: &mut Rig, at: (usize, Direction), id: &mut u32, swapped: bool) -> [usize; 2] {
        let mut counts = [0; 2];
        for order in orders(self.pieces.len()) {
            *id += 1;
            let frames = self.frames(rig, at, *id, swapped);
            let frames: Vec<Vec<u8>> = order.iter().map(|n| frames[*n].clone()).collect();
            rig.send(at.1, &frames);
            let receiver = if at.1 == Direction::Ingress { &rig.pod } else { &rig.world };
            for got in receiver.sockets.delivered().iter().filter(|got| got.protocol == UDP) {
                let port = u16::from_be_bytes([got.payload[2], got.payload[3]]);
                counts[usize::from(port == DENIED)] += 1;
                assert!(port == ALLOWED || port == DENIED, "{port}");
            }
        }
        counts
    }
}

/// All orders of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(count - 1);
    let with = |order: &Vec<usize>, at: usize| {
        let mut order = order.clone();
        order.insert(at, count - 1);
        order
    };
    shorter.iter().flat_map(|order| (0..count).map(move |at| with(order, at))).collect()
}

fn of_family(cases: &[Case], family: usize) -> impl Iterator<Item = &Case> {
    cases.iter().filter(move |case| family == 1 || case.protocol == UDP)
}

#[test]
fn overlapping_fragments_deliver_nothing_that_is_denied() {
    on_thread(|| {
        let mut id = 0;
        for direction in Direction::ALL {
            let mut rig = Rig::new(true);
            for family in 0..2 {
                let at = (family, direction);
                for case in of_family(&WHOLE, family) {
                    let all = if case.protocol == UDP { 2 } else { 1 };
                    let name = case.name;
                    let allowed = case.delivered(&mut rig, at, &mut id, false);
                    assert_eq!(allowed, [all, 0], "{direction:?}, {family}: {name}, all of it allowed");
                    let denied = case.delivered(&mut rig, at, &mut id, true);
                    assert_eq!(denied, [0; 2], "{direction:?}, {family}: {name}, all of it denied");
                }
                for case in of_family(&OVERLAPS, family) {
                    for swapped in [false, true] {
                        let [allowed, denied] = case.delivered(&mut rig, at, &mut id, swapped);
                        println!(
                            "{direction:?}, IPv{}, {}: {allowed} allowed ones",
                            4 + 2 * family,
                            case.name
                        );
                        assert_eq!(denied, 0, "{direction:?}, {family}: {}, swapped: {swapped}", case.name);
                    }
                }
            }
            // Without the programs the same fragments deliver what is denied, in some order.
            let ifindex = rig.ifindex;
            rig.datapath.detach(ifindex).expect("it was attached");
            for family in 0..2 {
                let mut all = 0;
                for case in of_family(&OVERLAPS, family) {
                    let [allowed, denied] = case.delivered(&mut rig, (family, direction), &mut id, false);
                    all += denied;
                    println!(
                        "{direction:?}, IPv{}, {}, without the programs: {allowed} to the allowed port, {denied} to the other",
                        4 + 2 * family,
                        case.name
                    );
                }
                assert!(all > 0, "{direction:?}, {family}: no order of fragments delivers anything denied");
            }
        }
    });
}
