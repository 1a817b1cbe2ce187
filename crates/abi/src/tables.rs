//! The tables: name and default capacity, one constant each.
//!
//! Names are the map names in the kernel object and the file names of the pins; the kernel keeps 15 bytes of
//! them. Capacities are settings of the agent; these are the defaults.

/// A table: its name and how many rows it has room for unless a setting says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Name of the map and of its pin.
    pub name: &'static str,
    /// Default for `max_entries`.
    pub capacity: u32,
}

macro_rules! tables {
    ($($(#[$doc:meta])* $id:ident = $capacity:expr;)*) => {
        $($(#[$doc])* pub const $id: Table = Table { name: stringify!($id), capacity: $capacity };)*
        /// All of them.
        pub const ALL: &[Table] = &[$($id,)*];
    };
}

tables! {
    /// `[0]` → [`crate::Live`]. Array.
    LIVE = 1;
    /// `[0]` → [`crate::Config`]. Array.
    CONFIG = 1;
    /// Interface index → slot (`u32`). Hash, rows inserted and deleted only.
    ENDPOINTS = 1024;
    /// `record_index(slot, bank)` → [`crate::EndpointRecord`]. Array.
    RECORDS = 2 * ENDPOINTS.capacity;
    /// Slot of an endpoint → [`crate::Bucket`]. Array, written by the programs.
    BUCKETS = ENDPOINTS.capacity;
    /// Slot of an endpoint → [`crate::Share`]. Array, written by the agent and by the programs.
    SHARES = ENDPOINTS.capacity;
    /// IPv4 address → slot in CLASSES (`u32`). Hash, rows inserted and deleted only.
    ADDRESSES4 = 131_072;
    /// IPv6 address → slot in CLASSES (`u32`). Hash, rows inserted and deleted only.
    ADDRESSES6 = 131_072;
    /// Slot → [`crate::ClassPair`]. Array.
    CLASSES = ADDRESSES4.capacity + ADDRESSES6.capacity;
    /// IPv4 prefix → [`crate::ClassPair`]. Longest prefix.
    PREFIXES4 = 65_536;
    /// IPv6 prefix → [`crate::ClassPair`]. Longest prefix.
    PREFIXES6 = 65_536;
    /// [`crate::PolicyKey`] → [`crate::PolicyEntry`]. Hash, rows inserted and deleted only.
    POLICY = 262_144;
    /// [`crate::PortKey`] → [`crate::PortValue`]. Longest prefix.
    PORTS = 65_536;
    /// [`crate::ServiceKey4`] → slot (`u32`). Hash, rows inserted and deleted only.
    SERVICES4 = 16_384;
    /// [`crate::ServiceKey6`] → slot (`u32`). Hash, rows inserted and deleted only.
    SERVICES6 = 16_384;
    /// `record_index(slot, bank)` → [`crate::ServiceRecord`]. Array; slots are given to both families.
    SERVICE_RECORDS = 2 * (SERVICES4.capacity + SERVICES6.capacity);
    /// [`crate::FlowKey4`] → [`crate::Conn`], unanswered. LRU hash.
    PENDING4 = 65_536;
    /// [`crate::FlowKey6`] → [`crate::Conn`], unanswered. LRU hash.
    PENDING6 = 65_536;
    /// [`crate::FlowKey4`] → [`crate::Conn`], answered. Hash.
    FLOWS4 = 262_144;
    /// [`crate::FlowKey6`] → [`crate::Conn`], answered. Hash.
    FLOWS6 = 262_144;
    /// [`crate::FragmentKey4`] → [`crate::Fragment`]. LRU hash.
    FRAGMENTS4 = 8_192;
    /// [`crate::FragmentKey6`] → [`crate::Fragment`]. LRU hash.
    FRAGMENTS6 = 8_192;
    /// [`crate::ChosenKey4`] → [`crate::Chosen`]. LRU hash.
    CHOSEN4 = 16_384;
    /// [`crate::ChosenKey6`] → [`crate::Chosen`]. LRU hash.
    CHOSEN6 = 16_384;
    /// `Reason::counter` → [`crate::Counter`]. Array per CPU.
    COUNTERS = crate::Reason::COUNTERS;
    /// [`crate::Event`]s. Ring buffer; its capacity is in bytes.
    EVENTS = 1 << 20;
}

// The kernel keeps 15 bytes of a name and drops the rest without a word.
const _: () = {
    let mut i = 0;
    while i < ALL.len() {
        assert!(ALL[i].name.len() <= 15);
        i += 1;
    }
};
