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

/// Addresses and ports as far as they can be read.
#[inline(always)]
fn tuple<F: Parse, P: Packet>(frame: &P, event: &mut Event) {
    let headers = match F::simple(frame) {
        Some(headers) => headers,
        None => match F::full(frame) {
            Ok(headers) => headers,
            Err(_) => return,
        },
    };
    event.source = F::widen(headers.source);
    event.destination = F::widen(headers.destination);
    event.source_port = headers.source_port;
    event.destination_port = headers.destination_port;
    event.protocol = headers.protocol;
}

/// Tells the agent about a drop. Does not wake it.
#[inline(never)]
pub fn emit<P: Packet>(frame: &P, direction: Direction, ifindex: u32, verdict: &Verdict) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else { return };
    let event = entry.write(Event {
        // SAFETY: the helper has no arguments and cannot fail.
        time_ns: unsafe { bpf_ktime_get_coarse_ns() },
        revision: Tables::<V4>::live(&Maps).0,
        ifindex,
        rule: verdict.rule,
        source: Addr6::ZERO,
        destination: Addr6::ZERO,
        source_port: Be16::default(),
        destination_port: Be16::default(),
        protocol: 0,
        direction: direction as u8,
        reason: verdict.reason as u8,
        flags: if verdict.audit { EVENT_AUDIT } else { 0 },
    });
    match frame.ether_type().get() {
        ETH_IPV4 => tuple::<V4, P>(frame, event),
        ETH_IPV6 => {
            event.flags |= EVENT_V6;
            tuple::<V6, P>(frame, event);
        }
        _ => {}
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}
