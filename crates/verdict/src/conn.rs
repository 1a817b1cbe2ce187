//! Connections: who opened it, whether its verdict still stands, and when it ends.
//!
//! Only the opener's direction needs policy; replies ride on the entry. A SYN is judged whatever the entry says,
//! and one that is denied does not touch the entry. An entry is made where policy allowed a first packet, nowhere
//! else.

use cellwall_abi::{
    Be16, CONN_AUDIT, CONN_CLOSING, CONN_ESTABLISHED, CONN_FIN_OPENER, CONN_FIN_REPLIER, CONN_MIDFLOW,
    CONN_OPENED_BY_POD, CONN_OWN_NODE, CONN_REPLIED, CONN_SELF, Conn, Direction, ENDPOINT_AUDIT, Family,
    Reason, planted,
};

use crate::entry::{Case, Hook};
use crate::header::{ACK, Ethernet, FIN, ICMP, ICMPV6, RST, SYN, TCP};
use crate::parse::{Headers, Parse};
use crate::policy::ask;
use crate::tables::{Packet, Tables};
use crate::{Verdict, icmp};

/// Ticks without an answer, or after the opener's last packet while unanswered.
pub const PENDING_TICKS: u32 = 56;
/// Ticks after the opener's last packet of an answered connection that is not TCP: RFC 4787 asks for two minutes.
pub const IDLE_TICKS: u32 = 168;
/// Ticks after both FINs or a RST.
pub const CLOSING_TICKS: u32 = 10;

/// `remote_port` of an echo that the pod asked.
const ECHO_ASKED_BY_POD: Be16 = Be16::new(1);
/// `remote_port` of an echo that the pod was asked.
const ECHO_ASKED_OF_POD: Be16 = Be16::new(2);

/// The key of a packet's connection.
#[inline(always)]
pub fn key<F: Family>(hook: &Hook, headers: &Headers<F>) -> F::FlowKey {
    let (addresses, mut ports) = match hook.direction() {
        Direction::Egress => {
            ((headers.source, headers.destination), (headers.source_port, headers.destination_port))
        }
        Direction::Ingress => {
            ((headers.destination, headers.source), (headers.destination_port, headers.source_port))
        }
    };
    if matches!(headers.protocol, ICMP | ICMPV6) {
        let asked_by_pod = icmp::is_request(headers) == matches!(hook.direction(), Direction::Egress);
        ports.1 = if asked_by_pod { ECHO_ASKED_BY_POD } else { ECHO_ASKED_OF_POD };
    }
    F::flow_key(hook.ifindex, addresses, ports, headers.protocol)
}

/// Direction of the connection's first packet.
#[inline(always)]
const fn opener(conn: &Conn) -> Direction {
    if conn.flags & CONN_OPENED_BY_POD != 0 { Direction::Egress } else { Direction::Ingress }
}

#[inline(always)]
fn is_from_opener(conn: &Conn, hook: &Hook) -> bool {
    (conn.flags & CONN_OPENED_BY_POD != 0) == matches!(hook.direction(), Direction::Egress)
}

/// A SYN that opens: without ACK, and without flags that contradict it.
#[inline(always)]
pub(crate) fn is_opening<F: Family>(headers: &Headers<F>) -> bool {
    headers.protocol == TCP && headers.flags & (SYN | ACK | RST | FIN) == SYN
}

/// The established path: true when the verdict stands and nothing about the connection changes but its counters.
/// Anything out of the ordinary is false, and the slow path decides.
#[inline(always)]
pub fn established<F: Family, P: Packet, T: Tables<F>>(
    conn: &mut Conn,
    packet: &P,
    tables: &T,
    hook: &Hook,
    headers: &Headers<F>,
) -> bool {
    let is_tcp = headers.protocol == TCP;
    let turns = is_tcp && (headers.flags & (FIN | RST) != 0 || headers.flags & (SYN | ACK) == SYN);
    let is_current = conn.revision == hook.live.0 || planted("revision-not-compared");
    if !is_current || turns || conn.state & CONN_CLOSING != 0 {
        return false;
    }
    if !conn.mac.is_unknown() {
        let Some(frame) = packet.direct::<Ethernet, 0>() else { return false };
        let at_pod = match hook.direction() {
            Direction::Egress => frame.source,
            Direction::Ingress => frame.destination,
        };
        if at_pod != conn.mac {
            return false;
        }
    }
    let now = tables.now();
    if conn.seen != now {
        if !is_tcp && now.wrapping_sub(conn.seen) > IDLE_TICKS {
            return false;
        }
        if is_tcp || is_from_opener(conn, hook) {
            conn.seen = now;
        }
    }
    count(conn, hook.direction(), packet.length());
    true
}

#[inline(always)]
fn count(conn: &mut Conn, direction: Direction, length: u32) {
    conn.packets[direction as usize] += 1;
    conn.bytes[direction as usize] += u64::from(length);
}

/// True when the entry has ended by itself.
#[inline(always)]
fn is_over(conn: &Conn, protocol: u8, is_pending: bool, now: u32) -> bool {
    let limit = if conn.state & CONN_CLOSING != 0 {
        CLOSING_TICKS
    } else if is_pending {
        PENDING_TICKS
    } else if protocol != TCP {
        IDLE_TICKS
    } else {
        return false;
    };
    now.wrapping_sub(conn.seen) > limit
}

/// A packet that may belong to a connection or open one.
#[inline(never)]
pub(crate) fn track<F: Parse, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>) -> Verdict {
    let Case { tables, hook, headers, record, .. } = *case;
    let key = key(hook, headers);
    let now = tables.now();
    if is_opening(headers) && !planted("reply-entry-admits-a-syn") {
        return syn(case, &key, now);
    }
    let Some((conn, is_pending)) = find(case, &key, now) else { return open(case, &key, now) };
    if conn.revision < record.since
        && !planted("since-ignored")
        && let Some(revoked) = judge_again(case, conn)
    {
        // While the pod is taken over, the next segment would pass for one of a connection that nobody saw being
        // opened, perhaps by the other side: the entry stays and says who did.
        if headers.protocol != TCP
            || !is_taken_over(record.midflow_until, now)
            || planted("revoked-is-taken-over")
        {
            tables.remove(&key);
        }
        return revoked;
    }
    conn.revision = hook.live.0;
    if proceed(case, conn, now) && is_pending {
        promote::<F, T>(conn, tables, &key, headers.protocol == TCP);
    }
    Verdict::by_rule(Reason::Established, conn.rule)
}

/// The live connection of a packet, and whether it is unanswered. One that is over is removed.
///
/// One that is being answered is added to FLOWS before it leaves PENDING, so that looking into PENDING and then into
/// FLOWS misses none.
#[inline(always)]
fn find<'a, F: Parse, P: Packet, T: Tables<F>>(
    case: &Case<'a, F, P, T>,
    key: &F::FlowKey,
    now: u32,
) -> Option<(&'a mut Conn, bool)> {
    let Case { tables, headers, .. } = *case;
    let mut found = if case.is_unknown { None } else { tables.flow(key).map(|conn| (conn, false)) };
    if found.is_none() {
        found = tables.pending(key).map(|conn| (conn, true));
    }
    if found.is_none() {
        found = tables.flow(key).map(|conn| (conn, false));
    }
    let (conn, is_pending) = found?;
    if is_over(conn, headers.protocol, is_pending, now) {
        tables.remove(key);
        return None;
    }
    Some((conn, is_pending))
}

/// Asks policy about a live connection, in its opener's direction. `Some` when it is no longer allowed.
#[inline(always)]
fn judge_again<F: Parse, P: Packet, T: Tables<F>>(
    case: &Case<'_, F, P, T>,
    conn: &mut Conn,
) -> Option<Verdict> {
    conn.mac = case.record.mac;
    if conn.flags & (CONN_OWN_NODE | CONN_SELF) != 0 {
        return None;
    }
    let verdict = ask(case, opener(conn));
    if verdict.reason.is_drop() {
        if case.record.flags & ENDPOINT_AUDIT == 0 {
            return Some(Verdict::by_rule(Reason::Revoked, verdict.rule));
        }
        conn.flags |= CONN_AUDIT;
    } else {
        conn.flags &= !CONN_AUDIT;
    }
    conn.rule = verdict.rule;
    None
}

/// The next packet of a connection whose verdict stands. True when it is the one that makes it established: the
/// third packet of a handshake, or the opener's second after an answer.
#[inline(always)]
fn proceed<F: Family, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>, conn: &mut Conn, now: u32) -> bool {
    let Case { packet, hook, headers, .. } = *case;
    let from_opener = is_from_opener(conn, hook);
    let is_tcp = headers.protocol == TCP;
    count(conn, hook.direction(), packet.length());
    if conn.state & CONN_CLOSING != 0 {
        return false;
    }
    if is_tcp || from_opener || planted("responder-keeps-it-open") {
        conn.seen = now;
    }
    if !from_opener {
        conn.state |= CONN_REPLIED;
    }
    if is_tcp {
        if headers.flags & FIN != 0 {
            conn.state |= if from_opener { CONN_FIN_OPENER } else { CONN_FIN_REPLIER };
        }
        let both = CONN_FIN_OPENER | CONN_FIN_REPLIER;
        if headers.flags & RST != 0 || conn.state & both == both {
            conn.state |= CONN_CLOSING;
            return false;
        }
    }
    from_opener && conn.state & CONN_REPLIED != 0 && (!is_tcp || headers.flags & (ACK | SYN) == ACK)
}

/// Moves an answered connection to the table that floods cannot reach. It is added there before it is removed
/// here, so a reader on another CPU finds it in one of them. A full table leaves it where it is.
#[inline(always)]
fn promote<F: Family, T: Tables<F>>(conn: &mut Conn, tables: &T, key: &F::FlowKey, is_tcp: bool) {
    let mut moved = *conn;
    moved.state |= CONN_ESTABLISHED;
    if is_tcp && moved.flags & CONN_MIDFLOW == 0 {
        moved.handshake_us = tables.now_us().wrapping_sub(moved.handshake_us);
    }
    if tables.insert_flow(key, &moved) {
        tables.remove_pending(key);
    }
}

/// Judges a first packet, or one that claims to be.
#[inline(always)]
fn judge_new<F: Parse, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>) -> Verdict {
    match case.exempt() {
        Some(reason) => Verdict::new(reason),
        None => ask(case, case.hook.direction()),
    }
}

/// A SYN that opens: judged as new, whatever is known of its tuple, and before that is looked up. Denied, it touches no
/// entry.
#[inline(always)]
fn syn<F: Parse, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>, key: &F::FlowKey, now: u32) -> Verdict {
    let Case { tables, hook, headers, record, .. } = *case;
    let mut verdict = judge_new(case);
    if planted("own-node-by-address")
        && find(case, key, now).is_some_and(|(conn, _)| conn.flags & CONN_OWN_NODE != 0)
    {
        verdict = Verdict::new(Reason::OwnNode);
    }
    if verdict.reason.is_drop() && record.flags & ENDPOINT_AUDIT == 0 {
        return verdict;
    }
    if let Some(conn) = tables.flow(key) {
        again(case, &verdict, now, conn, is_over(conn, TCP, false, now));
    } else if is_tracked(headers) {
        let mut conn = Conn::default();
        fill(case, &verdict, (hook.direction(), 0), now, &mut conn);
        if !tables.insert_pending(key, &conn, case.slot)
            && let Some(conn) = tables.pending(key)
        {
            again(case, &verdict, now, conn, is_over(conn, TCP, true, now));
        }
    }
    verdict
}

/// A SYN that is allowed, on the tuple of a known connection.
#[inline(always)]
fn again<F: Parse, P: Packet, T: Tables<F>>(
    case: &Case<'_, F, P, T>,
    verdict: &Verdict,
    now: u32,
    conn: &mut Conn,
    is_over: bool,
) {
    if is_from_opener(conn, case.hook) && conn.state & CONN_CLOSING == 0 && !is_over {
        // The same SYN once more.
        conn.revision = case.hook.live.0;
        conn.seen = now;
        count(conn, case.hook.direction(), case.packet.length());
    } else {
        fill(case, verdict, (case.hook.direction(), 0), now, conn);
    }
}

/// A packet without a connection.
#[inline(always)]
fn open<F: Parse, P: Packet, T: Tables<F>>(
    case: &Case<'_, F, P, T>,
    key: &F::FlowKey,
    now: u32,
) -> Verdict {
    let Case { tables, hook, headers, record, .. } = *case;
    let mut verdict = judge_new(case);
    let mut opener = hook.direction();
    let mut flags = 0;
    let mut tracked = is_tracked(headers);
    let was_exempt = matches!(verdict.reason, Reason::OwnNode | Reason::OwnPod);
    if headers.protocol == TCP && !is_opening(headers) && !was_exempt {
        flags = CONN_MIDFLOW;
        let reversed = ask(case, opener.reverse());
        let continues = headers.flags & (ACK | SYN | RST) == ACK;
        if verdict.reason.is_drop() || !continues {
            if is_taken_over(record.midflow_until, now) && !reversed.reason.is_drop() {
                // The other side opened it before anyone looked.
                verdict = Verdict::by_rule(Reason::Midflow, reversed.rule);
                opener = opener.reverse();
            } else if !verdict.reason.is_drop() && !case.is_open() {
                return Verdict::new(Reason::NoConnection);
            } else {
                tracked = false;
            }
        } else if reversed.reason.is_drop() {
            // Either side may have opened it, and one of them must not: the packet passes by its own direction's
            // policy and leaves nothing that would admit the other's.
            tracked = planted("midflow-admits-the-other-side");
        }
    }
    if tracked && (!verdict.reason.is_drop() || record.flags & ENDPOINT_AUDIT != 0) {
        let mut conn = Conn::default();
        fill(case, &verdict, (opener, flags), now, &mut conn);
        tables.insert_pending(key, &conn, case.slot);
    }
    verdict
}

/// True while a pod that was running when its interface was first enforced is taken over.
#[inline(always)]
const fn is_taken_over(until: u32, now: u32) -> bool {
    until != 0 && until.wrapping_sub(now) < u32::MAX / 2
}

/// True when replies can be told: not to a group of receivers, and of ICMP only an echo's request.
#[inline(always)]
fn is_tracked<F: Family>(headers: &Headers<F>) -> bool {
    let is_icmp = matches!(headers.protocol, ICMP | ICMPV6);
    !F::is_group(headers.destination) && (!is_icmp || icmp::is_request(headers))
}

/// Writes the entry that a first packet makes, field by field: the compiler turns a whole-struct copy into a call.
#[inline(always)]
fn fill<F: Parse, P: Packet, T: Tables<F>>(
    case: &Case<'_, F, P, T>,
    verdict: &Verdict,
    (opener, flags): (Direction, u8),
    now: u32,
    conn: &mut Conn,
) {
    let Case { packet, tables, hook, headers, record, .. } = *case;
    let is_handshake = headers.protocol == TCP && flags & CONN_MIDFLOW == 0;
    let opened_by = match (opener, verdict.reason) {
        (Direction::Egress, Reason::OwnPod) => CONN_OPENED_BY_POD | CONN_SELF,
        (Direction::Egress, _) => CONN_OPENED_BY_POD,
        (Direction::Ingress, Reason::OwnNode) => CONN_OWN_NODE,
        (Direction::Ingress, Reason::OwnPod) => CONN_SELF,
        (Direction::Ingress, _) => 0,
    };
    conn.revision = hook.live.0;
    // Neither zeroes nor the Ethernet address as a whole: the compiler makes calls of those, to loops over bytes.
    let into = u64::from(matches!(hook.direction(), Direction::Ingress));
    let length = u64::from(packet.length());
    conn.packets = [into, 1 - into];
    conn.bytes = [length * into, length * (1 - into)];
    conn.seen = now;
    conn.created = now;
    conn.handshake_us = if is_handshake { tables.now_us() } else { 0 };
    conn.rule = verdict.rule;
    conn.mac.0[0] = record.mac.0[0];
    conn.mac.0[1] = record.mac.0[1];
    conn.mac.0[2] = record.mac.0[2];
    conn.state = 0;
    conn.flags = flags | opened_by | if verdict.reason.is_drop() { CONN_AUDIT } else { 0 };
}

/// True when `quoted`, which this pod sent or was sent, belongs to a live connection.
#[inline(always)]
pub(crate) fn is_live<F: Parse, P: Packet, T: Tables<F>>(
    case: &Case<'_, F, P, T>,
    quoted: &Headers<F>,
) -> bool {
    let Case { tables, hook, record, .. } = *case;
    // The quoted packet went the other way through this hook's interface.
    let key = key(&hook.reverse(), quoted);
    let now = tables.now();
    let is_current = |conn: &Conn, is_pending| {
        conn.revision >= record.since && !is_over(conn, quoted.protocol, is_pending, now)
    };
    tables.flow(&key).is_some_and(|conn| is_current(conn, false))
        || tables.pending(&key).is_some_and(|conn| is_current(conn, true))
}
