//! A packet as the kernel hands it over.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{
    bpf_loop, bpf_skb_load_bytes, bpf_skb_load_bytes_relative, bpf_skb_pull_data,
};
use aya_ebpf::programs::TcContext;
use cellwall_abi::{Be16, Reason};
use cellwall_verdict::header::NETWORK;
use cellwall_verdict::{Packet, Step};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Bits of a VLAN tag that are its id; the others are priority and eligibility to be dropped (IEEE 802.1Q).
const VLAN_ID: u32 = 0xfff;

/// A packet at a hook. With `BY_NETWORK` it is read from where the kernel says that its network header is, since
/// interfaces of a node need not have Ethernet's: offsets stay those of an Ethernet frame.
pub struct Skb<const BY_NETWORK: bool> {
    skb: *mut __sk_buff,
}

/// The frame at the hook of a pod, whose interface is Ethernet.
pub type Frame = Skb<false>;
/// The packet at the hook of any interface.
pub type Datagram = Skb<true>;

/// `BPF_HDR_START_NET`.
const FROM_NETWORK: u32 = 1;
/// As much as headers take; what is longer is no header that is read.
const HEADERS: u32 = 512;

impl<const BY_NETWORK: bool> Skb<BY_NETWORK> {
    #[inline(always)]
    pub fn new(context: &TcContext) -> Self {
        Self { skb: context.skb.skb }
    }

    #[inline(always)]
    fn skb(&self) -> &__sk_buff {
        // SAFETY: the context is valid for the whole run of the program.
        unsafe { &*self.skb }
    }

    /// Length of the frame in bytes.
    #[inline(always)]
    pub fn bytes(&self) -> u32 {
        self.skb().len
    }
}

/// What a step of a walk needs, on the stack of the program that called `bpf_loop`.
struct Walk<S, const BY_NETWORK: bool> {
    packet: Skb<BY_NETWORK>,
    state: S,
}

/// One step, as `bpf_loop` calls it: 0 goes on, 1 stops.
unsafe extern "C" fn step<S: Step, const BY_NETWORK: bool>(_index: u32, context: *mut c_void) -> i64 {
    // SAFETY: `bpf_loop` hands over the pointer that `walk` gave it, and `walk` outlives the loop.
    let walk = unsafe { &mut *context.cast::<Walk<S, BY_NETWORK>>() };
    i64::from(!walk.state.step(&walk.packet))
}

impl<const BY_NETWORK: bool> Packet for Skb<BY_NETWORK> {
    #[inline(always)]
    fn walk<S: Step + Copy>(&self, max: u32, start: S) -> S {
        let mut walk = Walk { packet: Self { skb: self.skb }, state: start };
        // SAFETY: the callback takes what it is given here, and nothing keeps the pointer afterwards.
        unsafe { bpf_loop(max, step::<S, BY_NETWORK> as *mut c_void, (&raw mut walk).cast(), 0) };
        walk.state
    }

    #[inline(always)]
    fn read<T: FromBytes>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes size_of::<T>() bytes to `value` or fails; any bytes are a T (FromBytes).
        let result = unsafe {
            let (skb, to, length) = (self.skb.cast(), value.as_mut_ptr().cast(), size_of::<T>() as u32);
            if BY_NETWORK {
                bpf_skb_load_bytes_relative(skb, offset.wrapping_sub(NETWORK), to, length, FROM_NETWORK)
            } else {
                bpf_skb_load_bytes(skb, offset, to, length)
            }
        };
        // SAFETY: written in full when the helper succeeded.
        (result == 0).then(|| unsafe { value.assume_init() })
    }

    #[inline(always)]
    fn direct<T: FromBytes + KnownLayout + Immutable, const OFFSET: usize>(&self) -> Option<&T> {
        if BY_NETWORK {
            return None;
        }
        let (start, end) = (self.skb().data as usize, self.skb().data_end as usize);
        if start + OFFSET + size_of::<T>() > end {
            return None;
        }
        // SAFETY: in bounds, as just checked; any bytes are a T. The kernel reserves NET_IP_ALIGN bytes in front
        // of a frame, so that what follows the Ethernet header is aligned to four.
        Some(unsafe { &*((start + OFFSET) as *const T) })
    }

    /// A byte that is not at the start of a word of the stack is one that the verifier does not keep the value of.
    #[inline(always)]
    fn forget(&self, reason: Reason) -> Reason {
        let mut word = MaybeUninit::<u64>::uninit();
        let byte = word.as_mut_ptr().cast::<Reason>().wrapping_add(1);
        // SAFETY: the second of eight bytes, read as what was just written.
        unsafe {
            byte.write_volatile(reason);
            byte.read_volatile()
        }
    }

    #[inline(always)]
    fn pull(&self) {
        let length = self.skb().len;
        // SAFETY: no reference into the packet is held across: what has this method is read by copies.
        unsafe { bpf_skb_pull_data(self.skb, if length < HEADERS { length } else { HEADERS }) };
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.skb().len
    }

    #[inline(always)]
    fn ether_type(&self) -> Be16 {
        Be16::from_raw(self.skb().protocol as u16)
    }

    #[inline(always)]
    fn has_vlan_tag(&self) -> bool {
        self.skb().vlan_present != 0 && self.skb().vlan_tci & VLAN_ID != 0
    }

    #[inline(always)]
    fn is_segmented(&self) -> bool {
        self.skb().gso_size != 0
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.skb().ifindex
    }

    #[inline(always)]
    fn ingress_ifindex(&self) -> u32 {
        self.skb().ingress_ifindex
    }

    #[inline(always)]
    fn mark(&self) -> u32 {
        // SAFETY: the context is valid for the whole run of the program. Volatile, since a value that is kept from one
        // look to the next makes the verifier follow everything in between once for each value.
        unsafe { (&raw const (*self.skb).mark).read_volatile() }
    }

    #[inline(always)]
    fn tc_index(&self) -> u32 {
        self.skb().tc_index
    }

    #[inline(always)]
    fn set_stamp(&self, mark: u32, tc_index: u32) {
        // SAFETY: the context is valid for the whole run of the program, and both fields may be written. Volatile,
        // since the kernel takes no other access than to a field by its own offset.
        unsafe {
            (&raw mut (*self.skb).mark).write_volatile(mark);
            (&raw mut (*self.skb).tc_index).write_volatile(tc_index);
        }
    }
}
