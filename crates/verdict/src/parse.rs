//! From bytes to what policy asks about.
//!
//! Two readers with one result: [`simple`] takes what nearly every packet is (linear, no options, no fragment, TCP
//! or UDP) with three bounds checks, [`full`] takes everything, byte by byte where it must. What `simple` declines,
//! `full` decides.

use cellwall_abi::{Addr6, Be16, Be32, Family, Reason, V4, V6, planted};

use crate::header::{
    Extension6, Fragment6, ICMP, ICMPV6, Icmp, Ipv4, Ipv6, NETWORK, Ports, SCTP, Sctp, TCP, Tcp, UDP,
};
use crate::tables::{Packet, Step};

/// Most extension headers that are walked (legitimate packets have two or three).
pub const EXTENSIONS_MAX: u32 = 8;

/// Where in a datagram this packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// The first fragment: it has the transport header.
    First,
    /// A later fragment: no ports.
    Later,
}

/// What policy asks about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers<F: Family> {
    /// Source address.
    pub source: F::Addr,
    /// Destination address.
    pub destination: F::Addr,
    /// Source port; an ICMP echo's identifier; else 0.
    pub source_port: Be16,
    /// Destination port; an ICMP echo's identifier; else 0.
    pub destination_port: Be16,
    /// Protocol of the transport header.
    pub protocol: u8,
    /// TCP flags, the type of an ICMP message, or that of the first chunk of SCTP.
    pub flags: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Which part of its datagram.
    pub part: Part,
    /// Identification of the datagram, as loaded; only of fragments.
    pub id: u32,
    /// Offset of the transport header from the start of the frame.
    pub transport: u32,
    /// Where the packet ends by its own account, from the start of the frame.
    pub end: u32,
}

impl<F: Family> Headers<F> {
    /// True for the protocols of which rules name ports.
    #[inline(always)]
    pub const fn has_ports(&self) -> bool {
        matches!(self.protocol, TCP | UDP | SCTP)
    }

    /// Offset behind the least transport header that a receiver takes.
    #[inline(always)]
    pub const fn transport_end(&self) -> u32 {
        let length = match (self.part, self.protocol) {
            (Part::Later, _) => 0,
            (_, TCP) => 20,
            (_, SCTP) => 16,
            (_, UDP | ICMP | ICMPV6) => 8,
            _ => 0,
        };
        self.transport + length
    }

    /// The packet ends within the frame by its own account, and not before `end`, the offset behind what was read of
    /// it. A receiver drops every other packet; none passes on the strength of what stands behind its end.
    #[inline(always)]
    pub fn lengths_hold<P: Packet>(&self, packet: &P, end: u32) -> bool {
        packet.is_segmented() || (self.end <= packet.length() && self.end >= end)
    }
}

/// A family whose headers can be read.
pub trait Parse: Family {
    /// The common case, or `None`.
    fn simple<P: Packet>(packet: &P) -> Option<Headers<Self>>;
    /// Every case.
    ///
    /// # Errors
    /// Why the packet cannot be judged.
    fn full<P: Packet>(packet: &P) -> Result<Headers<Self>, Reason>;
    /// The packet quoted by an ICMP error, at `offset`: addresses, protocol and ports only. Its `end` is behind what was
    /// read.
    fn quoted<P: Packet>(packet: &P, offset: u32) -> Option<Headers<Self>>;
    /// Source and destination of a packet whose other headers may not be readable.
    fn addresses<P: Packet>(packet: &P) -> Option<(Self::Addr, Self::Addr)>;
    /// An address that no packet on a wire may come from or go to (RFC 1122, 3.2.1.3; RFC 4291, 2.5.2, 2.5.3 and
    /// 2.5.5: a socket takes IPv4 within IPv6 for IPv4).
    fn is_martian(address: Self::Addr) -> bool;
}

/// Ports and flags of a packet whose transport header is linear at `OFFSET`.
#[inline(always)]
fn simple_transport<P: Packet, const OFFSET: usize>(packet: &P, protocol: u8) -> Option<(Ports, u8)> {
    match protocol {
        TCP => packet.direct::<Tcp, OFFSET>().map(|tcp| (tcp.ports, tcp.flags)),
        UDP => packet.direct::<Ports, OFFSET>().map(|ports| (*ports, 0)),
        _ => None,
    }
}

/// Ports and flags of any transport header at `offset`.
#[inline(always)]
fn transport<P: Packet>(packet: &P, protocol: u8, offset: u32) -> Option<(Ports, u8)> {
    match protocol {
        TCP => packet.read::<Tcp>(offset).map(|tcp| (tcp.ports, tcp.flags)),
        UDP => packet.read::<[Ports; 2]>(offset).map(|header| (header[0], 0)),
        SCTP => packet.read::<Sctp>(offset).map(|sctp| (sctp.ports, sctp.chunk)),
        ICMP | ICMPV6 => packet
            .read::<Icmp>(offset)
            .map(|icmp| (Ports { source: icmp.id, destination: icmp.id }, icmp.kind)),
        _ => Some((Ports::default(), 0)),
    }
}

impl Parse for V4 {
    #[inline(always)]
    fn simple<P: Packet>(packet: &P) -> Option<Headers<Self>> {
        let ip = packet.direct::<Ipv4, { NETWORK as usize }>()?;
        // MF or an offset: a fragment. DF does not matter.
        if ip.version_length != 0x45 || ip.fragment.get() & 0x3fff != 0 {
            return None;
        }
        let (ports, flags) = simple_transport::<P, { NETWORK as usize + 20 }>(packet, ip.protocol)?;
        Some(Headers {
            source: ip.source,
            destination: ip.destination,
            source_port: ports.source,
            destination_port: ports.destination,
            protocol: ip.protocol,
            flags,
            hop_limit: ip.ttl,
            part: Part::Whole,
            id: 0,
            transport: NETWORK + 20,
            end: NETWORK + u32::from(ip.total_length.get()),
        })
    }

    #[inline(always)]
    fn full<P: Packet>(packet: &P) -> Result<Headers<Self>, Reason> {
        let ip = packet.read::<Ipv4>(NETWORK).ok_or(Reason::Truncated)?;
        let words = if planted("ihl-ignored") { 5 } else { ip.version_length & 15 };
        let header = u32::from(words) * 4;
        if ip.version_length >> 4 != 4 || header < 20 {
            return Err(Reason::Malformed);
        }
        if header > 20 && has_source_route(packet, header)? {
            return Err(Reason::SourceRoute);
        }
        let offset = u32::from(ip.fragment.get() & 0x1fff);
        let more = ip.fragment.get() & 0x2000 != 0;
        let mut headers = Headers {
            source: ip.source,
            destination: ip.destination,
            source_port: Be16::default(),
            destination_port: Be16::default(),
            protocol: ip.protocol,
            flags: 0,
            hop_limit: ip.ttl,
            part: part(offset, more),
            id: u32::from(ip.id.get()),
            transport: NETWORK + header,
            end: NETWORK + u32::from(ip.total_length.get()),
        };
        finish(packet, &mut headers, offset)?;
        Ok(headers)
    }

    #[inline(always)]
    fn quoted<P: Packet>(packet: &P, offset: u32) -> Option<Headers<Self>> {
        let ip = packet.read::<Ipv4>(offset)?;
        let header = u32::from(ip.version_length & 15) * 4;
        if ip.version_length >> 4 != 4 || header < 20 || ip.fragment.get() & 0x1fff != 0 {
            return None;
        }
        quoted(packet, ip.source, ip.destination, ip.protocol, offset + header)
    }

    #[inline(always)]
    fn addresses<P: Packet>(packet: &P) -> Option<(Be32, Be32)> {
        packet.read::<Ipv4>(NETWORK).map(|ip| (ip.source, ip.destination))
    }

    #[inline(always)]
    fn is_martian(address: Be32) -> bool {
        matches!(address.get() >> 24, 0 | 127)
    }
}

/// A walk over the options of an IPv4 header (RFC 791, 3.1).
#[derive(Clone, Copy)]
struct Options {
    /// Offset of the next option from the start of the frame.
    offset: u32,
    end: u32,
    result: Result<bool, Reason>,
}

impl Step for Options {
    #[inline(always)]
    fn step<P: Packet>(&mut self, packet: &P) -> bool {
        if self.offset >= self.end {
            return false;
        }
        let Some(kind) = packet.read::<u8>(self.offset) else {
            self.result = Err(Reason::Truncated);
            return false;
        };
        match kind {
            0 => return false,
            1 => {
                self.offset += 1;
                return true;
            }
            131 | 137 => {
                self.result = Ok(true);
                return false;
            }
            _ => {}
        }
        let left = self.end - self.offset;
        match packet.read::<u8>(self.offset + 1) {
            Some(length) if length >= 2 && u32::from(length) <= left => self.offset += u32::from(length),
            Some(_) => self.result = Err(Reason::Malformed),
            None => self.result = Err(Reason::Truncated),
        }
        self.result.is_ok()
    }
}

/// Whether the options of an IPv4 header have loose or strict source routing. 40 bytes are 40 options at most.
#[inline(always)]
fn has_source_route<P: Packet>(packet: &P, header: u32) -> Result<bool, Reason> {
    packet.walk(40, Options { offset: NETWORK + 20, end: NETWORK + header, result: Ok(false) }).result
}

impl Parse for V6 {
    #[inline(always)]
    fn simple<P: Packet>(packet: &P) -> Option<Headers<Self>> {
        let ip = packet.direct::<Ipv6, { NETWORK as usize }>()?;
        if ip.first.get() >> 28 != 6 {
            return None;
        }
        let (ports, flags) = simple_transport::<P, { NETWORK as usize + 40 }>(packet, ip.next)?;
        Some(Headers {
            source: ip.source,
            destination: ip.destination,
            source_port: ports.source,
            destination_port: ports.destination,
            protocol: ip.next,
            flags,
            hop_limit: ip.hop_limit,
            part: Part::Whole,
            id: 0,
            transport: NETWORK + 40,
            end: NETWORK + 40 + u32::from(ip.payload_length.get()),
        })
    }

    #[inline(always)]
    fn full<P: Packet>(packet: &P) -> Result<Headers<Self>, Reason> {
        let ip = packet.read::<Ipv6>(NETWORK).ok_or(Reason::Truncated)?;
        if ip.first.get() >> 28 != 6 {
            return Err(Reason::Malformed);
        }
        let chain = walk(packet, ip.next, NETWORK + 40)?;
        let mut headers = Headers {
            source: ip.source,
            destination: ip.destination,
            source_port: Be16::default(),
            destination_port: Be16::default(),
            protocol: chain.protocol,
            flags: 0,
            hop_limit: ip.hop_limit,
            part: part(chain.fragment_offset, chain.more),
            id: chain.id,
            transport: chain.offset,
            end: NETWORK + 40 + u32::from(ip.payload_length.get()),
        };
        finish(packet, &mut headers, chain.fragment_offset)?;
        Ok(headers)
    }

    #[inline(always)]
    fn quoted<P: Packet>(packet: &P, offset: u32) -> Option<Headers<Self>> {
        let ip = packet.read::<Ipv6>(offset)?;
        if ip.first.get() >> 28 != 6 {
            return None;
        }
        let chain = walk(packet, ip.next, offset + 40).ok()?;
        if chain.fragment_offset != 0 {
            return None;
        }
        quoted(packet, ip.source, ip.destination, chain.protocol, chain.offset)
    }

    #[inline(always)]
    fn addresses<P: Packet>(packet: &P) -> Option<(Addr6, Addr6)> {
        packet.read::<Ipv6>(NETWORK).map(|ip| (ip.source, ip.destination))
    }

    #[inline(always)]
    fn is_martian(address: Addr6) -> bool {
        address.word(0) | address.word(1) == 0 && matches!(address.word(2), 0 | 0xffff)
    }
}

/// A walk over the extension headers of IPv6 (RFC 8200, 4.1).
#[derive(Clone, Copy)]
struct Chain {
    protocol: u8,
    offset: u32,
    fragment_offset: u32,
    more: bool,
    id: u32,
    problem: Option<Reason>,
}

impl Step for Chain {
    #[inline(always)]
    fn step<P: Packet>(&mut self, packet: &P) -> bool {
        match self.protocol {
            // Hop-by-hop, routing, destination options, authentication, mobility, HIP, shim6.
            0 | 43 | 51 | 60 | 135 | 139 | 140 => {
                let Some(header) = packet.read::<Extension6>(self.offset) else {
                    self.problem = Some(Reason::Truncated);
                    return false;
                };
                // Type 0 (RFC 5095), and whatever has another destination than the one that is judged.
                let by_others = header.content[1] != 0 && !planted("routing-by-way-of-others");
                if self.protocol == 43 && (header.content[0] == 0 || by_others) {
                    self.problem = Some(Reason::Extension);
                    return false;
                }
                let length = u32::from(header.length);
                // Authentication counts in fours, less two (RFC 4302); all others in eights, less the first.
                let length = if planted("hip-is-short") && self.protocol == 139 { 0 } else { length };
                let in_fours = self.protocol == 51 && !planted("authentication-counts-in-eights");
                self.offset += if in_fours { (length + 2) * 4 } else { (length + 1) * 8 };
                self.protocol = header.next;
                true
            }
            44 => {
                let Some(header) = packet.read::<Fragment6>(self.offset) else {
                    self.problem = Some(Reason::Truncated);
                    return false;
                };
                self.protocol = header.next;
                self.offset += 8;
                self.fragment_offset = u32::from(header.offset.get() >> 3);
                self.more = header.offset.get() & 1 != 0;
                self.id = header.id.get();
                self.fragment_offset == 0 // What follows a later fragment's header is not a header.
            }
            59 => {
                self.problem = Some(Reason::Extension);
                false
            }
            _ => false,
        }
    }
}

#[inline(always)]
fn walk<P: Packet>(packet: &P, first: u8, offset: u32) -> Result<Chain, Reason> {
    let start = Chain { protocol: first, offset, fragment_offset: 0, more: false, id: 0, problem: None };
    let chain = packet.walk(EXTENSIONS_MAX, start);
    let is_later = chain.fragment_offset != 0;
    match (chain.problem, chain.protocol) {
        (Some(reason), _) => Err(reason),
        // One more than the walk takes would have to be a transport header.
        (None, 0 | 43 | 44 | 51 | 59 | 60 | 135 | 139 | 140) if !is_later => Err(Reason::Extension),
        _ => Ok(chain),
    }
}

#[inline(always)]
const fn part(fragment_offset: u32, more: bool) -> Part {
    match (fragment_offset, more) {
        (0, false) => Part::Whole,
        (0, true) => Part::First,
        _ => Part::Later,
    }
}

/// Reads the transport header, if this part of the datagram has it.
#[inline(always)]
fn finish<F: Family, P: Packet>(
    packet: &P,
    headers: &mut Headers<F>,
    fragment_offset: u32,
) -> Result<(), Reason> {
    let has_type = planted("later-fragments-have-a-type") && matches!(headers.protocol, ICMP | ICMPV6);
    if matches!(headers.part, Part::Later) && !has_type {
        // RFC 3128: a second "first" fragment could rewrite the flags of the first.
        return if headers.protocol == TCP && fragment_offset == 1 {
            Err(Reason::TinyFragment)
        } else {
            Ok(())
        };
    }
    let Some((ports, flags)) = transport(packet, headers.protocol, headers.transport) else {
        return Err(if matches!(headers.part, Part::First) {
            Reason::TinyFragment
        } else {
            Reason::Truncated
        });
    };
    headers.source_port = ports.source;
    headers.destination_port = ports.destination;
    headers.flags = flags;
    Ok(())
}

/// The quoted packet of an ICMP error: eight bytes of its transport header are all that is promised.
#[inline(always)]
fn quoted<F: Family, P: Packet>(
    packet: &P,
    source: F::Addr,
    destination: F::Addr,
    protocol: u8,
    offset: u32,
) -> Option<Headers<F>> {
    let (ports, flags, read) = match protocol {
        TCP | UDP | SCTP => (packet.read::<Ports>(offset)?, 0, 4),
        ICMP | ICMPV6 => {
            let icmp = packet.read::<Icmp>(offset)?;
            (Ports { source: icmp.id, destination: icmp.id }, icmp.kind, 8)
        }
        _ => (Ports::default(), 0, 0),
    };
    Some(Headers {
        source,
        destination,
        source_port: ports.source,
        destination_port: ports.destination,
        protocol,
        flags,
        hop_limit: 0,
        part: Part::Whole,
        id: 0,
        transport: offset,
        end: offset + read,
    })
}

/// A link-local IPv6 address (RFC 4291, 2.5.6).
#[inline(always)]
pub(crate) const fn is_link_local6(address: Addr6) -> bool {
    address.word(0) >> 22 == 0x3fa
}
