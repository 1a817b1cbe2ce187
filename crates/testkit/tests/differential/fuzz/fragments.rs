//! Row A1 over a veth: datagrams in fragments, in every order, put together by the receiver's kernel. Needs root.

use cellwall_policy::flow::Direction;
use cellwall_testkit::frame::ethernet;
use cellwall_testkit::fuzz::Place;
use cellwall_testkit::objects::Rng;

use super::rig::Rig;
use super::veth::on_thread;
use crate::report::number;

/// 8 KiB in pieces that fit into an MTU.
const PIECE: usize = 1448;
const LENGTH: usize = 8192;
const DATAGRAMS: u64 = 400;

/// One fragment of what is sent.
pub(super) struct Piece<'a> {
    /// In eights of a byte.
    pub(super) offset: u16,
    /// More follow.
    pub(super) more: bool,
    /// What the datagram begins with; of IPv6 the next header.
    pub(super) protocol: u8,
    pub(super) bytes: &'a [u8],
}

/// The frame of a fragment, from a remote address to the pod or back.
pub(super) fn frame(
    place: &Place,
    (family, direction): (usize, Direction),
    id: u32,
    piece: &Piece<'_>,
) -> Vec<u8> {
    let (pod, friend) = (place.pod[family], place.remotes[family][0]);
    let (ends, macs) = match direction {
        Direction::Ingress => ((friend, pod), [place.pod_mac, place.other_mac]),
        Direction::Egress => ((pod, friend), [place.other_mac, place.pod_mac]),
    };
    let ether_type = if family == 0 { 0x0800 } else { 0x86dd };
    let mut frame = ethernet(direction, ether_type, &network(ends, id, piece));
    frame[..12].copy_from_slice(&macs.concat());
    frame
}

/// A UDP datagram in fragments.
fn fragments(place: &Place, family: usize, direction: Direction, port: u16, id: u32) -> Vec<Vec<u8>> {
    let length = u16::try_from(LENGTH + 8).expect("small").to_be_bytes();
    let mut datagram = [40_000_u16.to_be_bytes(), port.to_be_bytes(), length, [0; 2]].concat();
    datagram.extend(id.to_be_bytes());
    datagram.resize(LENGTH + 8, 7);
    let pieces: Vec<&[u8]> = datagram.chunks(PIECE).collect();
    let piece = |(number, bytes): (usize, &&[u8])| {
        let offset = u16::try_from(number * PIECE / 8).expect("small");
        let piece = Piece { offset, more: number + 1 != pieces.len(), protocol: 17, bytes };
        frame(place, (family, direction), id, &piece)
    };
    pieces.iter().enumerate().map(piece).collect()
}

fn network(ends: (std::net::IpAddr, std::net::IpAddr), id: u32, piece: &Piece<'_>) -> Vec<u8> {
    use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header};
    let Piece { more, bytes, .. } = *piece;
    let offset = IpFragOffset::try_new(piece.offset).expect("thirteen bits");
    let length = u16::try_from(bytes.len()).expect("small");
    let protocol = IpNumber(piece.protocol);
    match ends {
        (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) => {
            let mut header =
                Ipv4Header::new(length, 64, protocol, from.octets(), to.octets()).expect("small");
            header.identification = u16::try_from(id & 0xffff).expect("sixteen bits");
            header.dont_fragment = false;
            header.more_fragments = more;
            header.fragment_offset = offset;
            header.header_checksum = header.calc_header_checksum();
            [header.to_bytes().as_slice(), bytes].concat()
        }
        (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) => {
            let header = Ipv6Header {
                payload_length: length + 8,
                next_header: IpNumber::IPV6_FRAGMENTATION_HEADER,
                hop_limit: 64,
                source: from.octets(),
                destination: to.octets(),
                ..Ipv6Header::default()
            };
            let fragment = Ipv6FragmentHeader::new(protocol, offset, more, id);
            [&header.to_bytes()[..], &fragment.to_bytes()[..], bytes].concat()
        }
        _ => unreachable!("one family"),
    }
}

/// Of `count` datagrams those that a socket got, whole.
fn delivered(
    rig: &mut Rig,
    direction: Direction,
    port: u16,
    order: fn(&mut Rng, &mut [Vec<u8>]),
    count: u64,
) -> u64 {
    let mut rng = Rng::new(9);
    let mut whole = 0;
    let mut number = 0;
    while number < count {
        let mut frames = Vec::new();
        for _ in 0..16.min(count - number) {
            let family = usize::from(number % 2 == 1);
            let id = u32::try_from(number % 60_000 + 1).expect("small") + u32::from(port);
            let mut datagram = fragments(&rig.place, family, direction, port, id);
            order(&mut rng, &mut datagram);
            frames.extend(datagram);
            number += 1;
        }
        rig.send(direction, &frames);
        let receiver = if direction == Direction::Ingress { &rig.pod } else { &rig.world };
        let got = receiver.sockets.delivered();
        whole += got.iter().filter(|d| d.protocol == 17 && d.payload.len() == LENGTH + 8).count() as u64;
    }
    whole
}

#[test]
fn fragments_are_delivered_with_their_first_and_without_it_never() {
    let count = number("CELLWALL_DATAGRAMS", DATAGRAMS);
    on_thread(|| {
        for direction in Direction::ALL {
            let mut rig = Rig::new(true);
            let in_order: fn(&mut Rng, &mut [Vec<u8>]) = |_, _| {};
            let reversed: fn(&mut Rng, &mut [Vec<u8>]) = |_, frames| frames.reverse();
            let mixed: fn(&mut Rng, &mut [Vec<u8>]) = |rng, frames| rng.shuffle(frames);
            for (name, order) in [("in order", in_order), ("reversed", reversed), ("mixed", mixed)] {
                let allowed = delivered(&mut rig, direction, 53, order, count);
                let denied = delivered(&mut rig, direction, 54, order, count);
                println!(
                    "{direction:?}, {name}: {allowed} of {count} allowed datagrams, {denied} denied ones"
                );
                assert_eq!((allowed, denied), (count, 0), "{direction:?}, {name}");
            }
            // Whoever is denied sees his datagrams arrive where nothing is isolated.
            drop(rig);
            let mut open = Rig::new(false);
            assert_eq!(delivered(&mut open, direction, 54, mixed, 20), 20);
        }
    });
}
