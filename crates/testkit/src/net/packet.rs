//! Frames as they are on the wire: a packet socket.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{
    AddressFamily, Protocol, RawProtocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send,
    socket_with,
};

use super::Namespace;

/// Every ethertype (`ETH_P_ALL`).
const ALL: u16 = 3;
/// Room for what arrives between two looks.
const BUFFER_BYTES: usize = 64 << 20;

/// A socket that sends and takes whole frames at one interface. What the namespace itself sends there it does not
/// see.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

/// An interface as packet sockets name it (`sockaddr_ll`).
struct Interface(libc::sockaddr_ll);

// JUSTIFICATION: there is no other way to hand rustix a `sockaddr_ll`, and no crate of this workspace that has one.
// SAFETY: the pointer is to a whole `sockaddr_ll` that lives as long as `self`, and its length is that of the type.
#[expect(unsafe_code, reason = "see above")]
unsafe impl SocketAddrArg for Interface {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f((&raw const self.0).cast(), SocketAddrLen::try_from(size_of_val(&self.0)).expect("small"))
    }
}

impl PacketSocket {
    /// A socket at an interface of a namespace.
    ///
    /// # Errors
    /// Without root, or without such an interface.
    pub fn open(namespace: &Namespace, interface: &str) -> io::Result<Self> {
        let ifindex = i32::try_from(namespace.ifindex(interface)?).map_err(io::Error::other)?;
        let protocol = RawProtocol::new(u32::from(ALL.to_be())).map(Protocol::from_raw);
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket =
            namespace.run(|| socket_with(AddressFamily::PACKET, SocketType::RAW, flags, protocol))?;
        set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES)?;
        let on: libc::c_int = 1;
        // JUSTIFICATION: rustix has no such option.
        // SAFETY: the option takes an int, which lives until the call has returned.
        #[expect(unsafe_code, reason = "see above")]
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_IGNORE_OUTGOING,
                (&raw const on).cast(),
                libc::socklen_t::try_from(size_of_val(&on)).expect("small"),
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let family = u16::try_from(libc::AF_PACKET).expect("a small number");
        bind(
            &socket,
            &Interface(libc::sockaddr_ll {
                sll_family: family,
                sll_protocol: ALL.to_be(),
                sll_ifindex: ifindex,
                sll_hatype: 0,
                sll_pkttype: 0,
                sll_halen: 0,
                sll_addr: [0; 8],
            }),
        )?;
        Ok(Self(socket))
    }

    /// Sends a frame from its Ethernet header on.
    ///
    /// # Errors
    /// When it is too short, too long, or does not fit into the queue.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(&self.0, frame, SendFlags::empty())?;
        Ok(())
    }

    /// The next frame that has arrived; what does not fit into `buffer` is cut off.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let (length, _) = recv(&self.0, &mut *buffer, RecvFlags::empty()).ok()?;
        Some(&buffer[..length])
    }
}
