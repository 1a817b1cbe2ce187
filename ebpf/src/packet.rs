//! A packet as the kernel hands it over.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_skb_load_bytes};
use aya_ebpf::programs::TcContext;
use cellwall_abi::Be16;
use cellwall_verdict::{Packet, Step};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// The frame at the hook.
pub struct Frame {
    skb: *mut __sk_buff,
}

impl Frame {
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
struct Walk<S> {
    frame: Frame,
    state: S,
}

/// One step, as `bpf_loop` calls it: 0 goes on, 1 stops.
unsafe extern "C" fn step<S: Step>(_index: u32, context: *mut c_void) -> i64 {
    // SAFETY: `bpf_loop` hands over the pointer that `walk` gave it, and `walk` outlives the loop.
    let walk = unsafe { &mut *context.cast::<Walk<S>>() };
    i64::from(!walk.state.step(&walk.frame))
}

impl Packet for Frame {
    #[inline(always)]
    fn walk<S: Step + Copy>(&self, max: u32, start: S) -> S {
        let mut walk = Walk { frame: Self { skb: self.skb }, state: start };
        // SAFETY: the callback takes what it is given here, and nothing keeps the pointer afterwards.
        unsafe { bpf_loop(max, step::<S> as *mut c_void, (&raw mut walk).cast(), 0) };
        walk.state
    }

    #[inline(always)]
    fn read<T: FromBytes>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes size_of::<T>() bytes to `value` or fails; any bytes are a T (FromBytes).
        let result = unsafe {
            bpf_skb_load_bytes(self.skb.cast(), offset, value.as_mut_ptr().cast(), size_of::<T>() as u32)
        };
        // SAFETY: written in full when the helper succeeded.
        (result == 0).then(|| unsafe { value.assume_init() })
    }

    #[inline(always)]
    fn direct<T: FromBytes + KnownLayout + Immutable, const OFFSET: usize>(&self) -> Option<&T> {
        let (start, end) = (self.skb().data as usize, self.skb().data_end as usize);
        if start + OFFSET + size_of::<T>() > end {
            return None;
        }
        // SAFETY: in bounds, as just checked; any bytes are a T. The kernel reserves NET_IP_ALIGN bytes in front
        // of a frame, so that what follows the Ethernet header is aligned to four.
        Some(unsafe { &*((start + OFFSET) as *const T) })
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
        self.skb().vlan_present != 0
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
        self.skb().mark
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
