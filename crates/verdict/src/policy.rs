//! What a pod's image says about a remote address and a port.

use cellwall_abi::{
    ACTION_ALLOW, Be16, CLASS_WORLD, Direction, Family, INLINE_INTERVALS, PolicyEntry, PolicyKey, PortKey,
    RULE_NONE, Reason, planted,
};

use crate::Verdict;
use crate::entry::Case;
use crate::tables::{Packet, Tables};

/// The entry for the remote address: the exception of the image for its class, else the default in the record.
#[inline(always)]
fn entry<'a, F: Family, P: Packet, T: Tables<F>>(
    case: &Case<'a, F, P, T>,
    direction: Direction,
    address: &F::Addr,
) -> &'a PolicyEntry {
    let Case { tables, hook, record, .. } = *case;
    let bank = if planted("wrong-bank") { hook.live.idle_bank() } else { hook.live.bank() };
    let class = tables.class(address, bank);
    // The default of an image is what it answers to the world, so there is no row for it.
    if class == CLASS_WORLD {
        return &record.default[direction as usize];
    }
    match tables.policy(&PolicyKey { image: record.image[direction as usize], class }) {
        Some(exception) => exception,
        None => &record.default[direction as usize],
    }
}

/// Asks policy about the connection of this packet, if it was opened in `direction`.
#[inline(always)]
pub(crate) fn ask<F: Family, P: Packet, T: Tables<F>>(
    case: &Case<'_, F, P, T>,
    direction: Direction,
) -> Verdict {
    let headers = case.headers;
    if case.record.image[direction as usize] == 0 {
        return Verdict::new(Reason::NotIsolated);
    }
    let entry = entry(case, direction, &case.remote());
    let (action, rule) = if headers.has_ports() {
        look_up::<F, T>(case.tables, entry, headers.protocol, case.asked_port(direction))
    } else {
        (entry.rest_action, entry.rest_rule)
    };
    answer(action, rule)
}

/// Asks policy about the connection of this packet, if the other side opened it.
#[inline(never)]
pub(crate) fn ask_reversed<F: Family, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>) -> Verdict {
    ask(case, case.hook.direction().reverse())
}

/// Asks the egress policy of an isolated pod about another destination than the packet's.
#[inline(never)]
pub(crate) fn ask_backend<F: Family, P: Packet, T: Tables<F>>(
    case: &Case<'_, F, P, T>,
    address: &F::Addr,
    port: Be16,
) -> Verdict {
    let entry = entry(case, Direction::Egress, address);
    let (action, rule) = look_up::<F, T>(case.tables, entry, case.headers.protocol, port);
    answer(action, rule)
}

/// Asks policy about a later fragment whose first was not seen: allowed when some port of its protocol is. The
/// first fragment is still judged, so nothing denied can be put together again.
#[inline(always)]
pub(crate) fn ask_some_port<F: Family, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>) -> bool {
    let entry = entry(case, case.hook.direction(), &case.remote());
    entry.some & PolicyEntry::protocol_bit(case.headers.protocol) != 0
}

/// The action and rule for one port.
#[inline(always)]
fn look_up<F: Family, T: Tables<F>>(tables: &T, entry: &PolicyEntry, protocol: u8, port: Be16) -> (u8, u32) {
    if entry.list != 0 {
        let (key, _) = PortKey::block(entry.list, protocol, port.get(), 0);
        return match tables.port(&key) {
            Some(value) => (value.action, value.rule),
            None => (entry.rest_action, entry.rest_rule),
        };
    }
    let port = port.get();
    for i in 0..INLINE_INTERVALS {
        let interval = &entry.intervals[i];
        if i < entry.count as usize
            && interval.protocol == protocol
            && interval.low <= port
            && port <= interval.high
        {
            return (interval.action, interval.rule);
        }
    }
    (entry.rest_action, entry.rest_rule)
}

#[inline(always)]
const fn answer(action: u8, rule: u32) -> Verdict {
    if action == ACTION_ALLOW {
        Verdict::by_rule(Reason::Allowed, rule)
    } else if rule == RULE_NONE {
        Verdict::new(Reason::DefaultDeny)
    } else {
        Verdict::by_rule(Reason::Denied, rule)
    }
}
