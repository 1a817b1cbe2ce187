//! What a policy image says about a class: the heart of the tables.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The packet is allowed.
pub const ACTION_ALLOW: u8 = 1;
/// The packet is denied.
pub const ACTION_DENY: u8 = 2;

/// No rule: nothing isolates the pod, or nothing matched and the default answered.
pub const RULE_NONE: u32 = 0;

/// Intervals that stand in the entry itself; more go to the table of ports.
pub const INLINE_INTERVALS: usize = 3;

/// Key of the table of exceptions: what differs, for one class, from the default of an image.
#[derive(
    Clone,
    Copy,
    Default,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct PolicyKey {
    /// Id of the image: a pod's compiled policy in one direction, shared by all pods with the same rules. Never 0.
    pub image: u32,
    /// Class of the remote address.
    pub class: u32,
}

/// One range of destination ports of one protocol.
#[derive(
    Clone,
    Copy,
    Default,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Interval {
    /// First port, host byte order.
    pub low: u16,
    /// Last port, inclusive, host byte order.
    pub high: u16,
    /// Id of the rule that decides here.
    pub rule: u32,
    /// IP protocol number: 6, 17 or 132.
    pub protocol: u8,
    /// [`ACTION_ALLOW`] or [`ACTION_DENY`].
    pub action: u8,
    /// Zero.
    pub pad: [u8; 2],
}

/// What an image says about one class, all tiers flattened.
///
/// Compilation resolves tiers, priorities, Pass and the union of rules into intervals that do not overlap, so a
/// lookup is at most one hit and never a search for a winner: an interval that holds the (protocol, port), else
/// `rest`. `rest` also answers what has no ports (ICMP and all other protocols), which only rules without ports
/// can allow (S32, S73). Up to [`INLINE_INTERVALS`] intervals stand here, which covers nearly every policy that
/// people write, so the common verdict is one cache line; more go to the table of ports under `list`.
///
/// `some` has a bit per protocol of which some port is allowed: a later fragment whose first was not seen
/// carries no port and passes exactly then.
#[derive(
    Clone,
    Copy,
    Default,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct PolicyEntry {
    /// The intervals when `list` is 0; unused ones are zero.
    pub intervals: [Interval; INLINE_INTERVALS],
    /// Id of the rule behind `rest_action`, or [`RULE_NONE`] for the default.
    pub rest_rule: u32,
    /// Id of a list in the table of ports, or 0 when the intervals stand here.
    pub list: u32,
    /// How many of `intervals` are used.
    pub count: u8,
    /// What holds where no interval matches: [`ACTION_ALLOW`] or [`ACTION_DENY`].
    pub rest_action: u8,
    /// Bit [`PolicyEntry::protocol_bit`] is set when some port of that protocol is allowed.
    pub some: u8,
    /// Zero.
    pub pad: u8,
}

impl PolicyEntry {
    /// An entry without intervals.
    #[must_use]
    pub const fn only_rest(action: u8, rule: u32) -> Self {
        let zero = Interval { low: 0, high: 0, rule: 0, protocol: 0, action: 0, pad: [0; 2] };
        Self {
            intervals: [zero; INLINE_INTERVALS],
            rest_rule: rule,
            list: 0,
            count: 0,
            rest_action: action,
            some: if action == ACTION_ALLOW { 0xff } else { 0 },
            pad: 0,
        }
    }

    /// The bit of a protocol number in `some`.
    #[inline(always)]
    #[must_use]
    pub const fn protocol_bit(protocol: u8) -> u8 {
        match protocol {
            6 => 1,
            17 => 2,
            132 => 4,
            _ => 8,
        }
    }
}

/// Key data of the table of ports, a longest-prefix table: one lookup whatever the length of a list. A range
/// becomes at most 30 prefixes of (list, protocol, port), and since intervals do not overlap the longest match is
/// the only match.
#[derive(
    Clone,
    Copy,
    Default,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct PortKey {
    /// Id of the list, network byte order.
    pub list: crate::Be32,
    /// Zero.
    pub pad: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port.
    pub port: crate::Be16,
}

impl PortKey {
    /// Prefix length of a key that names one port.
    pub const BITS: u32 = 64;

    /// The key of a block of ports, and its prefix length: the `2^free_bits` ports from `port` on.
    #[must_use]
    pub const fn block(list: u32, protocol: u8, port: u16, free_bits: u32) -> (Self, u32) {
        let key = Self { list: crate::Be32::new(list), pad: 0, protocol, port: crate::Be16::new(port) };
        (key, Self::BITS - free_bits)
    }
}

/// Value of the table of ports.
#[derive(
    Clone,
    Copy,
    Default,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct PortValue {
    /// Id of the rule that decides here.
    pub rule: u32,
    /// [`ACTION_ALLOW`] or [`ACTION_DENY`].
    pub action: u8,
    /// Zero.
    pub pad: [u8; 3],
}
