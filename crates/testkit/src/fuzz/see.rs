//! What a receiver makes of a frame. Written from the RFCs and from what Linux does, not from the decision.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// All of it.
    Whole,
    /// Offset 0, and more follow.
    First,
    /// Without the transport header.
    Later,
}

/// Why there is nothing to ask policy about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// Neither IPv4, IPv6 nor ARP.
    EtherType,
    /// Lengths, version or options that contradict each other, or an end before the headers are over.
    Broken,
    /// A chain of headers that is too long, goes by way of others, or ends in nothing.
    Chain,
    /// IPv4 source routing.
    Route,
}

/// A frame as its receiver sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// ARP, from behind the Ethernet header on.
    Arp(Vec<u8>),
    /// Nothing that policy could be asked about; source and destination if they can be told.
    Nothing(Why, Option<(IpAddr, IpAddr)>),
    /// A packet.
    Packet {
        /// Source.
        source: IpAddr,
        /// Destination.
        destination: IpAddr,
        /// TTL or hop limit.
        hops: u8,
        /// What is behind the headers of IP.
        protocol: u8,
        /// Which part of a datagram.
        part: Part,
        /// Of which datagram: the identification of IPv4, of IPv6 that of the fragment header or 0.
        id: u32,
        /// From the transport header to the end of the packet.
        payload: Vec<u8>,
    },
}

/// A frame as its receiver sees it. A VLAN tag is another ethertype here.
#[must_use]
pub fn see(frame: &[u8]) -> Seen {
    let Some(ether_type) = frame.get(12..14) else { return Seen::Nothing(Why::Broken, None) };
    let network = &frame[14..];
    match ether_type {
        [0x08, 0x06] => Seen::Arp(network.to_vec()),
        [0x08, 0x00] => see4(network).unwrap_or_else(|why| Seen::Nothing(why, addresses(network, 12, 4))),
        [0x86, 0xdd] => see6(network).unwrap_or_else(|why| Seen::Nothing(why, addresses(network, 8, 16))),
        _ => Seen::Nothing(Why::EtherType, None),
    }
}

fn addresses(network: &[u8], at: usize, size: usize) -> Option<(IpAddr, IpAddr)> {
    Some((address(network, at, size)?, address(network, at + size, size)?))
}

fn address(network: &[u8], at: usize, size: usize) -> Option<IpAddr> {
    let bytes = network.get(at..at + size)?;
    Some(match size {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
    })
}

fn word(bytes: &[u8], at: usize) -> Result<usize, Why> {
    let pair = bytes.get(at..at + 2).ok_or(Why::Broken)?;
    Ok(usize::from(pair[0]) << 8 | usize::from(pair[1]))
}

fn see4(network: &[u8]) -> Result<Seen, Why> {
    let first = *network.first().ok_or(Why::Broken)?;
    let header = usize::from(first & 15) * 4;
    let total = word(network, 2)?;
    if first >> 4 != 4 || header < 20 || total < header || total > network.len() {
        return Err(Why::Broken);
    }
    let packet = &network[..total];
    options4(&packet[20..header])?;
    let fragment = word(packet, 6)?;
    let part = part(fragment & 0x1fff, fragment & 0x2000 != 0);
    let (source, destination) = addresses(packet, 12, 4).ok_or(Why::Broken)?;
    let payload = packet[header..].to_vec();
    let (hops, protocol, id) = (packet[8], packet[9], u32::from(u16::from_be_bytes([packet[4], packet[5]])));
    let seen = Seen::Packet { source, destination, hops, protocol, part, id, payload };
    whole_header(seen, fragment & 0x1fff)
}

/// RFC 791, 3.1.
fn options4(mut options: &[u8]) -> Result<(), Why> {
    loop {
        match *options {
            [] | [0, ..] => return Ok(()),
            [1, ..] => options = &options[1..],
            [131 | 137, ..] => return Err(Why::Route),
            [_, length, ..] if length >= 2 => {
                options = options.get(usize::from(length)..).ok_or(Why::Broken)?;
            }
            [_, ..] => return Err(Why::Broken),
        }
    }
}

fn part(offset: usize, more: bool) -> Part {
    match (offset, more) {
        (0, false) => Part::Whole,
        (0, true) => Part::First,
        _ => Part::Later,
    }
}

fn see6(network: &[u8]) -> Result<Seen, Why> {
    if network.len() < 40 || network[0] >> 4 != 6 {
        return Err(Why::Broken);
    }
    let end = 40 + word(network, 4)?;
    let packet = network.get(..end).ok_or(Why::Broken)?;
    let (source, destination) = addresses(packet, 8, 16).ok_or(Why::Broken)?;
    let (mut next, mut at, mut offset, mut more, mut id) = (packet[6], 40, 0, false, 0);
    // Linux reads on for longer; more than eight nobody needs.
    for walked in 0..=8 {
        match next {
            0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 if walked == 8 => return Err(Why::Chain),
            44 => {
                let header = packet.get(at..at + 8).ok_or(Why::Broken)?;
                offset = word(header, 2)? >> 3;
                more = header[3] & 1 != 0;
                id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                (next, at) = (header[0], at + 8);
                if offset != 0 {
                    return packet6(packet, (source, destination), next, (offset, more, id), at);
                }
            }
            0 | 43 | 51 | 60 | 135 | 139 | 140 => {
                let header = packet.get(at..at + 4).ok_or(Why::Broken)?;
                if next == 43 && (header[2] == 0 || header[3] != 0) {
                    return Err(Why::Chain);
                }
                let length = usize::from(header[1]);
                at += if next == 51 { 4 * (length + 2) } else { 8 * (length + 1) };
                next = header[0];
            }
            59 => return Err(Why::Chain),
            _ => return packet6(packet, (source, destination), next, (offset, more, id), at),
        }
    }
    Err(Why::Chain)
}

fn packet6(
    packet: &[u8],
    (source, destination): (IpAddr, IpAddr),
    protocol: u8,
    (offset, more, id): (usize, bool, u32),
    at: usize,
) -> Result<Seen, Why> {
    let payload = packet.get(at..).ok_or(Why::Broken)?.to_vec();
    let part = part(offset, more);
    whole_header(Seen::Packet { source, destination, hops: packet[7], protocol, part, id, payload }, offset)
}

/// A transport header is whole, or where later fragments cannot reach it (RFC 3128).
fn whole_header(seen: Seen, offset: usize) -> Result<Seen, Why> {
    let Seen::Packet { protocol, part, ref payload, .. } = seen else { return Ok(seen) };
    let least = match protocol {
        6 => 20,
        132 => 16,
        1 | 17 | 58 => 8,
        _ => 0,
    };
    let is_fine = if part == Part::Later { protocol != 6 || offset > 1 } else { payload.len() >= least };
    if is_fine { Ok(seen) } else { Err(Why::Broken) }
}

#[cfg(test)]
mod tests {
    use cellwall_policy::flow::{Direction, Flow, Protocol};
    use etherparse::{NetSlice, SlicedPacket};

    use super::*;
    use crate::frame::opening;

    /// On packets as they should be, another's reader sees the same.
    #[test]
    fn another_reader_sees_the_same() {
        for (local, remote) in [("10.0.0.2", "192.0.2.9"), ("fd00::2", "2001:db8::9")] {
            let (local, remote): (IpAddr, IpAddr) =
                (local.parse().expect("an address"), remote.parse().expect("an address"));
            for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol(47)] {
                let direction = Direction::Egress;
                let flow = Flow { local, remote, direction, from_own_node: false, protocol, port: 80 };
                let bytes = opening(&flow);
                let read = SlicedPacket::from_ethernet(&bytes).expect("a packet");
                let (source, destination, payload): (IpAddr, IpAddr, _) = match read.net.expect("IP") {
                    NetSlice::Ipv4(ip) => (
                        ip.header().source_addr().into(),
                        ip.header().destination_addr().into(),
                        ip.payload().payload,
                    ),
                    NetSlice::Ipv6(ip) => (
                        ip.header().source_addr().into(),
                        ip.header().destination_addr().into(),
                        ip.payload().payload,
                    ),
                    NetSlice::Arp(_) => unreachable!("a flow"),
                };
                let theirs = Seen::Packet {
                    source,
                    destination,
                    hops: 64,
                    protocol: protocol.0,
                    part: Part::Whole,
                    id: 0,
                    payload: payload.to_vec(),
                };
                assert_eq!(see(&bytes), theirs);
            }
        }
    }
}
