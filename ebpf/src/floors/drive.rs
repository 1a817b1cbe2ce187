//! Which packets the driver makes: the one thing that the driver and `cellwall-bench` share.
//!
//! Peers and ports are numbered, and the addresses of the numbers are scattered over their range, so that rows of
//! neighbouring numbers stand neither beside each other in a table nor under one branch of a trie. Ports are two apart:
//! neighbours would be one range to a compiler of policies.

use zerocopy::{Immutable, IntoBytes};

/// Settings of the driver, and its place in the series.
#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
pub struct Drive {
    /// The next flow.
    pub next: u32,
    /// Flows, after which the first comes again.
    pub flows: u32,
    /// Peers that the flows are spread over.
    pub peers: u32,
    /// Number of the first of them.
    pub first_peer: u32,
    /// Destination ports that the flows are spread over, every other one.
    pub ports: u32,
    /// The first of them.
    pub first_port: u32,
    /// TCP flags.
    pub flags: u32,
    /// 1: the peer opened the flow, else the pod.
    pub opened_by_peer: u32,
    /// 1: the packet goes from the peer to the pod.
    pub to_pod: u32,
    /// Which of the programs gets the packet.
    pub program: u32,
    /// Its mark.
    pub mark: u32,
}

/// A flow's tuple but for the pod's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// The peer's address: the low 24 bits of one of IPv4, the low 32 of one of IPv6.
    pub peer: u32,
    /// The opener's port.
    pub client_port: u16,
    /// The port that was opened.
    pub server_port: u16,
}

/// Spreads `flow` over `count` values, in no order. By a multiplication with an odd number and the high half of
/// another one, since a division costs as much as a lookup.
#[inline(always)]
fn spread(flow: u32, odd: u32, count: u32) -> u32 {
    ((u64::from(flow.wrapping_mul(odd)) * u64::from(count)) >> 32) as u32
}

/// The address of a peer within 24 bits; no two peers below 2^24 have the same.
#[inline(always)]
pub fn address(peer: u32) -> u32 {
    peer.wrapping_mul(0x0051_3a8d) & 0x00ff_ffff
}

impl Drive {
    /// The tuple of a flow.
    #[inline(always)]
    pub fn tuple(&self, flow: u32) -> Tuple {
        let peer = self.first_peer.wrapping_add(spread(flow, 0xc2b2_ae35, self.peers));
        let server_port = self.first_port.wrapping_add(2 * spread(flow, 0x1656_67b1, self.ports));
        Tuple {
            peer: address(peer),
            client_port: (8192 + flow % 57_000) as u16,
            server_port: server_port as u16,
        }
    }
}
