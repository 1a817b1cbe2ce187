//! Who has which address on the wire: ARP and neighbour discovery always pass where they are true, and what would
//! make a pod a router never does.

use cellwall_abi::{Addr6, Direction, EndpointRecord, Family, Mac, Reason, planted};

use crate::entry::{Case, Hook};
use crate::header::{Arp, Ethernet, Icmp, Ipv6, LinkOption, NETWORK};
use crate::parse::{Headers, Part, is_link_local6};
use crate::tables::{Packet, Step};

/// Hop limit of a packet that no router has forwarded (RFC 4861, 7.1).
const ON_LINK: u8 = 255;
/// Most options that are read: a solicitation has two.
const OPTIONS_MAX: u32 = 8;

/// ARP: for IPv4 over Ethernet, and from a pod only about itself (RFC 826, RFC 5227: a probe has sender 0).
#[inline(always)]
pub(crate) fn arp<P: Packet>(packet: &P, hook: &Hook, record: &EndpointRecord) -> Reason {
    if matches!(hook.direction(), Direction::Ingress) && !planted("arp-into-a-pod-is-its-own") {
        return Reason::Neighbour;
    }
    let (Some(frame), Some(arp)) = (packet.read::<Ethernet>(0), packet.read::<Arp>(NETWORK)) else {
        return Reason::Truncated;
    };
    let is_ipv4 = arp.hardware.get() == 1
        && arp.protocol.get() == 0x0800
        && arp.hardware_length == 6
        && arp.protocol_length == 4;
    let mac_holds =
        arp.sender_mac == frame.source && (record.mac.is_unknown() || arp.sender_mac == record.mac);
    let sender = arp.sender_address();
    let address_holds = sender.get() == 0 || sender == record.address4 || planted("arp-for-anybody");
    if is_ipv4 && mac_holds && address_holds { Reason::Neighbour } else { Reason::Spoofed }
}

/// Neighbour discovery and multicast listener discovery; `None` for other ICMPv6, which policy judges.
#[inline(always)]
pub(crate) fn discovery<F: Family, P: Packet, T>(
    case: &Case<'_, F, P, T>,
    frame: &Ethernet,
) -> Option<Reason> {
    let headers = case.headers;
    if matches!(headers.part, Part::Later) {
        return None;
    }
    let from_pod = matches!(case.hook.direction(), Direction::Egress);
    let holds = match headers.flags {
        // Neighbour discovery: never forwarded, never in fragments (RFC 6980).
        133..=137 if headers.hop_limit != ON_LINK || !matches!(headers.part, Part::Whole) => false,
        133 | 135 | 136 if from_pod => is_own_discovery(case, frame),
        133 | 135 | 136 => true,
        // Router advertisement; redirect: a pod is no router (CVE-2020-10749).
        134 | 137 => !from_pod || planted("a-pod-may-be-a-router"),
        // Multicast listener query: of a router, within the link (RFC 3810, 5).
        130 => headers.hop_limit == 1 && !from_pod,
        // Reports and done: to routers and switches, to whom a group within the link is what is reported.
        131 | 132 | 143 if from_pod => {
            headers.hop_limit == 1
                && is_own_sender(case.record, frame, F::widen(headers.source))
                && F::widen(headers.destination).word(0) == 0xff02_0000
        }
        _ => return None,
    };
    Some(if holds { Reason::Neighbour } else { Reason::NeighbourForged })
}

/// A sender that this pod can be: its own address, that of its interface, or none yet.
#[inline(always)]
fn is_own_sender(record: &EndpointRecord, frame: &Ethernet, source: Addr6) -> bool {
    (source == Addr6::ZERO || is_own_address(record, source))
        && (record.mac.is_unknown() || frame.source == record.mac)
}

/// The pod's own address, or the one within the link that follows from its Ethernet address.
#[inline(always)]
fn is_own_address(record: &EndpointRecord, address: Addr6) -> bool {
    address == record.address6 || is_own_link_local(record.mac, address)
}

/// The address within the link that the kernel makes of an Ethernet address (RFC 4291, appendix A). Of another
/// pod's, or a router's, none may speak.
#[inline(always)]
fn is_own_link_local(mac: Mac, address: Addr6) -> bool {
    if mac.is_unknown() || planted("any-link-local-address") {
        return is_link_local6(address);
    }
    let [high, middle, low] = mac.0.map(|half| u32::from(u16::from_be(half)));
    address.word(0) == 0xfe80_0000
        && address.word(1) == 0
        && address.word(2) == (high ^ 0x0200) << 16 | middle & 0xff00 | 0xff
        && address.word(3) == 0xfe00_0000 | (middle & 0xff) << 16 | low
}

/// Solicitations and advertisements of a pod are about itself: sender, target, and the Ethernet addresses in options.
#[inline(always)]
fn is_own_discovery<F: Family, P: Packet, T>(case: &Case<'_, F, P, T>, frame: &Ethernet) -> bool {
    let Case { packet, headers, record, .. } = *case;
    let source = F::widen(headers.source);
    let target = target(packet, headers);
    let target_holds = match (headers.flags, target) {
        (133, _) => true,
        // To ask whether an address is taken (RFC 4862, 5.4.2) is to claim it.
        (135, Some(target)) => source != Addr6::ZERO || is_own_address(record, target),
        (_, Some(target)) => is_own_address(record, target),
        (_, None) => false,
    };
    let fixed = if headers.flags == 133 { 8 } else { 24 };
    is_own_sender(record, frame, source)
        && target_holds
        && options_hold(packet, headers.transport + fixed, frame.source)
}

#[inline(always)]
fn target<F: Family, P: Packet>(packet: &P, headers: &Headers<F>) -> Option<Addr6> {
    #[expect(clippy::cast_possible_truncation, reason = "eight bytes")]
    packet.read(headers.transport + size_of::<Icmp>() as u32)
}

/// A walk over the options of neighbour discovery (RFC 4861, 4.6).
#[derive(Clone, Copy)]
struct Options {
    offset: u32,
    end: u32,
    mac: Mac,
    holds: bool,
}

impl Step for Options {
    #[inline(always)]
    fn step<P: Packet>(&mut self, packet: &P) -> bool {
        if self.offset >= self.end {
            return false;
        }
        let Some(option) = packet.read::<LinkOption>(self.offset) else {
            self.holds = false;
            return false;
        };
        let names_another = matches!(option.kind, 1 | 2) && (option.length != 1 || option.mac != self.mac);
        if option.length == 0 || names_another {
            self.holds = false;
            return false;
        }
        self.offset += u32::from(option.length) * 8;
        true
    }
}

/// Every Ethernet address in the options is the sender's.
#[inline(always)]
fn options_hold<P: Packet>(packet: &P, offset: u32, mac: Mac) -> bool {
    let Some(ip) = packet.read::<Ipv6>(NETWORK) else { return false };
    let end = NETWORK + 40 + u32::from(ip.payload_length.get());
    let walked = packet.walk(OPTIONS_MAX, Options { offset, end, mac, holds: true });
    (walked.holds && walked.offset == end && end <= packet.length()) || planted("any-link-layer-option")
}
