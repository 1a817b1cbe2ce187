//! What the kernel says about interfaces and the namespaces at their other ends.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cellwall_abi::Mac;

use crate::netlink::{
    self, AddressHead, Attributes, Body, GET_ADDRESS, GET_LINK, LinkHead, Message, Requests, text,
};

const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_PEER: u16 = 5;
const LINK_INFO: u16 = 18;
const LINK_INFO_KIND: u16 = 1;
const LINK_EXT_MASK: u16 = 29;
const LINK_NETNSID: u16 = 37;
const LINK_XDP: u16 = 43;
const LINK_XDP_ATTACHED: u16 = 2;
const LINK_TARGET_NETNSID: u16 = 46;
/// `RTEXT_FILTER_SKIP_STATS`: nobody reads them here.
const SKIP_STATS: u32 = 8;

const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ADDRESS_TARGET_NETNSID: u16 = 10;

/// A veth whose other end is in another namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) ifindex: u32,
    pub(super) name: String,
    pub(super) host_mac: Mac,
    /// Index of the other end in its namespace.
    pub(super) peer: u32,
    /// Addresses of the other end, sorted, link-local ones left out.
    pub(super) addresses: Vec<IpAddr>,
    /// Ethernet address of the other end.
    pub(super) mac: Mac,
}

/// An interface as one message describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) ifindex: u32,
    pub(super) host_mac: Mac,
    name: String,
    kind: String,
    peer: u32,
    /// The kernel's number of the namespace of the other end, where that is another.
    netns: Option<i32>,
}

/// Understands a message about an interface. `None` for what is about something else: a bridge announces its ports
/// by messages of the same type and another family.
pub(super) fn link(message: &Message) -> Option<Interface> {
    let head: LinkHead = message.head()?;
    if head.family != 0 {
        return None;
    }
    let mut link = Interface {
        ifindex: u32::try_from(head.index).ok()?,
        host_mac: Mac::UNKNOWN,
        name: String::new(),
        kind: String::new(),
        peer: 0,
        netns: None,
    };
    for (kind, content) in message.attributes::<LinkHead>() {
        match kind {
            LINK_ADDRESS => link.host_mac = content.try_into().map_or(Mac::UNKNOWN, Mac::from_octets),
            LINK_NAME => link.name = text(content),
            LINK_PEER => link.peer = content.try_into().map_or(0, u32::from_ne_bytes),
            LINK_NETNSID => link.netns = netns_id(content),
            LINK_INFO => {
                link.kind = Attributes(content)
                    .find(|(k, _)| *k == LINK_INFO_KIND)
                    .map_or_else(String::new, |(_, c)| text(c));
            }
            _ => {}
        }
    }
    Some(link)
}

/// The kernel's number of a namespace; negative: it has none.
fn netns_id(content: &[u8]) -> Option<i32> {
    content.try_into().ok().map(i32::from_ne_bytes).filter(|id| *id >= 0)
}

/// Asks, and puts the answers together.
#[derive(Debug)]
pub(super) struct Reader {
    requests: Requests,
}

impl Reader {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { requests: Requests::open()? })
    }

    /// Indices of all interfaces.
    pub(super) fn interfaces(&mut self) -> io::Result<BTreeSet<u32>> {
        netlink::interfaces(&mut self.requests)
    }

    /// Every veth that leads to another namespace.
    pub(super) fn all(&mut self) -> io::Result<Vec<Seen>> {
        let body = Body::new(&LinkHead::default()).with(LINK_EXT_MASK, &SKIP_STATS.to_ne_bytes());
        let links: Vec<Interface> = self.requests.list(GET_LINK, &body)?.iter().filter_map(link).collect();
        let mut all = Vec::new();
        for link in links {
            all.extend(self.complete(link)?);
        }
        Ok(all)
    }

    /// One of them; `None` when it is gone or is something else.
    pub(super) fn one(&mut self, ifindex: u32) -> io::Result<Option<Seen>> {
        let head = LinkHead { index: ifindex.cast_signed(), ..LinkHead::default() };
        match self.link(&Body::new(&head))? {
            Some(link) => self.complete(link),
            None => Ok(None),
        }
    }

    fn link(&mut self, body: &Body) -> io::Result<Option<Interface>> {
        let body = body.clone().with(LINK_EXT_MASK, &SKIP_STATS.to_ne_bytes());
        Ok(gone_is_none(self.requests.get(GET_LINK, &body))?.flatten().as_ref().and_then(link))
    }

    fn complete(&mut self, link: Interface) -> io::Result<Option<Seen>> {
        let (Some(netns), "veth") = (link.netns, link.kind.as_str()) else { return Ok(None) };
        let there = LinkHead { index: link.peer.cast_signed(), ..LinkHead::default() };
        let peer = self.link(&Body::new(&there).with(LINK_TARGET_NETNSID, &netns.to_ne_bytes()))?;
        let mut addresses = self.addresses_in(netns, link.peer)?;
        addresses.retain(|address| !is_local(*address));
        addresses.sort_unstable();
        addresses.dedup();
        let mac = peer.map_or(Mac::UNKNOWN, |peer| peer.host_mac);
        let Interface { ifindex, host_mac, name, peer, .. } = link;
        Ok(Some(Seen { ifindex, name, host_mac, peer, addresses, mac }))
    }

    /// Addresses of interface `peer` in a namespace; none when the namespace is gone.
    fn addresses_in(&mut self, netns: i32, peer: u32) -> io::Result<Vec<IpAddr>> {
        let body = Body::new(&AddressHead::default()).with(ADDRESS_TARGET_NETNSID, &netns.to_ne_bytes());
        let answers = gone_is_none(self.requests.list(GET_ADDRESS, &body))?.unwrap_or_default();
        let there = |message: &&Message| message.head::<AddressHead>().is_some_and(|head| head.index == peer);
        Ok(answers.iter().filter(there).filter_map(address).collect())
    }

    /// Addresses of this namespace's own interfaces, sorted.
    pub(super) fn own_addresses(&mut self) -> io::Result<Vec<IpAddr>> {
        let answers = self.requests.list(GET_ADDRESS, &Body::new(&AddressHead::default()))?;
        let mut own: Vec<IpAddr> = answers.iter().filter_map(address).collect();
        own.sort_unstable();
        own.dedup();
        Ok(own)
    }
}

/// Indices of interfaces with an XDP program, which sees what comes in before any program of tc does.
pub(crate) fn with_xdp() -> io::Result<BTreeSet<u32>> {
    let body = Body::new(&LinkHead::default()).with(LINK_EXT_MASK, &SKIP_STATS.to_ne_bytes());
    let all = Requests::open()?.list(GET_LINK, &body)?;
    let is_attached = |(kind, content): (u16, &[u8])| kind == LINK_XDP_ATTACHED && content != [0];
    let has_xdp = |message: &&Message| {
        let mut attributes = message.attributes::<LinkHead>();
        attributes.any(|(kind, content)| kind == LINK_XDP && Attributes(content).any(is_attached))
    };
    Ok(all.iter().filter(has_xdp).filter_map(link).map(|link| link.ifindex).collect())
}

/// What is gone between two questions is no error.
fn gone_is_none<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        // EINVAL: the kernel has no namespace of this number any more.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL | libc::ENOENT)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The address of an interface in a message: with a point-to-point peer, `IFA_ADDRESS` is the peer's.
fn address(message: &Message) -> Option<IpAddr> {
    let family = i32::from(message.head::<AddressHead>()?.family);
    let get = |wanted| message.attributes::<AddressHead>().find(|(kind, _)| *kind == wanted).map(|(_, c)| c);
    let content = get(ADDRESS_LOCAL).or_else(|| get(ADDRESS))?;
    match family {
        libc::AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(content).ok()?).into()),
        libc::AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(content).ok()?).into()),
        _ => None,
    }
}

/// An address that says nothing about who has it.
fn is_local(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_bridge_are_not_interfaces() {
        let head = LinkHead { family: 7, index: 3, ..LinkHead::default() };
        let message = Message { kind: 17, body: Body::new(&head).bytes().to_vec() };
        assert_eq!(link(&message), None);
        assert_eq!(link(&Message { kind: 17, body: Vec::new() }), None);
    }

    #[test]
    fn addresses_that_name_nobody() {
        for local in ["127.0.0.1", "::1", "fe80::1", "169.254.1.1", "::", "0.0.0.0", "ff02::1", "224.0.0.1"] {
            assert!(is_local(local.parse().expect("an address")), "{local}");
        }
        for known in ["10.0.0.1", "fd00::1", "192.0.2.1", "2001:db8::1"] {
            assert!(!is_local(known.parse().expect("an address")), "{known}");
        }
    }
}
