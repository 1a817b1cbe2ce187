//! Netlink, as much as is needed: a request, its answer, and the attributes in it.
//!
//! Answers come from the kernel and are still read with bounds: what is too short ends the walk.

use std::io;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLM_F_ACK`.
const ACK: u16 = 4;
/// `NLM_F_DUMP_INTR`: the table changed while it was listed.
const INTERRUPTED: u16 = 0x10;
/// `NLM_F_DUMP`.
pub(crate) const DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`.
pub(crate) const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`.
pub(crate) const EXCL: u16 = 0x200;
/// `NLM_F_CREATE`.
pub(crate) const CREATE: u16 = 0x400;

const ERROR: u16 = 2;
const DONE: u16 = 3;
/// A list that changes all the time is asked for this often before its last answer is an error.
const TRIES: usize = 10;
/// The kernel makes messages of a dump as large as the buffer that the first read offers, up to 32 KiB.
const ROOM: usize = 1 << 16;
/// `NLA_TYPE_MASK`.
const TYPE_MASK: u16 = 0x3fff;

/// `struct nlmsghdr`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// A message without its header.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// The fixed part in front of the attributes.
    pub(crate) fn head<T: FromBytes>(&self) -> Option<T> {
        T::read_from_prefix(&self.body).ok().map(|(head, _)| head)
    }

    /// The attributes behind a fixed part of type `T`.
    pub(crate) fn attributes<T>(&self) -> Attributes<'_> {
        Attributes(self.body.get(align(size_of::<T>())..).unwrap_or_default())
    }
}

/// Attributes, each with its type and content; flags in the type are taken off.
#[derive(Clone, Debug)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let ([length, kind], _) = <[u16; 2]>::read_from_prefix(self.0).ok()?;
        let length = usize::from(length);
        let content = self.0.get(4..length)?;
        self.0 = self.0.get(align(length)..).unwrap_or_default();
        Some((kind & TYPE_MASK, content))
    }
}

const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// Text that ends with a zero byte.
pub(crate) fn text(content: &[u8]) -> String {
    let end = content.iter().position(|b| *b == 0).unwrap_or(content.len());
    String::from_utf8_lossy(&content[..end]).into_owned()
}

/// The body of a request.
#[derive(Clone, Debug)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    pub(crate) fn new(head: &(impl IntoBytes + Immutable)) -> Self {
        Self(head.as_bytes().to_vec())
    }

    /// Appends an attribute; its content is of this program and short.
    pub(crate) fn with(mut self, kind: u16, content: &[u8]) -> Self {
        let length = u16::try_from(4 + content.len()).expect("a short attribute");
        self.0.extend_from_slice([length, kind].as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(align(self.0.len()), 0);
        self
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A socket for requests, one after the other.
#[derive(Debug)]
pub(crate) struct Requests {
    socket: Socket,
    sequence: u32,
}

impl Requests {
    /// Asks about interfaces, addresses and filters.
    pub(crate) fn open() -> io::Result<Self> {
        Self::of(NETLINK_ROUTE)
    }

    /// Asks nf_conntrack; EPROTONOSUPPORT where the kernel has no netfilter.
    pub(crate) fn netfilter() -> io::Result<Self> {
        Self::of(NETLINK_NETFILTER)
    }

    fn of(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        // Without it the kernel ignores what it does not understand of a request, and lists another namespace.
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Asks for a change.
    pub(crate) fn change(&mut self, kind: u16, flags: u16, body: &Body) -> io::Result<()> {
        self.exchange(kind, flags | ACK, body, |_, _| {})
    }

    /// Asks for one object.
    pub(crate) fn get(&mut self, kind: u16, body: &Body) -> io::Result<Option<Message>> {
        Ok(self.collect(kind, ACK, body)?.into_iter().next())
    }

    /// Asks for a list; again when it changed meanwhile.
    pub(crate) fn list(&mut self, kind: u16, body: &Body) -> io::Result<Vec<Message>> {
        for _ in 1..TRIES {
            match self.collect(kind, DUMP, body) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                answer => return answer,
            }
        }
        self.collect(kind, DUMP, body)
    }

    /// Asks for a list that is too long to keep: the content of each message is handed over as it comes.
    pub(crate) fn walk(&mut self, kind: u16, body: &Body, mut see: impl FnMut(&[u8])) -> io::Result<()> {
        self.exchange(kind, DUMP, body, |_, content| see(content))
    }

    fn collect(&mut self, kind: u16, flags: u16, body: &Body) -> io::Result<Vec<Message>> {
        let mut answer = Vec::new();
        self.exchange(kind, flags, body, |kind, content| {
            answer.push(Message { kind, body: content.to_vec() });
        })?;
        Ok(answer)
    }

    fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        body: &Body,
        mut see: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = size_of::<Header>() + body.0.len();
        let header = Header {
            length: u32::try_from(length).expect("a short request"),
            kind,
            flags: flags | REQUEST,
            sequence: self.sequence,
            port: 0,
        };
        let request = [header.as_bytes(), body.bytes()].concat();
        self.socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
        let mut buffer = Vec::with_capacity(ROOM);
        let mut interrupted = false;
        loop {
            buffer.clear();
            self.socket.recv_from(&mut buffer, 0)?;
            for (header, content) in messages(&buffer) {
                if header.sequence != self.sequence {
                    continue;
                }
                interrupted |= header.flags & INTERRUPTED != 0;
                match header.kind {
                    DONE | ERROR => {
                        return match code(content) {
                            0 if interrupted => Err(io::ErrorKind::Interrupted.into()),
                            0 => Ok(()),
                            code => Err(io::Error::from_raw_os_error(-code)),
                        };
                    }
                    kind => see(kind, content),
                }
            }
        }
    }
}

/// The code at the start of an end or error message; 0 is success.
fn code(content: &[u8]) -> i32 {
    i32::read_from_prefix(content).map_or(0, |(code, _)| code)
}

/// Splits what one read brought.
fn messages(mut buffer: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    std::iter::from_fn(move || {
        let (header, _) = Header::read_from_prefix(buffer).ok()?;
        let length = header.length as usize;
        let content = buffer.get(size_of::<Header>()..length)?;
        buffer = buffer.get(align(length)..).unwrap_or_default();
        Some((header, content))
    })
}

/// A socket that hears what changes. It does not block.
#[derive(Debug)]
pub(crate) struct Events {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Events {
    /// Hears of `groups` (`RTNLGRP_*`), with room for some thousand changes.
    pub(crate) fn open(groups: &[u32]) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        socket.set_rx_buf_sz(1_i32 << 21)?;
        for group in groups {
            socket.add_membership(*group)?;
        }
        Ok(Self { socket, buffer: Vec::with_capacity(ROOM) })
    }

    /// What has arrived; WouldBlock when nothing has, ENOBUFS when some of it was lost.
    pub(crate) fn read(&mut self) -> io::Result<Vec<Message>> {
        self.buffer.clear();
        let (_, from) = self.socket.recv_from(&mut self.buffer, 0)?;
        if from.port_number() != 0 {
            return Ok(Vec::new());
        }
        let own = |(header, content): (Header, &[u8])| Message { kind: header.kind, body: content.to_vec() };
        Ok(messages(&self.buffer).map(own).collect())
    }
}

impl std::os::fd::AsRawFd for Events {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}

/// Indexes of all interfaces of this network namespace.
pub(crate) fn interfaces(requests: &mut Requests) -> io::Result<std::collections::BTreeSet<u32>> {
    let all = requests.list(GET_LINK, &Body::new(&LinkHead::default()))?;
    Ok(all
        .iter()
        .filter_map(Message::head::<LinkHead>)
        .filter_map(|head| u32::try_from(head.index).ok())
        .collect())
}

/// `RTM_NEWLINK`.
pub(crate) const NEW_LINK: u16 = 16;
/// `RTM_DELLINK`.
pub(crate) const DEL_LINK: u16 = 17;
/// `RTM_GETLINK`.
pub(crate) const GET_LINK: u16 = 18;
/// `RTM_GETADDR`.
pub(crate) const GET_ADDRESS: u16 = 22;

/// `struct ifinfomsg`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct LinkHead {
    pub(crate) family: u8,
    pub(crate) pad: u8,
    pub(crate) kind: u16,
    pub(crate) index: i32,
    pub(crate) flags: u32,
    pub(crate) change: u32,
}

/// `struct ifaddrmsg`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct AddressHead {
    pub(crate) family: u8,
    pub(crate) prefix: u8,
    pub(crate) flags: u8,
    pub(crate) scope: u8,
    pub(crate) index: u32,
}

/// `struct tcmsg`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct TrafficHead {
    pub(crate) family: u8,
    pub(crate) pad: [u8; 3],
    pub(crate) index: i32,
    pub(crate) handle: u32,
    pub(crate) parent: u32,
    pub(crate) info: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_go_there_and_back() {
        let body = Body::new(&AddressHead::default())
            .with(1, b"abc")
            .with(2, &[])
            .with(0x8003, &7_u32.to_ne_bytes());
        let message = Message { kind: 0, body: body.bytes().to_vec() };
        let read: Vec<_> = message.attributes::<AddressHead>().collect();
        assert_eq!(read, [(1, b"abc".as_slice()), (2, &[]), (3, &7_u32.to_ne_bytes())]);
    }

    #[test]
    fn what_is_too_short_ends_the_walk() {
        for bytes in [&[][..], &[8], &[0, 0, 1, 0], &[3, 0, 1, 0], &[255, 255, 1, 0, 5]] {
            assert_eq!(Attributes(bytes).count(), 0, "{bytes:?}");
        }
        assert_eq!(messages(&[16, 0, 0, 0]).count(), 0);
        assert_eq!(messages(&[0; 16]).count(), 0);
        assert_eq!(messages(&[255; 64]).count(), 0);
    }
}
