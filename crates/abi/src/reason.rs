//! Why a packet passed or was dropped, and how often.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Packets and bytes of one (reason, direction), per CPU.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counter {
    /// Frames.
    pub packets: u64,
    /// Bytes of whole frames.
    pub bytes: u64,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $value:literal $drop:literal $label:literal,)*) => {
        /// Why a packet passed or was dropped. Index of the table of counters (`reason * 2 + direction`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $name = $value,)* }

        impl Reason {
            /// All of them, by number.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// True when the packet was dropped (or, in audit, would have been).
            #[must_use]
            pub const fn is_drop(self) -> bool { match self { $(Self::$name => $drop,)* } }

            /// The name in metrics, events and answers.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Self::$name => $label,)* } }

            /// From its number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($value => Some(Self::$name),)* _ => None }
            }
        }
    };
}

reasons! {
    /// Part of a connection whose verdict stands.
    Established = 0 false "established",
    /// A rule allows it.
    Allowed = 1 false "allowed",
    /// Nothing isolates the pod in this direction.
    NotIsolated = 2 false "not_isolated",
    /// Made by the pod's own node (S59).
    OwnNode = 3 false "own_node",
    /// The pod itself, through its own interface (S64).
    OwnPod = 4 false "own_pod",
    /// An ICMP error about a connection of this pod.
    Related = 5 false "related",
    /// ARP, neighbour discovery, multicast listener reports.
    Neighbour = 6 false "neighbour",
    /// TCP without a handshake seen, allowed while a running pod is taken over.
    Midflow = 7 false "midflow",
    /// A later fragment of an allowed datagram.
    FragmentFollows = 8 false "fragment_follows",
    /// The interface is known, the pod behind it is not yet.
    Unidentified = 9 false "unidentified",
    /// To an address that this node translates: judged where its destination is known.
    Deferred = 10 false "deferred",
    /// The pod is isolated and no rule allows it.
    DefaultDeny = 16 true "default_deny",
    /// A rule denies it.
    Denied = 17 true "denied",
    /// A live connection that policy no longer allows.
    Revoked = 18 true "revoked",
    /// The pod is not known and [`crate::CONFIG_STRICT`] is set.
    UnidentifiedStrict = 19 true "unidentified_strict",
    /// Shorter than its headers.
    Truncated = 20 true "truncated",
    /// Version, header length or total length contradict each other.
    Malformed = 21 true "malformed",
    /// Neither IPv4, IPv6 nor ARP.
    EtherType = 22 true "ethertype",
    /// An IPv6 header chain that is too long, routes by way of others, or ends in no next header.
    Extension = 23 true "extension",
    /// IPv4 source routing.
    SourceRoute = 24 true "source_route",
    /// Source address or MAC is not the pod's.
    Spoofed = 25 true "spoofed",
    /// Destination address or MAC is not the pod's; from a pod, an address that no wire leads to.
    NotAddressed = 26 true "not_addressed",
    /// A TCP packet that opens nothing and belongs to nothing.
    NoConnection = 27 true "no_connection",
    /// A first fragment without a whole transport header, or TCP at fragment offset 1 (RFC 3128).
    TinyFragment = 28 true "tiny_fragment",
    /// A later fragment of a datagram that was denied, or that no rule for its protocol could allow.
    FragmentDenied = 29 true "fragment_denied",
    /// An ICMP error about nothing this pod has.
    Unrelated = 30 true "unrelated",
    /// A router advertisement or redirect from a pod, or neighbour discovery that RFC 4861 forbids.
    NeighbourForged = 31 true "neighbour_forged",
    /// A stamp of no pod that is known: whose egress is to be judged cannot be said.
    StampUnknown = 33 true "stamp_unknown",
    /// A tunnel from a pod to a node, which would take out of it a packet that nobody judged.
    Tunnel = 34 true "tunnel",
}

impl Reason {
    /// Rows of the table of counters: two directions each, with room to grow.
    pub const COUNTERS: u32 = 2 * 64;

    /// Row of the table of counters.
    #[inline(always)]
    #[must_use]
    pub const fn counter(self, direction: crate::Direction) -> u32 {
        (self as u32) * 2 + direction as u32
    }
}
