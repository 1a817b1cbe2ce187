//! What is counted and told about a verdict.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use cellwall_abi::{
    Addr6, Be16, Counter, Direction, EVENT_AUDIT, EVENT_V6, Event, Reason, V4, V6, tables as t,
};
use cellwall_verdict::header::{ETH_IPV4, ETH_IPV6};
use cellwall_verdict::parse::Parse;
use cellwall_verdict::{Packet, Tables, Verdict};

use crate::tables::Maps;

#[map]
static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(t::COUNTERS.capacity, 0);
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(t::EVENTS.capacity, 0);

/// Counts a verdict.
#[inline(always)]
pub fn count(reason: Reason, direction: Direction, bytes: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(reason.counter(direction)) {
        // SAFETY: an element of this CPU's array; nothing else on this CPU writes it meanwhile.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(bytes);
        }
    }
}

/// Addresses and ports of a packet as an event has them.
struct Tuple {
    source: Addr6,
    destination: Addr6,
    source_port: Be16,
    destination_port: Be16,
    protocol: u8,
}

/// Addresses and ports as far as they can be read.
#[inline(always)]
fn tuple<F: Parse, P: Packet>(frame: &P) -> Option<Tuple> {
    let headers = F::simple(frame).or_else(|| F::full(frame).ok())?;
    Some(Tuple {
        source: F::widen(headers.source),
        destination: F::widen(headers.destination),
        source_port: headers.source_port,
        destination_port: headers.destination_port,
        protocol: headers.protocol,
    })
}

/// Tells the agent about a drop. Does not wake it.
///
/// The event is written where it is read, field by field: one that is made on the stack is set to zero by a loop and
/// then copied, which took half of the time of a denied packet.
#[inline(never)]
pub fn emit<P: Packet>(frame: &P, direction: Direction, ifindex: u32, verdict: &Verdict) {
    let ether_type = frame.ether_type().get();
    let tuple = match ether_type {
        ETH_IPV4 => tuple::<V4, P>(frame),
        ETH_IPV6 => tuple::<V6, P>(frame),
        _ => None,
    };
    let tuple = tuple.unwrap_or(Tuple {
        source: Addr6::ZERO,
        destination: Addr6::ZERO,
        source_port: Be16::default(),
        destination_port: Be16::default(),
        protocol: 0,
    });
    let flags =
        if verdict.audit { EVENT_AUDIT } else { 0 } | if ether_type == ETH_IPV6 { EVENT_V6 } else { 0 };
    let Some(mut room) = EVENTS.reserve::<Event>(0) else { return };
    let event: *mut Event = room.as_mut_ptr();
    // SAFETY: the kernel has reserved room for one event, every field of which is written.
    unsafe {
        (*event).time_ns = bpf_ktime_get_coarse_ns();
        (*event).revision = Tables::<V4>::live(&Maps).0;
        (*event).ifindex = ifindex;
        (*event).rule = verdict.rule;
        (*event).source = tuple.source;
        (*event).destination = tuple.destination;
        (*event).source_port = tuple.source_port;
        (*event).destination_port = tuple.destination_port;
        (*event).protocol = tuple.protocol;
        (*event).direction = direction as u8;
        (*event).reason = verdict.reason as u8;
        (*event).flags = flags;
    }
    room.submit(u64::from(BPF_RB_NO_WAKEUP));
}
