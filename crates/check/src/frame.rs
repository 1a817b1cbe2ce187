//! Frames, and a packet at a hook made of one.

use core::cell::Cell;
use core::net::IpAddr;

use cellwall_abi::{Be16, Mac, planted};
use cellwall_policy::flow::{Direction, Flow, Protocol};
use cellwall_verdict::{Packet, Step};
use etherparse::{EtherType, IpNumber, PacketBuilder, PacketBuilderStep};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The other end's Ethernet address in every built frame: the host side of the pod's interface.
pub const HOST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xfe];
/// The pod's Ethernet address in every built frame.
pub const POD_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// Interface that receives what comes from elsewhere.
pub const UPLINK: u32 = 1 << 20;
/// The opener's port of built frames.
pub const CLIENT_PORT: u16 = 40_000;

/// A packet at a hook, wholly linear in memory.
///
/// The frame begins two bytes past a word, as the kernel lays it out (NET_IP_ALIGN), so that what follows the
/// Ethernet header is aligned.
#[derive(Clone, Debug)]
pub struct Frame {
    words: Vec<u32>,
    length: usize,
    /// Interface of the hook.
    pub ifindex: u32,
    /// Interface that received the packet, or 0: this node made it.
    pub ingress_ifindex: u32,
    /// The kernel has taken a VLAN tag with an id out of the frame.
    pub has_vlan_tag: bool,
    /// A segment that is still to be cut.
    pub is_segmented: bool,
    /// Bytes in the linear part; reads at a fixed offset see no more.
    pub linear: usize,
    /// Mark and `tc_index`.
    pub stamp: Cell<(u32, u32)>,
}

impl Frame {
    /// A packet of these bytes that came from elsewhere.
    #[must_use]
    pub fn new(bytes: &[u8], ifindex: u32) -> Self {
        let mut words = vec![0_u32; (bytes.len() + 2).div_ceil(4)];
        words.as_mut_bytes()[2..2 + bytes.len()].copy_from_slice(bytes);
        Self {
            words,
            length: bytes.len(),
            ifindex,
            ingress_ifindex: UPLINK,
            has_vlan_tag: false,
            is_segmented: false,
            linear: bytes.len(),
            stamp: Cell::new((0, 0)),
        }
    }

    /// The first packet of a flow at the interface `ifindex`, from [`CLIENT_PORT`].
    #[must_use]
    pub fn opening(flow: &Flow, ifindex: u32) -> Self {
        Self::opening_from(flow, ifindex, CLIENT_PORT)
    }

    /// The first packet of a flow at the interface `ifindex`; `port` is the opener's, or an echo's identifier.
    #[must_use]
    pub fn opening_from(flow: &Flow, ifindex: u32, port: u16) -> Self {
        let mut frame = Self::new(&opening_from(flow, port), ifindex);
        frame.ingress_ifindex = match (flow.direction, flow.from_own_node) {
            (Direction::Egress, _) => ifindex,
            (Direction::Ingress, true) => 0,
            (Direction::Ingress, false) if flow.remote == flow.local => ifindex,
            (Direction::Ingress, false) => UPLINK,
        };
        frame
    }

    /// The bytes of the frame.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.words.as_bytes()[2..2 + self.length]
    }
}

impl Packet for Frame {
    fn walk<S: Step + Copy>(&self, max: u32, mut state: S) -> S {
        for _ in 0..max {
            if !state.step(self) {
                break;
            }
        }
        state
    }

    fn read<T: FromBytes>(&self, offset: u32) -> Option<T> {
        let bytes = self.bytes();
        let end =
            if planted("only-what-is-linear-is-read") { self.linear.min(bytes.len()) } else { bytes.len() };
        T::read_from_prefix(bytes.get(offset as usize..end)?).ok().map(|(value, _)| value)
    }

    fn direct<T: FromBytes + KnownLayout + Immutable, const OFFSET: usize>(&self) -> Option<&T> {
        let bytes = &self.bytes()[..self.linear.min(self.length)];
        T::ref_from_prefix(bytes.get(OFFSET..)?).ok().map(|(value, _)| value)
    }

    fn pull(&self) {}

    fn length(&self) -> u32 {
        u32::try_from(self.length).expect("a frame is small")
    }

    fn ether_type(&self) -> Be16 {
        self.bytes().get(12..14).map_or(Be16::new(0), |b| Be16::new(u16::from_be_bytes([b[0], b[1]])))
    }

    fn has_vlan_tag(&self) -> bool {
        self.has_vlan_tag
    }

    fn is_segmented(&self) -> bool {
        self.is_segmented
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn ingress_ifindex(&self) -> u32 {
        self.ingress_ifindex
    }

    fn mark(&self) -> u32 {
        self.stamp.get().0
    }

    fn tc_index(&self) -> u32 {
        self.stamp.get().1
    }

    fn set_stamp(&self, mark: u32, tc_index: u32) {
        self.stamp.set((mark, tc_index));
    }
}

/// Sender and receiver of the packets of one direction.
#[must_use]
pub fn macs(direction: Direction) -> ([u8; 6], [u8; 6]) {
    match direction {
        Direction::Egress => (POD_MAC, HOST_MAC),
        Direction::Ingress => (HOST_MAC, POD_MAC),
    }
}

/// The pod's Ethernet address as the tables hold it.
#[must_use]
pub fn pod_mac() -> Mac {
    Mac::from_octets(POD_MAC)
}

/// Bytes of the first packet of a flow: a SYN, a datagram, an INIT, an echo request, or eight bytes of another
/// protocol.
#[must_use]
pub fn opening(flow: &Flow) -> Vec<u8> {
    opening_from(flow, CLIENT_PORT)
}

/// [`opening`] from another port, or with another identifier of an echo.
#[must_use]
pub fn opening_from(flow: &Flow, port: u16) -> Vec<u8> {
    let ports = (port, flow.port);
    let ends = match flow.direction {
        Direction::Egress => (flow.local, flow.remote),
        Direction::Ingress => (flow.remote, flow.local),
    };
    let ip = ip(flow.direction, ends);
    match flow.protocol {
        Protocol::TCP => write(|out| ip.tcp(ports.0, ports.1, 1, 64_000).syn().write(out, &[])),
        Protocol::UDP => write(|out| ip.udp(ports.0, ports.1).write(out, b"datagram")),
        Protocol::SCTP => write(|out| ip.write(out, IpNumber::SCTP, &sctp(ports, 1))),
        Protocol::ICMP => write(|out| ip.icmpv4_echo_request(port, 1).write(out, b"payload")),
        Protocol::ICMPV6 => write(|out| ip.icmpv6_echo_request(port, 1).write(out, b"payload")),
        Protocol(other) => write(|out| ip.write(out, IpNumber(other), &[0; 8])),
    }
}

/// Bytes of the answer to [`opening`].
#[must_use]
pub fn answer(flow: &Flow) -> Vec<u8> {
    let ports = (flow.port, CLIENT_PORT);
    let (direction, ends) = match flow.direction {
        Direction::Egress => (Direction::Ingress, (flow.remote, flow.local)),
        Direction::Ingress => (Direction::Egress, (flow.local, flow.remote)),
    };
    let ip = ip(direction, ends);
    match flow.protocol {
        Protocol::TCP => write(|out| ip.tcp(ports.0, ports.1, 1, 64_000).syn().ack(2).write(out, &[])),
        Protocol::UDP => write(|out| ip.udp(ports.0, ports.1).write(out, b"datagram")),
        Protocol::SCTP => write(|out| ip.write(out, IpNumber::SCTP, &sctp(ports, 2))),
        Protocol::ICMP => write(|out| ip.icmpv4_echo_reply(CLIENT_PORT, 1).write(out, b"payload")),
        Protocol::ICMPV6 => write(|out| ip.icmpv6_echo_reply(CLIENT_PORT, 1).write(out, b"payload")),
        Protocol(other) => write(|out| ip.write(out, IpNumber(other), &[0; 8])),
    }
}

/// A packet of any protocol through the hook of `direction`, with a payload of one's own.
#[must_use]
pub fn packet(direction: Direction, ends: (IpAddr, IpAddr), protocol: u8, payload: &[u8]) -> Vec<u8> {
    write(|out| ip(direction, ends).write(out, IpNumber(protocol), payload))
}

/// Bytes of a TCP segment of a flow with these flags, from its opener or to it.
#[must_use]
pub fn segment(flow: &Flow, from_opener: bool, flags: u8) -> Vec<u8> {
    let mut bytes = if from_opener { opening(flow) } else { answer(flow) };
    let network = if flow.local.is_ipv4() { 34 } else { 54 };
    bytes[network + 13] = flags;
    bytes
}

/// A common header and a chunk of this type without content (RFC 9260, 3). The checksum is left zero: nothing on
/// the way to a verdict looks at it.
fn sctp((source, destination): (u16, u16), chunk: u8) -> Vec<u8> {
    let mut bytes = vec![0; 32];
    bytes[..2].copy_from_slice(&source.to_be_bytes());
    bytes[2..4].copy_from_slice(&destination.to_be_bytes());
    bytes[12] = chunk;
    bytes[15] = 20;
    bytes
}

/// Ethernet and IP of a packet through the hook of `direction`.
///
/// # Panics
/// When the addresses are of two families.
#[must_use]
pub fn ip(direction: Direction, ends: (IpAddr, IpAddr)) -> PacketBuilderStep<etherparse::IpHeaders> {
    let (source, destination) = macs(direction);
    match ends {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            PacketBuilder::ethernet2(source, destination).ipv4(from.octets(), to.octets(), 64)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            PacketBuilder::ethernet2(source, destination).ipv6(from.octets(), to.octets(), 64)
        }
        _ => panic!("{ends:?} are of two families"),
    }
}

/// An Ethernet frame with a payload of one's own.
#[must_use]
pub fn ethernet(direction: Direction, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = macs(direction);
    let mut bytes = etherparse::Ethernet2Header { source, destination, ether_type: EtherType(ether_type) }
        .to_bytes()
        .to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

fn write<E: core::fmt::Debug>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    write(&mut bytes).expect("writing to memory");
    bytes
}
