//! Raw sockets: what the kernel has no sockets for.

use std::net::{IpAddr, SocketAddr};

use cellwall_testkit::net::Pod;
use rustix::net::{
    AddressFamily, Protocol, RawProtocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto,
    socket_with,
};

/// A raw socket of one protocol, bound to one address of a pod.
pub(crate) struct Raw {
    socket: std::os::fd::OwnedFd,
    is_v4: bool,
}

impl Raw {
    pub(crate) fn new(pod: &Pod, address: IpAddr, protocol: u32) -> Self {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let protocol = RawProtocol::new(protocol).map(Protocol::from_raw);
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = pod
            .namespace
            .run(|| socket_with(family, SocketType::RAW, flags, protocol))
            .expect("a raw socket");
        bind(&socket, &SocketAddr::new(address, 0)).expect("an address of the pod");
        Self { socket, is_v4: address.is_ipv4() }
    }

    pub(crate) fn icmp(pod: &Pod, address: IpAddr) -> Self {
        Self::new(pod, address, if address.is_ipv4() { 1 } else { 58 })
    }

    /// Sends a payload of the protocol.
    pub(crate) fn send(&self, to: IpAddr, payload: &[u8]) {
        sendto(&self.socket, payload, SendFlags::empty(), &SocketAddr::new(to, 0)).expect("a route");
    }

    /// The next payload that has arrived.
    fn next(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 4096];
        let (length, _) = recv(&self.socket, &mut buffer[..], RecvFlags::empty()).ok()?;
        buffer.truncate(length);
        // With IPv4 the header comes along.
        let header = if self.is_v4 { 4 * usize::from(buffer.first()? & 15) } else { 0 };
        Some(buffer.split_off(header.min(length)))
    }

    /// True when one of those that have arrived is `wanted`.
    pub(crate) fn received(&self, wanted: impl Fn(&Vec<u8>) -> bool) -> bool {
        std::iter::from_fn(|| self.next()).any(|payload| wanted(&payload))
    }

    /// True when nothing has arrived but what the pod's kernel does by itself (neighbour discovery).
    pub(crate) fn is_silent(&self) -> bool {
        !self.received(|payload| !payload.first().is_some_and(|kind| (130..=143).contains(kind)))
    }
}

/// An echo request or reply with an identifier, for the family of `to`.
pub(crate) fn echo(to: IpAddr, is_request: bool, id: u8) -> Vec<u8> {
    let kind = match (to.is_ipv4(), is_request) {
        (true, true) => 8,
        (true, false) => 0,
        (false, true) => 128,
        (false, false) => 129,
    };
    let mut message = vec![kind, 0, 0, 0, 0, id, 0, 1];
    if to.is_ipv4() {
        let sum: u32 = message.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !u16::try_from(folded).expect("a short message");
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    // Of ICMPv6 the kernel computes the checksum.
    message
}

pub(crate) fn is_request(message: &[u8], id: u8) -> bool {
    matches!(message, [8 | 128, 0, _, _, 0, found, ..] if *found == id)
}

pub(crate) fn is_reply(message: &[u8], id: u8) -> bool {
    matches!(message, [0 | 129, 0, _, _, 0, found, ..] if *found == id)
}

/// An SCTP packet with an INIT chunk. Nobody checks its checksum before a raw socket gets it.
pub(crate) fn sctp_init(port: u16, tag: u8) -> Vec<u8> {
    let mut packet = 40_000_u16.to_be_bytes().to_vec();
    packet.extend(port.to_be_bytes());
    packet.extend([0; 8]);
    packet.extend([1, 0, 0, 20, 0, 0, 0, tag, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    packet
}
