//! What differs between IPv4 and IPv6, so that everything else is written once.

use core::fmt::Debug;

use crate::{
    Addr6, Be16, Be32, ChosenKey4, ChosenKey6, EndpointRecord, FlowKey4, FlowKey6, FragmentKey4, FragmentKey6,
};

/// An address family. The decision is one code path, generic over it; the tables are two.
pub trait Family: Copy + Debug + Default + Eq {
    /// An address.
    type Addr: Copy + Default + Eq + Ord + Debug;
    /// Key of a connection.
    type FlowKey: Copy + Eq + Ord + Debug;
    /// Key of a datagram in fragments.
    type FragmentKey: Copy + Eq + Ord + Debug;
    /// Key of a destination behind a translation.
    type ChosenKey: Copy + Eq + Ord + Debug;

    /// True for IPv6.
    const V6: bool;

    /// Key of a connection; addresses and ports are local and remote.
    fn flow_key(
        ifindex: u32,
        addresses: (Self::Addr, Self::Addr),
        ports: (Be16, Be16),
        protocol: u8,
    ) -> Self::FlowKey;

    /// Key of a datagram in fragments; addresses are source and destination.
    fn fragment_key(
        ifindex: u32,
        direction: crate::Direction,
        addresses: (Self::Addr, Self::Addr),
        id: u32,
        protocol: u8,
    ) -> Self::FragmentKey;

    /// Key of a destination that packets of the pod behind `ifindex` had behind a translation.
    fn chosen_key(ifindex: u32, address: Self::Addr, port: Be16, protocol: u8) -> Self::ChosenKey;

    /// The key of the same datagram, judged behind a translation: stage 1.
    fn fragment_behind(key: Self::FragmentKey) -> Self::FragmentKey;

    /// The pod's own address of this family; zero when it has none.
    fn own(record: &EndpointRecord) -> Self::Addr;

    /// True for 0.0.0.0 and `::`.
    fn is_zero(address: Self::Addr) -> bool;

    /// True for multicast, and for the limited broadcast of IPv4.
    fn is_group(address: Self::Addr) -> bool;

    /// As an event carries it.
    fn widen(address: Self::Addr) -> Addr6;

    /// The address that [`Family::widen`] made this of.
    fn narrow(address: Addr6) -> Self::Addr;
}

/// IPv4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct V6;

impl Family for V4 {
    type Addr = Be32;
    type FlowKey = FlowKey4;
    type FragmentKey = FragmentKey4;
    type ChosenKey = ChosenKey4;
    const V6: bool = false;

    #[inline(always)]
    fn flow_key(ifindex: u32, (local, remote): (Be32, Be32), ports: (Be16, Be16), protocol: u8) -> FlowKey4 {
        FlowKey4 { ifindex, local, remote, local_port: ports.0, remote_port: ports.1, protocol, pad: [0; 3] }
    }

    #[inline(always)]
    fn fragment_key(
        ifindex: u32,
        direction: crate::Direction,
        (source, destination): (Be32, Be32),
        id: u32,
        protocol: u8,
    ) -> FragmentKey4 {
        FragmentKey4 {
            ifindex,
            source,
            destination,
            id,
            protocol,
            direction: direction as u8,
            stage: 0,
            pad: 0,
        }
    }

    #[inline(always)]
    fn chosen_key(ifindex: u32, address: Be32, port: Be16, protocol: u8) -> ChosenKey4 {
        ChosenKey4 { ifindex, address, port, protocol, pad: 0 }
    }

    #[inline(always)]
    fn fragment_behind(key: FragmentKey4) -> FragmentKey4 {
        FragmentKey4 { stage: 1, ..key }
    }

    #[inline(always)]
    fn own(record: &EndpointRecord) -> Be32 {
        record.address4
    }

    #[inline(always)]
    fn is_zero(address: Be32) -> bool {
        address == Be32::ZERO
    }

    #[inline(always)]
    fn is_group(address: Be32) -> bool {
        let host = address.get();
        host >> 28 == 0xe || host == u32::MAX
    }

    #[inline(always)]
    fn widen(address: Be32) -> Addr6 {
        Addr6::from_raw([address.get().to_be(), 0, 0, 0])
    }

    #[inline(always)]
    fn narrow(address: Addr6) -> Be32 {
        Be32::new(address.word(0))
    }
}

impl Family for V6 {
    type Addr = Addr6;
    type FlowKey = FlowKey6;
    type FragmentKey = FragmentKey6;
    type ChosenKey = ChosenKey6;
    const V6: bool = true;

    #[inline(always)]
    fn flow_key(
        ifindex: u32,
        (local, remote): (Addr6, Addr6),
        ports: (Be16, Be16),
        protocol: u8,
    ) -> FlowKey6 {
        FlowKey6 { ifindex, local, remote, local_port: ports.0, remote_port: ports.1, protocol, pad: [0; 3] }
    }

    #[inline(always)]
    fn fragment_key(
        ifindex: u32,
        direction: crate::Direction,
        (source, destination): (Addr6, Addr6),
        id: u32,
        _protocol: u8,
    ) -> FragmentKey6 {
        FragmentKey6 {
            ifindex,
            source,
            destination,
            id,
            // The receiver puts together by addresses and id alone (RFC 8200, 4.5), and a later fragment may name
            // an extension header where the first names the transport behind it.
            protocol: 0,
            direction: direction as u8,
            stage: 0,
            pad: 0,
        }
    }

    #[inline(always)]
    fn chosen_key(ifindex: u32, address: Addr6, port: Be16, protocol: u8) -> ChosenKey6 {
        ChosenKey6 { ifindex, address, port, protocol, pad: 0 }
    }

    #[inline(always)]
    fn fragment_behind(key: FragmentKey6) -> FragmentKey6 {
        FragmentKey6 { stage: 1, ..key }
    }

    #[inline(always)]
    fn own(record: &EndpointRecord) -> Addr6 {
        record.address6
    }

    #[inline(always)]
    fn is_zero(address: Addr6) -> bool {
        address == Addr6::ZERO
    }

    #[inline(always)]
    fn is_group(address: Addr6) -> bool {
        address.word(0) >> 24 == 0xff
    }

    #[inline(always)]
    fn widen(address: Addr6) -> Addr6 {
        address
    }

    #[inline(always)]
    fn narrow(address: Addr6) -> Addr6 {
        address
    }
}
