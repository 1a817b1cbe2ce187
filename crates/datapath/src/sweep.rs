//! Removes answered connections that have ended. The programs stop honouring an ended one by themselves when a
//! packet meets it; this gives back the room of those that no packet meets.

use std::collections::{BTreeMap, BTreeSet};

use cellwall_abi::{CONN_CLOSING, CONN_FIN_OPENER, CONN_FIN_REPLIER, Conn, FlowKey4, FlowKey6, Share};
use cellwall_verdict::conn::{CLOSING_TICKS, IDLE_TICKS};

use crate::error::TableError;
use crate::table::{Plain, Table};
use crate::tables::failed;

const TCP: u8 = 6;
const TICK_NS: u64 = 1 << cellwall_abi::TICK_SHIFT;

/// An open TCP connection without a packet: five days, as `nf_conntrack_tcp_timeout_established` (RFC 5382 asks for
/// at least two hours and four minutes).
pub const TCP_IDLE_TICKS: u32 = ticks(5 * 24 * 3600);
/// A TCP connection of which one side has closed: the other may still send, and pause, so longer than the two
/// minutes of nf_conntrack's states after a FIN.
pub const TCP_HALF_CLOSED_TICKS: u32 = ticks(3600);

#[expect(clippy::cast_possible_truncation, reason = "days fit")]
const fn ticks(seconds: u64) -> u32 {
    (seconds * 1_000_000_000 / TICK_NS) as u32
}

/// A key of a connection.
pub(crate) trait FlowKey: Plain {
    fn ifindex(&self) -> u32;
    fn protocol(&self) -> u8;
}

impl FlowKey for FlowKey4 {
    fn ifindex(&self) -> u32 {
        self.ifindex
    }
    fn protocol(&self) -> u8 {
        self.protocol
    }
}

impl FlowKey for FlowKey6 {
    fn ifindex(&self) -> u32 {
        self.ifindex
    }
    fn protocol(&self) -> u8 {
        self.protocol
    }
}

/// True when the connection has ended at tick `now`.
fn has_ended(protocol: u8, conn: &Conn, now: u32) -> bool {
    let limit = if conn.state & CONN_CLOSING != 0 {
        CLOSING_TICKS
    } else if protocol != TCP {
        IDLE_TICKS
    } else if conn.state & (CONN_FIN_OPENER | CONN_FIN_REPLIER) != 0 {
        TCP_HALF_CLOSED_TICKS
    } else {
        TCP_IDLE_TICKS
    };
    // A packet may have stamped it after the caller looked at the clock: an age below zero is none.
    let age = now.wrapping_sub(conn.seen);
    age > limit && age < u32::MAX / 2
}

/// What a sweep of one table found.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    /// Connections that it removed.
    pub(crate) removed: u64,
    /// Rows that are left, by interface.
    pub(crate) held: BTreeMap<u32, u32>,
}

/// Sweeps one table. `interfaces` are those that exist; `None` when that is not known.
pub(crate) fn sweep<K: FlowKey>(
    table: &Table<K, Conn>,
    name: &'static str,
    interfaces: Option<&BTreeSet<u32>>,
    now: u32,
) -> Result<Swept, TableError> {
    let is_over = |key: &K, conn: &Conn| {
        interfaces.is_some_and(|present| !present.contains(&key.ifindex()))
            || has_ended(key.protocol(), conn, now)
    };
    let mut over = Vec::new();
    let mut swept = Swept::default();
    let see = |key: &K, conn: &Conn| {
        if is_over(key, conn) {
            over.push(*key);
        } else {
            *swept.held.entry(key.ifindex()).or_default() += 1;
        }
    };
    table.for_each(see).map_err(failed("read", name))?;
    for key in over {
        // A SYN may have opened it again since.
        if table.get(&key).map_err(failed("read", name))?.is_some_and(|conn| is_over(&key, &conn)) {
            swept.removed += u64::from(table.delete(&key).map_err(failed("delete from", name))?);
        }
    }
    Ok(swept)
}

/// What every slot has room for, with what interfaces hold of each family in tables of so many rows; `slots` are those of
/// interfaces. What was added since the tables were walked is counted by the next sweep.
pub(crate) fn shares(
    held: &[BTreeMap<u32, u32>; 2],
    slots: &BTreeMap<u32, u32>,
    rows: u32,
    endpoints: u32,
) -> Vec<(u32, Share)> {
    let free = held.each_ref().map(|held| rows.saturating_sub(held.values().sum()));
    let nobody = Share { taken: free.map(|free| Share::taken_of(0, free)) };
    let mut shares: BTreeMap<u32, Share> = (0..endpoints).map(|slot| (slot, nobody)).collect();
    for (ifindex, slot) in slots {
        let of = |family: usize| {
            Share::taken_of(held[family].get(ifindex).copied().unwrap_or_default(), free[family])
        };
        shares.insert(*slot, Share { taken: [of(0), of(1)] });
    }
    shares.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u32 = 1_000_000;

    fn ended(protocol: u8, state: u8, age: u32) -> bool {
        has_ended(protocol, &Conn { state, seen: NOW.wrapping_sub(age), ..Conn::default() }, NOW)
    }

    #[test]
    fn each_kind_has_its_time() {
        for (protocol, state, limit) in [
            (TCP, CONN_CLOSING, CLOSING_TICKS),
            (TCP, CONN_CLOSING | CONN_FIN_OPENER | CONN_FIN_REPLIER, CLOSING_TICKS),
            (TCP, CONN_FIN_OPENER, TCP_HALF_CLOSED_TICKS),
            (TCP, CONN_FIN_REPLIER, TCP_HALF_CLOSED_TICKS),
            (TCP, 0, TCP_IDLE_TICKS),
            (17, 0, IDLE_TICKS),
            (1, 0, IDLE_TICKS),
            (132, 0, IDLE_TICKS),
        ] {
            assert!(!ended(protocol, state, 0), "{protocol} {state}");
            assert!(!ended(protocol, state, limit), "{protocol} {state}");
            assert!(ended(protocol, state, limit + 1), "{protocol} {state}");
        }
    }

    #[test]
    fn nobody_gets_more_room_than_is_free() {
        // A holds 60 of 100 rows of IPv4, B 10 and none of IPv6; slot 2 is nobody's.
        let held = [BTreeMap::from([(7, 60), (8, 10)]), BTreeMap::new()];
        let slots = BTreeMap::from([(7, 0), (8, 1)]);
        let room: Vec<[u32; 2]> = shares(&held, &slots, 100, 3)
            .into_iter()
            .map(|(_, share)| share.taken.map(|taken| u32::MAX - taken))
            .collect();
        assert_eq!(room, [[0, 12], [2, 12], [3, 12]]);
    }

    #[test]
    fn a_packet_after_the_look_at_the_clock_is_no_end() {
        assert!(!ended(17, 0, u32::MAX));
        // The tick wraps after 146 years; a connection does not end by it.
        let conn = Conn { seen: u32::MAX - 1, ..Conn::default() };
        assert!(!has_ended(17, &conn, 3));
    }
}
