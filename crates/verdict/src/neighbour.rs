//! Who has which address on the wire: ARP and neighbour discovery always pass where they are true, and what would
//! make a pod a router never does.

use cellwall_abi::{Addr6, Direction, EndpointRecord, Family, Reason};

use crate::entry::{Case, Hook};
use crate::header::{Arp, Ethernet, Icmp, NETWORK};
use crate::parse::is_link_local6;
use crate::tables::Packet;

/// Hop limit of a packet that no router has forwarded (RFC 4861, 7.1).
const ON_LINK: u8 = 255;

/// ARP: for IPv4 over Ethernet, and from a pod only about itself (RFC 826, RFC 5227: a probe has sender 0).
#[inline(always)]
pub(crate) fn arp<P: Packet>(packet: &P, hook: &Hook, record: &EndpointRecord) -> Reason {
    if matches!(hook.direction(), Direction::Ingress) {
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
    let address_holds = sender.get() == 0 || sender == record.address4;
    if is_ipv4 && mac_holds && address_holds { Reason::Neighbour } else { Reason::Spoofed }
}

/// Neighbour discovery and multicast listener reports; `None` for other ICMPv6, which policy judges.
#[inline(always)]
pub(crate) fn discovery<F: Family, P: Packet, T>(
    case: &Case<'_, F, P, T>,
    frame: &Ethernet,
) -> Option<Reason> {
    let Case { packet, hook, headers, record, .. } = *case;
    let source = F::widen(headers.source);
    let from_pod = matches!(hook.direction(), Direction::Egress);
    let own_source = source == Addr6::ZERO || source == record.address6 || is_link_local6(source);
    let own_mac = record.mac.is_unknown() || frame.source == record.mac;
    let sender_holds = !from_pod || (own_source && own_mac);
    let holds = match headers.flags {
        // Router solicitation, neighbour solicitation.
        133 | 135 => headers.hop_limit == ON_LINK && sender_holds,
        // Neighbour advertisement.
        136 => {
            let target_holds = !from_pod || is_own_target(packet, record, headers.transport);
            headers.hop_limit == ON_LINK && sender_holds && target_holds
        }
        // Router advertisement; redirect: a pod is no router (CVE-2020-10749).
        134 | 137 => headers.hop_limit == ON_LINK && !from_pod,
        // Multicast listener query, reports, done; within the link only (RFC 3810, 5).
        130..=132 | 143 => headers.hop_limit == 1 && sender_holds,
        _ => return None,
    };
    Some(if holds { Reason::Neighbour } else { Reason::NeighbourForged })
}

/// The target of a neighbour advertisement is the pod's own address, or a link-local one.
#[inline(always)]
fn is_own_target<P: Packet>(packet: &P, record: &EndpointRecord, transport: u32) -> bool {
    #[expect(clippy::cast_possible_truncation, reason = "eight bytes")]
    let offset = transport + size_of::<Icmp>() as u32;
    packet.read::<Addr6>(offset).is_some_and(|target| target == record.address6 || is_link_local6(target))
}
