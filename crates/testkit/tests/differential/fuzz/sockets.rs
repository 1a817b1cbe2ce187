//! What sockets get: raw ones of every protocol. The kernel hands a packet to them after it has put its fragments
//! together and taken its headers off, and before it looks for the socket of a port: whatever a socket of any port
//! could get, they get.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use cellwall_testkit::net::Namespace;
use rustix::net::{
    AddressFamily, Protocol, RawProtocol, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with,
};

/// Protocols of IPv6 that are headers on the way to another.
const EXTENSIONS: [u8; 8] = [0, 43, 44, 51, 60, 135, 139, 140];

/// Raw sockets of every protocol in both families.
pub(crate) struct Sockets(Vec<(u8, IpAddr, OwnedFd)>);

/// What a socket got.
#[derive(Clone, Debug)]
pub(crate) struct Delivered {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    /// From the transport header on.
    pub(crate) payload: Vec<u8>,
}

impl Sockets {
    pub(crate) fn open(namespace: &Namespace, addresses: &[String]) -> Self {
        let addresses = addresses.iter().map(|text| text.parse().expect("an address"));
        let open = |address: IpAddr, protocol: u8| {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let number = RawProtocol::new(u32::from(protocol)).map(Protocol::from_raw);
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = socket_with(family, SocketType::RAW, flags, number).expect("a raw socket");
            bind(&socket, &SocketAddr::new(address, 0)).expect("an address of its own");
            (protocol, address, socket)
        };
        let all = addresses.flat_map(|address: IpAddr| {
            (1_u8..255)
                .filter(move |p| address.is_ipv4() || !EXTENSIONS.contains(p))
                .map(move |p| (address, p))
        });
        Self(namespace.run(|| all.map(|(address, protocol)| open(address, protocol)).collect()))
    }

    /// What has arrived since the last time.
    pub(crate) fn delivered(&self) -> Vec<Delivered> {
        let mut buffer = vec![0; 1 << 16];
        let mut all = Vec::new();
        for (protocol, own, socket) in &self.0 {
            while let Ok((length, _, from)) = recvfrom(socket, &mut buffer[..], RecvFlags::empty()) {
                let from = SocketAddr::try_from(from.expect("an address")).expect("of the Internet");
                let bytes = &buffer[..length];
                // With IPv4 the header comes along.
                let header = if own.is_ipv4() { 4 * usize::from(bytes[0] & 15) } else { 0 };
                all.push(Delivered {
                    source: from.ip(),
                    destination: *own,
                    protocol: *protocol,
                    payload: bytes[header..].to_vec(),
                });
            }
        }
        all
    }
}
