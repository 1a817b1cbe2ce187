//! Frames onto an interface, past everything that the sending kernel does before its device.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use cellwall_testkit::net::Namespace;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SendFlags, SocketType, bind, send, socket};

/// `struct sockaddr_ll` (packet(7)).
#[repr(C)]
struct LinkAddress {
    family: u16,
    protocol: u16,
    ifindex: u32,
    hardware: u16,
    kind: u8,
    length: u8,
    address: [u8; 8],
}

// JUSTIFICATION: rustix has no address type for packet sockets.
// SAFETY: the pointer is to a whole `struct sockaddr_ll` that outlives the call, and the length is its size.
#[expect(unsafe_code, reason = "the address of a packet socket")]
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        let length = u32::try_from(size_of::<Self>()).expect("twenty bytes");
        f((&raw const *self).cast(), length)
    }
}

/// A packet socket at one interface of a namespace.
pub(crate) struct PacketSocket(OwnedFd);

impl PacketSocket {
    pub(crate) fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        let ifindex = namespace.ifindex(interface)?;
        // Protocol 0: it receives nothing.
        let socket = namespace.run(|| socket(AddressFamily::PACKET, SocketType::RAW, None));
        let socket = socket.context("a packet socket")?;
        let address = LinkAddress {
            family: AddressFamily::PACKET.as_raw(),
            protocol: 0,
            ifindex,
            hardware: 0,
            kind: 0,
            length: 0,
            address: [0; 8],
        };
        bind(&socket, &address).context("a packet socket at an interface")?;
        Ok(Self(socket))
    }

    pub(crate) fn send(&self, frame: &[u8]) -> Result<()> {
        send(&self.0, frame, SendFlags::empty())?;
        Ok(())
    }
}
