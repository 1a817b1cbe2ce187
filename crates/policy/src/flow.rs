//! A flow and what is decided about it: the only words that the compiler, the oracle and the tests share.

use core::fmt;
use core::net::IpAddr;

pub use cellwall_abi::Direction;

/// An IP protocol number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// SCTP.
    pub const SCTP: Self = Self(132);
    /// ICMP of IPv4.
    pub const ICMP: Self = Self(1);
    /// ICMP of IPv6.
    pub const ICMPV6: Self = Self(58);

    /// True for the protocols of which a rule can name ports.
    #[must_use]
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TCP => f.write_str("TCP"),
            Self::UDP => f.write_str("UDP"),
            Self::SCTP => f.write_str("SCTP"),
            Self::ICMP => f.write_str("ICMP"),
            Self::ICMPV6 => f.write_str("ICMPv6"),
            Self(number) => write!(f, "protocol {number}"),
        }
    }
}

/// The first packet of a connection, as one pod's interface sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// The pod's own address.
    pub local: IpAddr,
    /// Into the pod or out of it.
    pub direction: Direction,
    /// The other address, of the same family as `local`.
    pub remote: IpAddr,
    /// True when the pod's own node made the packet (decided by where it came from, never by its address).
    pub from_own_node: bool,
    /// Protocol number.
    pub protocol: Protocol,
    /// Destination port, host byte order; 0 for protocols without ports.
    pub port: u16,
}

/// What is decided about a flow at one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// Delivered.
    Allow,
    /// Dropped.
    Deny,
}
