//! For `cellwall-bench` alone, and in no other object: the driver, which makes 50,000 flows of one test frame, and
//! floors, which are the least that a program at this hook can do for a case.
//!
//! Tables of the floors are as large as those of the shipped programs that they stand for, and their values are the
//! smallest that could do the work.
#![no_std]
#![no_main]

mod drive;

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, TC_ACT_SHOT};
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, ProgramArray};
use aya_ebpf::programs::TcContext;
use cellwall_abi::tables as t;

use crate::drive::Drive;

const NEXT: i32 = -1;
const SHOT: i32 = TC_ACT_SHOT;
/// What the driver returns when it could not do its work; no program returns it.
const BROKEN: i32 = 99;

#[map]
static DRIVE: Array<Drive> = Array::with_max_entries(1, 0);
#[map]
static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(16, 0);

/// The tuple as it stands in the packet, and the interface.
#[derive(Clone, Copy)]
#[repr(C)]
struct Flow {
    source: u32,
    destination: u32,
    ports: u32,
    ifindex: u32,
    protocol: u32,
}

#[map]
static FLOWS: HashMap<Flow, u64> = HashMap::with_max_entries(t::FLOWS4.capacity, 0);
#[map]
static FIRST: LruHashMap<Flow, u64> = LruHashMap::with_max_entries(t::PENDING4.capacity, 0);
#[map]
static RULES: LpmTrie<u32, u32> = LpmTrie::with_max_entries(t::PREFIXES4.capacity, BPF_F_NO_PREALLOC);
#[map]
static REVISION: Array<u64> = Array::with_max_entries(1, 0);

/// A word at `offset` of the frame, when it is there. Offsets past the Ethernet header are aligned.
#[inline(always)]
fn at<T: Copy>(context: &TcContext, offset: usize) -> Option<*mut T> {
    let start = context.data();
    if start + offset + size_of::<T>() > context.data_end() {
        return None;
    }
    Some((start + offset) as *mut T)
}

/// What follows the Ethernet header of a TCP segment over IPv4 without options.
#[derive(Clone, Copy)]
#[repr(C)]
struct Segment4 {
    version_length: u8,
    service: u8,
    length_id_fragment: [u16; 3],
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
    ports: [u16; 2],
    sequence: [u32; 2],
    offset: u8,
    flags: u8,
}

/// The same over IPv6 without extension headers.
#[derive(Clone, Copy)]
#[repr(C)]
struct Segment6 {
    first: [u32; 2],
    source: [u32; 4],
    destination: [u32; 4],
    ports: [u16; 2],
    sequence: [u32; 2],
    offset: u8,
    flags: u8,
}

const NETWORK: usize = 14;

/// Takes the settings of the next packet.
#[inline(always)]
fn next() -> Option<(Drive, drive::Tuple)> {
    let drive = DRIVE.get_ptr_mut(0)?;
    // SAFETY: the element is there for as long as the program; one thread drives.
    unsafe {
        let flow = (*drive).next;
        (*drive).next = if flow + 1 >= (*drive).flows { 0 } else { flow + 1 };
        Some((*drive, (*drive).tuple(flow)))
    }
}

/// Source and destination port, in network order, of a packet of this direction.
#[inline(always)]
fn ports(drive: &Drive, tuple: &drive::Tuple) -> [u16; 2] {
    let (client, server) = (tuple.client_port.to_be(), tuple.server_port.to_be());
    if drive.to_pod == drive.opened_by_peer { [client, server] } else { [server, client] }
}

/// Hands the frame over; returns only when there is no such program. The mark that the last program left is overwritten.
#[inline(always)]
fn go(context: &TcContext, drive: &Drive) -> i32 {
    // SAFETY: the context is valid for the whole run.
    unsafe { (*context.skb.skb).mark = drive.mark };
    // SAFETY: the context is the one that this program was given.
    unsafe { PROGRAMS.tail_call(context, drive.program) };
    BROKEN
}

/// Writes the next flow into an IPv4 frame. The pod's address is in it already, in the place where it belongs, and the
/// peer's first byte.
#[classifier]
pub fn drive4(context: TcContext) -> i32 {
    let (Some((drive, tuple)), Some(segment)) = (next(), at::<Segment4>(&context, NETWORK)) else {
        return BROKEN;
    };
    let peer = (0x0a00_0000 | tuple.peer).to_be();
    // SAFETY: within the frame, as `at` has checked.
    unsafe {
        if drive.to_pod == 1 {
            (*segment).source = peer;
        } else {
            (*segment).destination = peer;
        }
        (*segment).ports = ports(&drive, &tuple);
        (*segment).flags = drive.flags as u8;
    }
    go(&context, &drive)
}

/// [`drive4`] for IPv6: the last four bytes of the peer's address are written.
#[classifier]
pub fn drive6(context: TcContext) -> i32 {
    let (Some((drive, tuple)), Some(segment)) = (next(), at::<Segment6>(&context, NETWORK)) else {
        return BROKEN;
    };
    let peer = (0x0a00_0000 | tuple.peer).to_be();
    // SAFETY: as above.
    unsafe {
        if drive.to_pod == 1 {
            (*segment).source[3] = peer;
        } else {
            (*segment).destination[3] = peer;
        }
        (*segment).ports = ports(&drive, &tuple);
        (*segment).flags = drive.flags as u8;
    }
    go(&context, &drive)
}

#[inline(always)]
fn parse(context: &TcContext) -> Option<Flow> {
    // SAFETY: within the frame, as `at` has checked; the context is valid for the whole run.
    let (segment, skb) = unsafe { (&*at::<Segment4>(context, NETWORK)?, &*context.skb.skb) };
    if skb.protocol as u16 != 0x0800_u16.to_be() || segment.version_length != 0x45 {
        return None;
    }
    Some(Flow {
        source: segment.source,
        destination: segment.destination,
        ports: u32::from(segment.ports[0]) << 16 | u32::from(segment.ports[1]),
        ifindex: skb.ifindex,
        protocol: segment.protocol.into(),
    })
}

/// Nothing at all: what is subtracted from everything.
#[classifier]
pub fn empty(_: TcContext) -> i32 {
    NEXT
}

/// Established: the headers, the word that says what is live, the connection, the coarse clock; the time of the
/// connection is written once a second.
#[classifier]
pub fn lean_est(context: TcContext) -> i32 {
    let Some(flow) = parse(&context) else { return SHOT };
    let (Some(revision), Some(seen)) = (REVISION.get(0), FLOWS.get_ptr_mut(flow)) else { return SHOT };
    // SAFETY: the helper has no arguments; the row stays readable and writable for this run.
    unsafe {
        let now = bpf_ktime_get_coarse_ns();
        if now - *seen > 1_000_000_000 {
            *seen = now;
        }
    }
    if *revision == 0 { NEXT } else { SHOT }
}

/// A first packet: the headers, a connection that is not there, the peer, and the connection added.
#[classifier]
pub fn first_lru(context: TcContext) -> i32 {
    let Some(flow) = parse(&context) else { return SHOT };
    if FIRST.get_ptr(flow).is_some() {
        return NEXT;
    }
    if RULES.get(Key::new(32, flow.source)).is_none() {
        return SHOT;
    }
    let _ = FIRST.insert(flow, 1, 0);
    NEXT
}

/// A denied packet: the headers, a connection that is not there, the peer.
#[classifier]
pub fn parse_hash_lpm(context: TcContext) -> i32 {
    let Some(flow) = parse(&context) else { return SHOT };
    // SAFETY: rows of this table are not deleted while packets run.
    let known = unsafe { FLOWS.get(flow) }.is_some_and(|seen| *seen == u64::MAX);
    let listed = RULES.get(Key::new(32, flow.source)).is_some();
    if known || listed { NEXT } else { SHOT }
}

/// In a pod: takes all datagrams over IPv4, so that nothing behind it is measured.
#[classifier]
pub fn sink(context: TcContext) -> i32 {
    match parse(&context) {
        Some(flow) if flow.protocol == 17 => SHOT,
        _ => NEXT,
    }
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
