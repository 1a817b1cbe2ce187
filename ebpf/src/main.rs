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
use cellwall_verdict::process;

use crate::packet::Frame;
use crate::tables::Maps;

/// `TCX_NEXT` and `TC_ACT_UNSPEC`: the next program of the chain decides. `TC_ACT_OK` would end the chain.
const NEXT: i32 = -1;

/// tc egress of the host side of a pod's interface: what enters the pod.
#[classifier]
pub fn to_pod(context: TcContext) -> i32 {
    run(&context, Direction::Ingress)
}

/// tc ingress of the host side of a pod's interface: what leaves the pod.
#[classifier]
pub fn from_pod(context: TcContext) -> i32 {
    run(&context, Direction::Egress)
}

/// The only place that lets a packet go.
#[inline(always)]
fn run(context: &TcContext, direction: Direction) -> i32 {
    let frame = Frame::new(context);
    let verdict = process(&frame, &Maps, direction);
    report::count(verdict.reason, direction, frame.bytes());
    if verdict.reason.is_drop() {
        report::emit(&frame, direction, &verdict);
    }
    if verdict.passes() { NEXT } else { TC_ACT_SHOT as i32 }
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
