//! One connection as nf_conntrack describes it.

use std::net::{IpAddr, SocketAddr};

use crate::netlink::Attributes;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;

const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;

const IP_V4_SOURCE: u16 = 1;
const IP_V4_DESTINATION: u16 = 2;
const IP_V6_SOURCE: u16 = 3;
const IP_V6_DESTINATION: u16 = 4;

const PROTO_NUMBER: u16 = 1;
const PROTO_SOURCE_PORT: u16 = 2;
const PROTO_DESTINATION_PORT: u16 = 3;

const PROTOINFO_TCP: u16 = 1;
const TCP_STATE: u16 = 1;
const TCP_FLAGS_ORIGINAL: u16 = 4;
const TCP_FLAGS_REPLY: u16 = 5;

/// `IPS_SEEN_REPLY`.
pub(super) const SEEN_REPLY: u32 = 1 << 1;
/// `IPS_ASSURED`: for TCP and SCTP, the handshake is complete.
pub(super) const ASSURED: u32 = 1 << 2;
/// `IPS_DYING`.
pub(super) const DYING: u32 = 1 << 9;

/// `TCP_CONNTRACK_ESTABLISHED`.
pub(super) const TCP_ESTABLISHED: u8 = 3;
/// `TCP_CONNTRACK_LAST_ACK`.
pub(super) const TCP_LAST_ACK: u8 = 6;
/// `IP_CT_TCP_FLAG_BE_LIBERAL`.
pub(super) const TCP_LIBERAL: u8 = 8;

/// Addresses and ports of the packets of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuple {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) protocol: u8,
}

/// What nf_conntrack says of TCP alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tcp {
    /// `TCP_CONNTRACK_*`.
    pub(super) state: u8,
    /// `IP_CT_TCP_FLAG_*` of both sides.
    pub(super) flags: u8,
}

/// A connection. The tuples are those of the packets that arrive, before addresses are translated, in either
/// direction: without translation `reply` is `original` the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) original: Tuple,
    pub(super) reply: Tuple,
    /// `IPS_*`.
    pub(super) status: u32,
    pub(super) tcp: Option<Tcp>,
}

impl Entry {
    /// Reads the attributes of a message. `None` for a protocol without ports, and for whatever is not whole.
    pub(super) fn read(attributes: &[u8]) -> Option<Self> {
        let (mut original, mut reply, mut status, mut tcp) = (None, None, None, None);
        for (kind, content) in Attributes(attributes) {
            match kind {
                TUPLE_ORIGINAL => original = tuple(content),
                TUPLE_REPLY => reply = tuple(content),
                STATUS => status = content.try_into().ok().map(u32::from_be_bytes),
                PROTOINFO => tcp = attribute(content, PROTOINFO_TCP).and_then(read_tcp),
                _ => {}
            }
        }
        let (original, reply) = (original?, reply?);
        let alike =
            original.protocol == reply.protocol && original.source.is_ipv4() == reply.source.is_ipv4();
        alike.then_some(Self { original, reply, status: status?, tcp })
    }
}

fn attribute(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    Attributes(attributes).find(|(kind, _)| *kind == wanted).map(|(_, content)| content)
}

fn tuple(content: &[u8]) -> Option<Tuple> {
    let (ip, proto) = (attribute(content, TUPLE_IP)?, attribute(content, TUPLE_PROTO)?);
    let (source, destination) = addresses(ip)?;
    let port = |kind| attribute(proto, kind)?.try_into().ok().map(u16::from_be_bytes);
    Some(Tuple {
        source: SocketAddr::new(source, port(PROTO_SOURCE_PORT)?),
        destination: SocketAddr::new(destination, port(PROTO_DESTINATION_PORT)?),
        protocol: *attribute(proto, PROTO_NUMBER)?.first()?,
    })
}

/// Source and destination, of one family.
fn addresses(ip: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |kind| Some(IpAddr::from(<[u8; 4]>::try_from(attribute(ip, kind)?).ok()?));
    let v6 = |kind| Some(IpAddr::from(<[u8; 16]>::try_from(attribute(ip, kind)?).ok()?));
    v4(IP_V4_SOURCE).zip(v4(IP_V4_DESTINATION)).or_else(|| v6(IP_V6_SOURCE).zip(v6(IP_V6_DESTINATION)))
}

fn read_tcp(content: &[u8]) -> Option<Tcp> {
    let first = |kind| attribute(content, kind)?.first().copied();
    // Of each side: flags, and which of them a writer means.
    let flags = [TCP_FLAGS_ORIGINAL, TCP_FLAGS_REPLY].into_iter().filter_map(first);
    Some(Tcp { state: first(TCP_STATE)?, flags: flags.fold(0, |all, side| all | side) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::Body;

    /// Attributes without a fixed part.
    fn attributes(all: &[(u16, &[u8])]) -> Vec<u8> {
        let none: [u8; 0] = [];
        let body = all.iter().fold(Body::new(&none), |body, (kind, content)| body.with(*kind, content));
        body.bytes().to_vec()
    }

    /// As the kernel sends it: `NLA_F_NESTED` on what holds attributes.
    const NESTED: u16 = 0x8000;

    fn tuple_bytes(ends: [SocketAddr; 2], protocol: u8) -> Vec<u8> {
        let octets = |address| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let first = if ends[0].is_ipv4() { IP_V4_SOURCE } else { IP_V6_SOURCE };
        let ip = attributes(&[(first, &octets(ends[0].ip())), (first + 1, &octets(ends[1].ip()))]);
        let proto = attributes(&[
            (PROTO_NUMBER, &[protocol]),
            (PROTO_SOURCE_PORT, &ends[0].port().to_be_bytes()),
            (PROTO_DESTINATION_PORT, &ends[1].port().to_be_bytes()),
        ]);
        attributes(&[(TUPLE_IP | NESTED, &ip), (TUPLE_PROTO | NESTED, &proto)])
    }

    fn bytes(a: &str, b: &str) -> Vec<u8> {
        let [a, b] = [a, b].map(|text| text.parse().expect("an address and a port"));
        let tcp = attributes(&[(TCP_STATE, &[3]), (TCP_FLAGS_ORIGINAL, &[3, 0]), (TCP_FLAGS_REPLY, &[8, 0])]);
        attributes(&[
            (TUPLE_ORIGINAL | NESTED, &tuple_bytes([a, b], 6)),
            (TUPLE_REPLY | NESTED, &tuple_bytes([b, a], 6)),
            // CTA_TIMEOUT and CTA_ID, which nobody reads.
            (7, &[0; 4]),
            (STATUS, &0x18e_u32.to_be_bytes()),
            (PROTOINFO | NESTED, &attributes(&[(PROTOINFO_TCP | NESTED, &tcp)])),
            (12, &[0; 4]),
        ])
    }

    #[test]
    fn an_entry_of_either_family_is_understood() {
        for (a, b) in [("10.0.0.2:4000", "10.0.0.3:80"), ("[fd00::2]:4000", "[fd00::3]:80")] {
            let entry = Entry::read(&bytes(a, b)).expect("it is whole");
            let [a, b]: [SocketAddr; 2] = [a, b].map(|text| text.parse().expect("an address"));
            assert_eq!(entry.original, Tuple { source: a, destination: b, protocol: 6 });
            assert_eq!(entry.reply, Tuple { source: b, destination: a, protocol: 6 });
            assert_eq!(entry.status, 0x18e);
            assert_eq!(entry.tcp, Some(Tcp { state: 3, flags: 11 }));
        }
    }

    #[test]
    fn what_is_cut_short_is_no_entry_or_says_less() {
        for (a, b) in [("10.0.0.2:4000", "10.0.0.3:80"), ("[fd00::2]:4000", "[fd00::3]:80")] {
            let whole = bytes(a, b);
            let entry = Entry::read(&whole).expect("it is whole");
            for length in 0..whole.len() {
                if let Some(cut) = Entry::read(&whole[..length]) {
                    let same =
                        (cut.original, cut.reply, cut.status) == (entry.original, entry.reply, entry.status);
                    assert!(same && (cut.tcp.is_none() || cut.tcp == entry.tcp), "{length}: {cut:?}");
                }
            }
        }
    }

    #[test]
    fn what_contradicts_itself_is_no_entry() {
        let ends = |a: &str, b: &str| [a, b].map(|text| text.parse().expect("an address and a port"));
        let v4 = ends("10.0.0.2:4000", "10.0.0.3:80");
        let v6 = ends("[fd00::2]:4000", "[fd00::3]:80");
        let status = (STATUS, &[0, 0, 0, 6][..]);
        let read = |original: &[u8], reply: &[u8], more: &[(u16, &[u8])]| {
            let tuples = [(TUPLE_ORIGINAL, original), (TUPLE_REPLY, reply)];
            Entry::read(&attributes(&[&tuples, more].concat()))
        };
        let (udp4, udp6) = (tuple_bytes(v4, 17), tuple_bytes(v6, 17));
        assert!(read(&udp4, &udp4, &[status]).is_some());
        assert_eq!(read(&udp4, &udp6, &[status]), None, "two families");
        assert_eq!(read(&udp4, &tuple_bytes(v4, 6), &[status]), None, "two protocols");
        assert_eq!(read(&udp4, &udp4, &[]), None, "no status");
        assert_eq!(read(&udp4, &udp4, &[(STATUS, &[6])]), None, "half a status");
        let short = attributes(&[
            (TUPLE_IP, &attributes(&[(IP_V4_SOURCE, &[10, 0, 0]), (IP_V4_DESTINATION, &[10, 0, 0, 3])])),
            (TUPLE_PROTO, &attributes(&[(PROTO_NUMBER, &[17])])),
        ]);
        assert_eq!(read(&short, &udp4, &[status]), None, "three quarters of an address");
        let icmp = attributes(&[
            (TUPLE_IP, &attributes(&[(IP_V4_SOURCE, &[10, 0, 0, 2]), (IP_V4_DESTINATION, &[10, 0, 0, 3])])),
            (TUPLE_PROTO, &attributes(&[(PROTO_NUMBER, &[1]), (4, &[0, 7]), (5, &[8]), (6, &[0])])),
        ]);
        assert_eq!(read(&icmp, &icmp, &[status]), None, "no ports");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Entry::read(&bytes);
        }

        #[test]
        fn a_whole_entry_with_a_wrong_byte_is_read_without_harm(at in 0_usize..200, byte: u8) {
            let mut bytes = bytes("10.0.0.2:4000", "10.0.0.3:80");
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Entry::read(&bytes);
        }
    }
}
