//! A node and its pods as network namespaces: for tests of the data path and for the demo.
//!
//! ```text
//!  host namespace                         pod namespace (one per pod)
//!  ┌──────────────────────────┐           ┌───────────────────────────┐
//!  │ cw1  10.244.0.1/32 ──────┼── veth ───┼── eth0  10.244.0.11/32    │
//!  │      fd00:244::1/128     │           │         fd00:244::11/128  │
//!  │ routes, forwarding       │           │ default via the host side │
//!  └──────────────────────────┘           └───────────────────────────┘
//! ```
//!
//! [`Net::new`] makes the host namespace, [`Net::pod`] a pod behind a veth with an IPv4 and an IPv6 address, and
//! [`Net::outside`] the same with an address of the world. Every namespace can run code ([`Namespace::run`], on a
//! thread of its own), processes ([`Namespace::spawn`]) and `ip` commands ([`Namespace::ip`]):
//!
//! ```no_run
//! use std::net::{SocketAddr, TcpListener, TcpStream};
//! use std::process::Command;
//! use cellwall_testkit::net::Net;
//!
//! let mut net = Net::new("demo").expect("root");
//! let web = net.pod().expect("a pod");
//! let client = net.pod().expect("another");
//! let listener = web.namespace.run(|| TcpListener::bind((web.v4, 80))).expect("a free port");
//! let stream = client.namespace.run(|| TcpStream::connect(SocketAddr::from((web.v4, 80))));
//! let agent = net.host.spawn(Command::new("cellwall-agent").args(["--pin-name", net.name()]));
//! # let _ = (listener, stream, agent);
//! ```
//!
//! The namespaces have no name in the file system: they live as long as a descriptor, a thread or a process in
//! them does. So nothing is left behind, not even by a test that was killed, and two runs never meet. The
//! machine's own namespace is not touched. [`Net::name`] has a random part and serves for whatever does need a
//! name: pins, folders. Needs root and iproute2.

mod namespace;
mod packet;

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use namespace::{Namespace, Process};
pub use packet::PacketSocket;

/// The host's address on every veth.
pub const GATEWAY4: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// The host's IPv6 address on every veth.
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 1);

/// The bridge of [`Net::bridged_pod`].
pub const BRIDGE: &str = "br0";

/// True for a process that may make namespaces. Tests that need it print `skipped: needs root` otherwise.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A node: its namespace, and the pods behind it.
#[derive(Debug)]
pub struct Net {
    /// The node's own namespace: forwards between its pods.
    pub host: Namespace,
    name: String,
    pods: u8,
    outside: u8,
}

/// A pod: a namespace behind a veth.
#[derive(Debug)]
pub struct Pod {
    /// Its namespace. The interface in it is `eth0`.
    pub namespace: Namespace,
    /// Name of the host side of its veth.
    pub interface: String,
    /// Index of the host side.
    pub ifindex: u32,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// Ethernet address of `eth0`.
    pub mac: [u8; 6],
    /// Ethernet address of the host side.
    pub host_mac: [u8; 6],
}

/// Where traffic begins or ends, whoever made it.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// Its namespace.
    pub namespace: &'a Namespace,
    /// Its IPv4 and its IPv6 address.
    pub addresses: [IpAddr; 2],
}

impl Pod {
    /// Both addresses.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// As one end of traffic.
    pub fn host(&self) -> Host<'_> {
        Host { namespace: &self.namespace, addresses: self.addresses() }
    }
}

impl Net {
    /// A node without pods. `tag` becomes part of the name.
    pub fn new(tag: &str) -> io::Result<Self> {
        let mut random = [0; 4];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let mut name = format!("cellwall-{tag}-");
        for byte in random {
            let _ = write!(name, "{byte:02x}");
        }
        let host = Namespace::new()?;
        host.ip(&["link set lo up"])?;
        for knob in ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/default/forwarding"] {
            host.sysctl(knob, "1")?;
        }
        // No wait until an address is known to be unique, and no router advertisements between the parts.
        host.sysctl("ipv6/conf/default/accept_dad", "0")?;
        Ok(Self { host, name, pods: 0, outside: 0 })
    }

    /// `cellwall-<tag>-<random>`: a name that no other run has.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next pod: 10.244.0.11 and `fd00:244::11`, then .12 and so on.
    pub fn pod(&mut self) -> io::Result<Pod> {
        self.pods = self.pods.checked_add(1).filter(|n| *n < 200).ok_or(io::ErrorKind::QuotaExceeded)?;
        let n = 10 + self.pods;
        let v6 = format!("fd00:244::{n}").parse().expect("two digits and more are hexadecimal, too");
        self.connect(&format!("cw{}", self.pods), Ipv4Addr::new(10, 244, 0, n), v6)
    }

    /// Somebody who is no pod of this cluster: 192.0.2.1 and `2001:db8::1`, then .2 and so on.
    pub fn outside(&mut self) -> io::Result<Pod> {
        self.outside = self.outside.checked_add(1).ok_or(io::ErrorKind::QuotaExceeded)?;
        let n = self.outside;
        let v6 = format!("2001:db8::{n}").parse().expect("digits are hexadecimal, too");
        self.connect(&format!("out{n}"), Ipv4Addr::new(192, 0, 2, n), v6)
    }

    /// A namespace with these addresses behind a veth whose host side has the name `interface`.
    pub fn connect(&self, interface: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> io::Result<Pod> {
        self.connect_at(None, interface, v4, v6)
    }

    /// The same, the host side having this index, which nobody has.
    pub fn connect_at(
        &self,
        index: Option<u32>,
        interface: &str,
        v4: Ipv4Addr,
        v6: Ipv6Addr,
    ) -> io::Result<Pod> {
        let index = index.map_or_else(String::new, |index| format!("index {index} "));
        let namespace = Namespace::new()?;
        namespace.sysctl("ipv6/conf/default/accept_dad", "0")?;
        namespace.ip(&["link set lo up"])?;
        self.host.ip(&[
            &format!("link add {interface} {index}type veth peer name eth0 netns {}", namespace.path()),
            &format!("address add {GATEWAY4}/32 dev {interface}"),
            &format!("address add {GATEWAY6}/128 dev {interface} nodad"),
            &format!("link set {interface} up"),
        ])?;
        namespace.ip(&[
            &format!("address add {v4}/32 dev eth0"),
            &format!("address add {v6}/128 dev eth0 nodad"),
            "link set eth0 up",
            &format!("route add {GATEWAY4} dev eth0 scope link"),
            &format!("route add default via {GATEWAY4} src {v4}"),
            &format!("route add {GATEWAY6} dev eth0"),
            &format!("route add default via {GATEWAY6} src {v6}"),
        ])?;
        // Neighbours are given: a test of policy does not wait for, or count, their discovery.
        let (mac, host_mac) = (namespace.mac("eth0")?, self.host.mac(interface)?);
        let (own, host) = (namespace::mac_text(mac), namespace::mac_text(host_mac));
        self.host.ip(&[
            &format!("route add {v4} dev {interface}"),
            &format!("route add {v6} dev {interface}"),
            &format!("neighbour replace {v4} lladdr {own} dev {interface}"),
            &format!("neighbour replace {v6} lladdr {own} dev {interface}"),
        ])?;
        namespace.ip(&[
            &format!("neighbour replace {GATEWAY4} lladdr {host} dev eth0"),
            &format!("neighbour replace {GATEWAY6} lladdr {host} dev eth0"),
        ])?;
        let ifindex = self.host.ifindex(interface)?;
        Ok(Pod { namespace, interface: interface.to_owned(), ifindex, v4, v6, mac, host_mac })
    }

    /// The next pod, as [`Net::pod`], with the host side of its veth in the bridge [`BRIDGE`], which has the gateway's
    /// addresses and is made with the first: what the node routes to and from such pods passes the bridge.
    pub fn bridged_pod(&mut self) -> io::Result<Pod> {
        self.pods = self.pods.checked_add(1).filter(|n| *n < 200).ok_or(io::ErrorKind::QuotaExceeded)?;
        if self.host.ifindex(BRIDGE).is_err() {
            self.host.ip(&[
                &format!("link add {BRIDGE} type bridge"),
                &format!("address add {GATEWAY4}/24 dev {BRIDGE}"),
                &format!("address add {GATEWAY6}/64 dev {BRIDGE} nodad"),
                &format!("link set {BRIDGE} up"),
            ])?;
        }
        let (n, interface) = (10 + self.pods, format!("cw{}", self.pods));
        let v4 = Ipv4Addr::new(10, 244, 0, n);
        let v6: Ipv6Addr =
            format!("fd00:244::{n}").parse().expect("two digits and more are hexadecimal, too");
        let namespace = Namespace::new()?;
        namespace.sysctl("ipv6/conf/default/accept_dad", "0")?;
        namespace.ip(&["link set lo up"])?;
        self.host.ip(&[
            &format!("link add {interface} type veth peer name eth0 netns {}", namespace.path()),
            &format!("link set {interface} master {BRIDGE}"),
            // A packet may go back the way it came, as a pod's own Service asks for: the kubelet sets it, too.
            &format!("link set {interface} type bridge_slave hairpin on"),
            &format!("link set {interface} up"),
        ])?;
        namespace.ip(&[
            &format!("address add {v4}/24 dev eth0"),
            &format!("address add {v6}/64 dev eth0 nodad"),
            "link set eth0 up",
            &format!("route add default via {GATEWAY4}"),
            &format!("route add default via {GATEWAY6}"),
        ])?;
        let (mac, host_mac) = (namespace.mac("eth0")?, self.host.mac(&interface)?);
        let ifindex = self.host.ifindex(&interface)?;
        Ok(Pod { namespace, interface, ifindex, v4, v6, mac, host_mac })
    }

    /// Removes a pod: its veth at once, its namespace when nothing runs in it any more.
    pub fn remove(&self, pod: Pod) -> io::Result<()> {
        self.host.ip(&[&format!("link delete {}", pod.interface)])?;
        drop(pod);
        Ok(())
    }
}
