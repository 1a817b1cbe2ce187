//! What the decision needs from outside: the packet's bytes and the tables.

use cellwall_abi::{
    Be16, Chosen, Conn, Direction, EndpointRecord, Family, Fragment, Live, PolicyEntry, PolicyKey, PortKey,
    PortValue, Reason, ServiceRecord,
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// A walk over a packet, one step at a time. Written as a step instead of a loop because the verifier follows every
/// path through a loop, and one step through `bpf_loop` only once.
pub trait Step {
    /// Takes a step; false ends the walk.
    fn step<P: Packet>(&mut self, packet: &P) -> bool;
}

/// A packet at a hook.
pub trait Packet: Sized {
    /// Takes steps until one ends the walk, at most `max` of them.
    fn walk<S: Step + Copy>(&self, max: u32, start: S) -> S;
    /// Reads `T` at `offset` from the start of the frame, wherever the bytes are; `None` past the end.
    fn read<T: FromBytes>(&self, offset: u32) -> Option<T>;
    /// `T` at `OFFSET` when those bytes are in the linear part. An absence says nothing about the packet.
    fn direct<T: FromBytes + KnownLayout + Immutable, const OFFSET: usize>(&self) -> Option<&T>;
    /// The same reason, of which the verifier knows nothing: it follows what comes next once instead of once for every
    /// reason. Everywhere else nothing.
    fn forget(&self, reason: Reason) -> Reason {
        reason
    }
    /// Brings the headers into the linear part. No reference from [`Packet::direct`] outlives it.
    fn pull(&self);
    /// Length of the frame in bytes.
    fn length(&self) -> u32;
    /// EtherType as the kernel understood it.
    fn ether_type(&self) -> Be16;
    /// The kernel has taken a VLAN tag with an id out of the frame. A tag with id 0 is a priority: receivers take such a
    /// frame as if it had none, and so does the decision.
    fn has_vlan_tag(&self) -> bool;
    /// A segment that the kernel or the device will cut up: its lengths may be zero.
    fn is_segmented(&self) -> bool;
    /// Index of the interface of the hook.
    fn ifindex(&self) -> u32;
    /// Index of the interface that received the packet, or 0: this node made it.
    fn ingress_ifindex(&self) -> u32;
    /// The mark (`skb->mark`).
    fn mark(&self) -> u32;
    /// The 16 bits that go with a packet through the node (`skb->tc_index`).
    fn tc_index(&self) -> u32;
    /// Sets both.
    fn set_stamp(&self, mark: u32, tc_index: u32);
}

/// The tables, and the clock.
pub trait Tables<F: Family> {
    /// The live word.
    fn live(&self) -> Live;
    /// An interface without a known pod drops ([`cellwall_abi::CONFIG_STRICT`]).
    fn strict(&self) -> bool;
    /// Slot and record of an interface in a bank.
    fn record(&self, ifindex: u32, bank: u32) -> Option<(u32, &EndpointRecord)>;
    /// Record of a slot in a bank; one that was never written is zero.
    fn record_of(&self, slot: u32, bank: u32) -> Option<&EndpointRecord>;
    /// The bit of the mark that says that a packet is stamped; 0: none is ([`cellwall_abi::Config::mark`]).
    fn mark(&self) -> u32;
    /// What is known in a bank of an address, port and protocol that this node translates.
    fn service(&self, address: &F::Addr, port: Be16, protocol: u8, bank: u32) -> Option<&ServiceRecord>;
    /// Class of an address in a bank: exact, else longest prefix, else the world.
    fn class(&self, address: &F::Addr, bank: u32) -> u32;
    /// What differs from the default of an image.
    fn policy(&self, key: &PolicyKey) -> Option<&PolicyEntry>;
    /// What a list says about a port.
    fn port(&self, key: &PortKey) -> Option<PortValue>;
    /// An answered connection. The reference is to the live row: other CPUs may write it too.
    #[expect(
        clippy::mut_from_ref,
        reason = "rows of a kernel table are shared; Conn says what a race can do"
    )]
    fn flow(&self, key: &F::FlowKey) -> Option<&mut Conn>;
    /// An unanswered connection; see [`Tables::flow`].
    #[expect(clippy::mut_from_ref, reason = "as above")]
    fn pending(&self, key: &F::FlowKey) -> Option<&mut Conn>;
    /// Adds an answered connection that has left PENDING; false when the table is full, or the pod in `slot` has no room
    /// there.
    fn insert_flow(&self, key: &F::FlowKey, conn: &Conn, slot: u32) -> bool;
    /// Adds an unanswered connection, if the pod in `slot` may still add one in this tick and it is not there yet; true
    /// when it was added.
    fn insert_pending(&self, key: &F::FlowKey, conn: &Conn, slot: u32) -> bool;
    /// An unanswered connection of the pod in `slot` is answered: the pod may add another for it.
    fn answered(&self, conn: &Conn, slot: u32);
    /// Removes an answered connection.
    fn remove_flow(&self, key: &F::FlowKey);
    /// Removes an unanswered connection.
    fn remove_pending(&self, key: &F::FlowKey);
    /// What the first fragment of a datagram was told.
    fn fragment(&self, key: &F::FragmentKey) -> Option<Fragment>;
    /// Remembers what a first fragment was told, if the pod in `slot` may still have one remembered in this tick and
    /// direction. What was allowed is not forgotten for what was denied: ids come round again, and a denied first reaches
    /// nobody, whatever follows it.
    fn insert_fragment(&self, key: &F::FragmentKey, fragment: &Fragment, at: (u32, Direction));
    /// What was said of a destination behind a translation.
    fn chosen(&self, key: &F::ChosenKey) -> Option<Chosen>;
    /// Remembers it.
    fn insert_chosen(&self, key: &F::ChosenKey, chosen: &Chosen);
    /// Current tick ([`cellwall_abi::TICK_SHIFT`]), coarse.
    fn now(&self) -> u32;
    /// Microseconds of the monotonic clock, low 32 bits, as coarse: in steps of the kernel's timer, 1 to 10 ms.
    fn now_us(&self) -> u32;
}
