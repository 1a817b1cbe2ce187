//! The kernel programs: entry points and maps. What they decide is in `cellwall-verdict`.
#![no_std]
#![no_main]

mod packet;
mod report;
mod tables;

use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use cellwall_abi::Direction;
use cellwall_verdict::{Arrival, Packet, arrive, process};

use crate::packet::{Datagram, Frame};
use crate::tables::Maps;

/// `TCX_NEXT` and `TC_ACT_UNSPEC`: the next program of the chain decides. `TC_ACT_OK` would end the chain.
const NEXT: i32 = -1;

/// tc egress of the host side of a pod's interface: what enters the pod.
#[classifier]
pub fn to_pod(context: TcContext) -> i32 {
    if !arrived(&context) {
        return TC_ACT_SHOT;
    }
    run(&context, Direction::Ingress)
}

/// tc ingress of the host side of a pod's interface: what leaves the pod.
#[classifier]
pub fn from_pod(context: TcContext) -> i32 {
    run(&context, Direction::Egress)
}

/// tc egress of the node's other interfaces: what pods sent leaves for where it was translated to.
#[classifier]
pub fn from_node(context: TcContext) -> i32 {
    if arrived(&context) { NEXT } else { TC_ACT_SHOT }
}

/// Judges the egress of the pod that stamped a packet; false when the packet must not go on. What passes was counted
/// when it left its pod.
#[inline(always)]
fn arrived(context: &TcContext) -> bool {
    let packet = Datagram::new(context);
    if packet.mark() != 0 {
        cold();
    } else {
        return true;
    }
    let Arrival { verdict, ifindex } = arrive(&packet, &Maps);
    let verdict = verdict.forgotten(&packet);
    if verdict.reason.is_drop() {
        report::count(verdict.reason, Direction::Egress, packet.bytes());
        let ifindex = if ifindex == 0 { packet.ifindex() } else { ifindex };
        report::emit(&packet, Direction::Egress, ifindex, &verdict);
    }
    verdict.passes()
}

#[cold]
#[inline(always)]
fn cold() {}

/// Judges a packet of the pod at this hook.
#[inline(always)]
fn run(context: &TcContext, direction: Direction) -> i32 {
    let frame = Frame::new(context);
    let verdict = process(&frame, &Maps, direction).forgotten(&frame);
    report::count(verdict.reason, direction, frame.bytes());
    if verdict.reason.is_drop() {
        report::emit(&frame, direction, frame.ifindex(), &verdict);
    }
    if verdict.passes() { NEXT } else { TC_ACT_SHOT }
}

/// Reached by nothing: the verifier refuses a program in which a panic can be reached.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

// The helpers that the programs call are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
