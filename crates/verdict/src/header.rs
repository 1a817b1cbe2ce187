//! Headers as they stand in a frame. Fields keep network byte order.

use cellwall_abi::{Addr6, Be16, Be32, Mac};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Offset of the network header: Ethernet without a tag (a tag that the kernel has taken out of the frame is
/// told by [`crate::Packet::has_vlan_tag`]).
pub const NETWORK: u32 = 14;

/// EtherType of IPv4.
pub const ETH_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETH_ARP: u16 = 0x0806;
/// EtherType of a VLAN tag (IEEE 802.1Q).
pub const ETH_VLAN: u16 = 0x8100;
/// EtherType of a service VLAN tag (IEEE 802.1ad).
pub const ETH_QINQ: u16 = 0x88a8;
/// EtherType of IPv6.
pub const ETH_IPV6: u16 = 0x86dd;

/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// SCTP.
pub const SCTP: u8 = 132;
/// ICMP of IPv4.
pub const ICMP: u8 = 1;
/// ICMP of IPv6.
pub const ICMPV6: u8 = 58;

/// TCP flag: no more data from the sender.
pub const FIN: u8 = 0x01;
/// TCP flag: synchronise.
pub const SYN: u8 = 0x02;
/// TCP flag: reset.
pub const RST: u8 = 0x04;
/// TCP flag: acknowledgement.
pub const ACK: u8 = 0x10;
/// SCTP chunk that opens an association. It is alone in its packet (RFC 9260, 6.10).
pub const INIT: u8 = 1;
/// SCTP chunk that answers it, alone in its packet as well.
pub const INIT_ACK: u8 = 2;

/// Ethernet II.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ethernet {
    /// Destination.
    pub destination: Mac,
    /// Source.
    pub source: Mac,
    /// EtherType.
    pub ether_type: Be16,
}

/// IPv4 without options (RFC 791).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ipv4 {
    /// Version (4 bits) and header length in words (4 bits).
    pub version_length: u8,
    /// Type of service.
    pub service: u8,
    /// Length of header and payload in bytes; 0 in a segment over 64 KiB that the kernel holds.
    pub total_length: Be16,
    /// Identification.
    pub id: Be16,
    /// Reserved, DF, MF (3 bits) and fragment offset in eight bytes (13 bits).
    pub fragment: Be16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol.
    pub protocol: u8,
    /// Header checksum, never looked at.
    pub checksum: u16,
    /// Source address.
    pub source: Be32,
    /// Destination address.
    pub destination: Be32,
}

/// IPv6 (RFC 8200).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ipv6 {
    /// Version (4 bits), traffic class, flow label.
    pub first: Be32,
    /// Length of the payload in bytes; 0 in a segment over 64 KiB.
    pub payload_length: Be16,
    /// Kind of the next header.
    pub next: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: Addr6,
    /// Destination address.
    pub destination: Addr6,
}

/// What TCP, UDP and SCTP begin with.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ports {
    /// Source port.
    pub source: Be16,
    /// Destination port.
    pub destination: Be16,
}

/// TCP up to its flags (RFC 9293).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tcp {
    /// Ports.
    pub ports: Ports,
    /// Sequence number.
    pub sequence: Be32,
    /// Acknowledgement number.
    pub acknowledgement: Be32,
    /// Header length in words in the upper 4 bits.
    pub offset: u8,
    /// Flags.
    pub flags: u8,
    /// Window.
    pub window: Be16,
}

/// The common header of SCTP and the head of its first chunk (RFC 9260, 3).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sctp {
    /// Ports.
    pub ports: Ports,
    /// Verification tag.
    pub tag: Be32,
    /// Checksum, never looked at.
    pub checksum: u32,
    /// Type of the first chunk.
    pub chunk: u8,
    /// Flags of the first chunk.
    pub flags: u8,
    /// Length of the first chunk in bytes.
    pub length: Be16,
}

/// The first eight bytes of ICMP and ICMPv6.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum, never looked at.
    pub checksum: u16,
    /// Identifier of an echo.
    pub id: Be16,
    /// Sequence of an echo.
    pub sequence: Be16,
}

/// ARP for IPv4 over Ethernet (RFC 826). Addresses are halves: nothing in it is aligned to four bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Arp {
    /// Hardware type: 1.
    pub hardware: Be16,
    /// Protocol type: 0x0800.
    pub protocol: Be16,
    /// Length of a hardware address: 6.
    pub hardware_length: u8,
    /// Length of a protocol address: 4.
    pub protocol_length: u8,
    /// 1 request, 2 reply.
    pub operation: Be16,
    /// Hardware address of the sender.
    pub sender_mac: Mac,
    /// Protocol address of the sender.
    pub sender: [Be16; 2],
    /// Hardware address of the target.
    pub target_mac: Mac,
    /// Protocol address of the target.
    pub target: [Be16; 2],
}

impl Arp {
    /// The sender's IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn sender_address(&self) -> Be32 {
        Be32::new((self.sender[0].get() as u32) << 16 | self.sender[1].get() as u32)
    }
}

/// The fragment header of IPv6 (RFC 8200, 4.5).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Fragment6 {
    /// Kind of the next header.
    pub next: u8,
    /// Zero.
    pub reserved: u8,
    /// Offset in eight bytes (13 bits), two reserved bits, M.
    pub offset: Be16,
    /// Identification.
    pub id: Be32,
}

/// An option of neighbour discovery that names an Ethernet address (RFC 4861, 4.6.1).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LinkOption {
    /// 1: the source's, 2: the target's; others are longer or shorter than this.
    pub kind: u8,
    /// Length of the option in eight bytes.
    pub length: u8,
    /// The address.
    pub mac: Mac,
}

/// Any other extension header of IPv6: kind of the next and own length.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Extension6 {
    /// Kind of the next header.
    pub next: u8,
    /// Length; its unit depends on the header.
    pub length: u8,
    /// First bytes of the content; of a routing header its type and the segments left.
    pub content: [u8; 2],
}
