//! Connections: who opened it, whether its verdict still stands, and when it ends.
//!
//! Only the opener's direction needs policy; replies ride on the entry. A SYN is judged whatever the entry says,
//! and one that is denied does not touch the entry. An entry is made where policy allowed a first packet, nowhere
//! else.

use cellwall_abi::{
    CONN_AUDIT, CONN_CLOSING, CONN_DEFERRED, CONN_DIRECT, CONN_ESTABLISHED, CONN_FIN_OPENER,
    CONN_FIN_REPLIER, CONN_GUESSED, CONN_LISTED, CONN_MIDFLOW, CONN_OPENED_BY_POD, CONN_OWN_NODE,
    CONN_REPLIED, CONN_SELF, CONN_STAMPED, Conn, Direction, Family, Live, Reason, planted,
};

use crate::entry::{Case, is_audited};
use crate::header::{ACK, Ethernet, FIN, ICMP, ICMPV6, INIT, INIT_ACK, RST, SCTP, SYN, TCP};
use crate::key::key;
use crate::parse::{Headers, Parse};
use crate::policy::{ask, ask_reversed};
use crate::tables::{Packet, Tables};
use crate::{Verdict, icmp, older, stage};

/// Ticks without an answer, or after the opener's last packet while unanswered.
pub const PENDING_TICKS: u32 = 56;
/// Ticks after the opener's last packet of an answered connection that is not TCP: RFC 4787 asks for two minutes.
pub const IDLE_TICKS: u32 = 168;
/// Ticks without the opener after which a connection that was seen unchanged is looked at again: before nf_conntrack
/// forgets it, which is 30 s for a datagram, and would then translate what comes next. A tick may be almost over when it
/// is counted.
pub const QUIET_TICKS: u32 = 26;
/// Ticks after both FINs or a RST.
pub const CLOSING_TICKS: u32 = 10;

/// Direction of the connection's first packet.
#[inline(always)]
pub(crate) const fn opener(conn: &Conn) -> Direction {
    if conn.flags & CONN_OPENED_BY_POD != 0 { Direction::Egress } else { Direction::Ingress }
}

#[inline(always)]
fn is_from_opener(conn: &Conn, direction: Direction) -> bool {
    (conn.flags & CONN_OPENED_BY_POD != 0) == matches!(direction, Direction::Egress)
}

/// A SYN that opens: without ACK, and without flags that contradict it. Or an INIT of SCTP.
#[inline(always)]
pub(crate) fn is_opening<F: Family>(headers: &Headers<F>) -> bool {
    match headers.protocol {
        TCP if planted("a-syn-with-more-is-an-answer") => headers.flags == SYN,
        TCP => headers.flags & (SYN | ACK | RST | FIN) == SYN,
        SCTP => headers.flags == INIT && !planted("an-init-is-an-answer"),
        _ => false,
    }
}

/// What answers such a packet: SYN and ACK, or INIT ACK. The row of what it answers is the youngest of its tuple.
#[inline(always)]
fn is_answer<F: Family>(headers: &Headers<F>) -> bool {
    match headers.protocol {
        TCP => headers.flags & SYN != 0,
        SCTP => headers.flags == INIT_ACK,
        _ => false,
    }
}

/// The established path: true when the verdict stands and nothing about the connection changes but its counters.
/// Anything out of the ordinary is false, and the slow path decides. `direction` is that of the hook, as a constant.
#[inline(always)]
pub fn established<F: Family, P: Packet, T: Tables<F>>(
    conn: &mut Conn,
    packet: &P,
    tables: &T,
    (live, direction): (Live, Direction),
    headers: &Headers<F>,
) -> bool {
    let is_tcp = headers.protocol == TCP;
    let turns = is_answer(headers) || is_tcp && headers.flags & (FIN | RST) != 0;
    let is_current = conn.revision == live.0 || planted("revision-not-compared");
    let is_whole =
        headers.lengths_hold(packet, headers.transport_end()) || planted("lengths-lie-within-connections");
    let now = tables.now();
    let from_opener = is_from_opener(conn, direction);
    let limit = match from_opener {
        true => QUIET_TICKS,
        false if is_tcp => FOR_EVER,
        false => IDLE_TICKS,
    };
    let is_quiet = is_older_than(limit, conn.seen, now);
    if !is_current || turns || conn.state & CONN_CLOSING != 0 || !is_whole || is_quiet {
        return false;
    }
    if !conn.mac.is_unknown() {
        let Some(frame) = packet.direct::<Ethernet, 0>() else { return false };
        let at_pod = match direction {
            Direction::Egress => frame.source,
            Direction::Ingress => frame.destination,
        };
        if at_pod != conn.mac {
            return false;
        }
    }
    if conn.seen != now && (is_tcp || from_opener) {
        conn.seen = now;
    }
    count(conn, direction, packet.length());
    true
}

#[inline(always)]
fn count(conn: &mut Conn, direction: Direction, length: u32) {
    let direction = if planted("both-sides-count-as-one") { Direction::Ingress } else { direction };
    conn.packets[direction as usize] = conn.packets[direction as usize].wrapping_add(1);
    conn.bytes[direction as usize] += u64::from(length);
}

/// True when the entry has ended by itself.
#[inline(always)]
pub(crate) fn is_over(conn: &Conn, protocol: u8, is_pending: bool, now: u32) -> bool {
    if planted("who-was-asked-answers-for-ever") && matches!(opener(conn), Direction::Ingress) {
        return false;
    }
    let limit = if conn.state & CONN_CLOSING != 0 {
        CLOSING_TICKS
    } else if is_pending && (conn.state & CONN_ESTABLISHED == 0 || planted("without-room-is-unanswered")) {
        PENDING_TICKS
    } else if protocol != TCP {
        IDLE_TICKS
    } else {
        return false;
    };
    is_older_than(limit, conn.seen, now)
}

/// More ticks than an age can be.
const FOR_EVER: u32 = u32::MAX / 2;

/// True when more than `limit` ticks passed from `then` to `now`. A packet that was held up may have looked at the clock
/// before another, on another CPU, that has been `then`: the age is below zero, and no age.
#[inline(always)]
pub(crate) fn is_older_than(limit: u32, then: u32, now: u32) -> bool {
    if planted("before-is-long-ago") {
        return now.wrapping_sub(then) > limit;
    }
    now.wrapping_sub(then).cast_signed() > limit.cast_signed()
}

/// A packet that may belong to a connection and opens none. [`Reason::NoConnection`] when [`open`] must decide: one
/// function after the other takes less of the stack than one in the other.
#[inline(never)]
pub(crate) fn track<F: Parse, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>) -> Verdict {
    let Case { tables, hook, headers, record, .. } = *case;
    let key = key(hook, headers);
    let now = tables.now();
    let Some((conn, is_pending)) = find(case, &key, now) else { return Verdict::new(Reason::NoConnection) };
    let is_older = conn.revision < record.since
        || planted("new-backends-cut-who-is-there") && conn.revision < hook.live.0;
    if is_older && conn.state & CONN_GUESSED != 0 && !planted("whoever-spoke-first-opened-it") {
        // Either side was allowed to open it, which may not be so any more: it is seen for the first time again.
        remove(tables, &key, is_pending);
        return Verdict::new(Reason::NoConnection);
    }
    if is_older
        && !planted("since-ignored")
        && let Some(revoked) = older::judge_again(case, conn)
    {
        // While the pod is taken over, the next segment would pass for one of a connection that nobody saw being
        // opened, perhaps by the other side: the entry stays and says who did.
        if headers.protocol != TCP
            || !is_taken_over(record.midflow_until, now)
            || planted("revoked-is-taken-over")
        {
            remove(tables, &key, is_pending);
        }
        return revoked;
    }
    let was_quiet = is_older_than(QUIET_TICKS, conn.seen, now)
        && is_from_opener(conn, hook.direction())
        && !planted("what-was-quiet-is-unchanged");
    if was_quiet {
        conn.flags &= !CONN_DIRECT;
    }
    if was_quiet || conn.revision != hook.live.0 {
        conn.revision = hook.live.0;
        set_stamped(case, conn, !is_pending);
    }
    let was_replied = conn.state & CONN_REPLIED;
    let is_established = proceed(case, conn, now);
    if is_pending
        && (is_established && !planted("answered-stays-with-unanswered") || succeeds(case, conn, &key, now))
    {
        promote(case, conn, &key);
    }
    stamp_if(case, conn.flags & CONN_STAMPED != 0, conn.flags);
    // Last, since the verifier follows what comes next once for each way through it.
    if was_replied != conn.state & CONN_REPLIED {
        tables.answered(conn, case.slot);
    }
    Verdict::by_rule(Reason::Established, conn.rule)
}

/// True when the other side answers what was opened on the tuple of an older connection. That one's row is replaced at
/// once: what follows would be taken for its packets.
#[inline(always)]
fn succeeds<F: Family, P: Packet, T: Tables<F>>(
    case: &Case<'_, F, P, T>,
    conn: &Conn,
    key: &F::FlowKey,
    now: u32,
) -> bool {
    let Case { tables, hook, headers, .. } = *case;
    if !is_answer(headers)
        || case.is_unanswered
        || is_from_opener(conn, hook.direction())
        || planted("an-older-connection-stays")
    {
        return false;
    }
    let Some(older) = tables.flow(key) else { return false };
    if is_over(older, headers.protocol, false, now) {
        // Then nothing is replaced: what is not established has no business among those that floods cannot reach.
        tables.remove_flow(key);
        return false;
    }
    true
}

/// The live connection of a packet, and whether it is unanswered. One that is over is removed.
///
/// One that is being answered is added to FLOWS before it leaves PENDING, so that looking into PENDING and then into
/// FLOWS misses none. A tuple may have a row in both, while what opens a connection on that of an older one is not
/// answered.
#[inline(always)]
fn find<'a, F: Parse, P: Packet, T: Tables<F>>(
    case: &Case<'a, F, P, T>,
    key: &F::FlowKey,
    now: u32,
) -> Option<(&'a mut Conn, bool)> {
    let Case { tables, headers, .. } = *case;
    let mut is_pending = false;
    let mut found = if case.is_unanswered || is_answer(headers) { None } else { tables.flow(key) };
    if found.is_none() {
        is_pending = true;
        found = tables.pending(key);
    }
    if found.is_none() {
        is_pending = false;
        found = tables.flow(key);
    }
    let conn = found?;
    if planted("nobody-is-answered") && !is_from_opener(conn, case.hook.direction()) {
        return None;
    }
    if is_over(conn, headers.protocol, is_pending, now) {
        remove(tables, key, is_pending);
        return None;
    }
    Some((conn, is_pending))
}

/// Removes a row from the table that it was found in.
#[inline(always)]
fn remove<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, is_pending: bool) {
    if is_pending {
        tables.remove_pending(key);
    } else {
        tables.remove_flow(key);
    }
}

/// Stamps a packet out of the pod, where that is asked for.
#[inline(always)]
fn stamp_if<F: Family, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>, is_stamped: bool, flags: u8) {
    if is_stamped && matches!(case.hook.direction(), Direction::Egress) {
        stage::stamp::<F, P, T>(case.packet, case.tables, case.slot, flags);
    }
}

/// Whether what the pod sends on this connection carries a stamp. It holds for as long as the revision does, so the
/// established path need not know why.
#[inline(always)]
fn set_stamped<F: Family, P: Packet, T: Tables<F>>(
    case: &Case<'_, F, P, T>,
    conn: &mut Conn,
    is_answered: bool,
) {
    let is_wanted = (conn.flags & CONN_OPENED_BY_POD != 0 || planted("answers-are-stamped"))
        && conn.flags & CONN_SELF == 0
        && (conn.flags & CONN_DEFERRED != 0
            || conn.flags & CONN_DIRECT == 0 && !planted("only-services-are-stamped"))
        && stage::is_judged(case.record, is_answered);
    conn.flags = conn.flags & !CONN_STAMPED | if is_wanted { CONN_STAMPED } else { 0 };
}

/// The next packet of a connection whose verdict stands. True when it is the one that makes it established: the
/// third packet of a handshake, or the opener's second after an answer.
#[inline(always)]
fn proceed<F: Family, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>, conn: &mut Conn, now: u32) -> bool {
    let Case { packet, hook, headers, .. } = *case;
    let from_opener = is_from_opener(conn, hook.direction());
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
/// here, so a reader on another CPU finds it in one of them. Without room there it stays where it is, for as long as it would
/// there.
#[inline(always)]
fn promote<F: Family, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>, conn: &mut Conn, key: &F::FlowKey) {
    let tables = case.tables;
    if conn.state & CONN_ESTABLISHED == 0 {
        conn.state |= CONN_ESTABLISHED;
        set_stamped(case, conn, true);
        if case.headers.protocol == TCP && conn.flags & CONN_MIDFLOW == 0 {
            let began = if planted("handshakes-begin-at-boot") { 0 } else { conn.handshake_us };
            conn.handshake_us = tables.now_us().wrapping_sub(began);
        }
    }
    // From row to row: a copy would stand on the stack.
    if tables.insert_flow(key, conn, case.slot) {
        tables.remove_pending(key);
    }
}

/// Judges a first packet, or one that claims to be.
#[inline(never)]
fn judge_new<F: Parse, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>) -> Verdict {
    if planted("groups-pass") && F::is_group(case.headers.destination) {
        return Verdict::new(Reason::NotIsolated);
    }
    if let Some(reason) = case.exempt() {
        return Verdict::new(reason);
    }
    if let Direction::Egress = case.hook.direction()
        && let Some(service) = stage::service(case)
    {
        let listed = stage::is_listed(service);
        return Verdict { deferred: true, listed, ..stage::at_source(case, service) };
    }
    ask(case, case.hook.direction())
}

/// A packet that opens a connection, or belongs to none. In line: its frame of the stack is one that [`begin`] does not have.
#[inline(always)]
pub(crate) fn open<F: Parse, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>) -> Verdict {
    let verdict = judge_new(case).forgotten(case.packet);
    if is_opening(case.headers) {
        return begin(case, verdict);
    }
    let is_exempt = matches!(verdict.reason, Reason::OwnNode | Reason::OwnPod);
    let is_midflow = case.headers.protocol == TCP && !is_exempt;
    let reversed =
        if is_midflow { ask_reversed(case).forgotten(case.packet) } else { Verdict::new(Reason::Allowed) };
    enter(case, verdict, reversed)
}

/// A SYN or INIT that was judged as new, whatever is known of its tuple. Denied, it touches no entry.
///
/// FLOWS is not asked, which would be the dearest part of a first packet: an older connection of its tuple goes on until
/// this one is answered ([`succeeds`]).
#[inline(never)]
fn begin<F: Parse, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>, verdict: Verdict) -> Verdict {
    let Case { tables, hook, headers, record, .. } = *case;
    let now = tables.now();
    if verdict.reason.is_drop()
        && !is_audited(record, verdict.reason)
        && !planted("what-is-denied-leaves-an-entry")
    {
        if planted("a-denied-syn-ends-the-other-sides") {
            tables.remove_pending(&key(hook, headers));
        }
        return verdict;
    }
    let key = key(hook, headers);
    if planted("a-port-rests-after-use")
        && tables.flow(&key).is_some_and(|known| known.state & CONN_CLOSING != 0)
    {
        return Verdict::new(Reason::NoConnection);
    }
    let deferred = if verdict.deferred { CONN_DEFERRED } else { 0 };
    let mut conn = Conn::default();
    fill(case, &verdict, (hook.direction(), deferred), now, &mut conn);
    let mut flags = conn.flags;
    if is_tracked(headers) && !tables.insert_pending(&key, &conn, case.slot) {
        let mut is_pending = true;
        let mut known = tables.pending(&key);
        if known.is_none() {
            // No room for what this pod opens now, and there may be an older connection.
            is_pending = false;
            known = tables.flow(&key);
        }
        if let Some(known) = known {
            let has_ended = is_over(known, headers.protocol, is_pending, now);
            again(case, known, &conn, has_ended);
            flags = known.flags;
        }
    }
    stamp_if(case, flags & CONN_STAMPED != 0, flags);
    verdict
}

/// What opens a connection and is allowed, on the tuple of a known one.
#[inline(always)]
fn again<F: Family, P: Packet, T: Tables<F>>(
    case: &Case<'_, F, P, T>,
    known: &mut Conn,
    new: &Conn,
    has_ended: bool,
) {
    if is_from_opener(known, case.hook.direction()) && known.state & CONN_CLOSING == 0 && !has_ended {
        // The same SYN once more.
        known.revision = new.revision;
        known.seen = new.seen;
        // Now somebody has seen who opens it.
        known.state &= !CONN_GUESSED;
        if !planted("the-same-syn-is-not-deferred") {
            known.flags |= new.flags & CONN_DEFERRED;
            known.state |= new.state & CONN_LISTED;
        }
        set_stamped(case, known, false);
        count(known, case.hook.direction(), case.packet.length());
    } else {
        known.revision = new.revision;
        known.packets = new.packets;
        known.bytes = new.bytes;
        known.seen = new.seen;
        known.created = new.created;
        known.handshake_us = new.handshake_us;
        known.rule = new.rule;
        known.mac = new.mac;
        known.state = new.state;
        known.flags = new.flags;
    }
}

/// Makes the entry that a first packet leaves which opens nothing. `reversed` is the verdict on the other direction, for
/// TCP.
#[inline(never)]
fn enter<F: Parse, P: Packet, T: Tables<F>>(
    case: &Case<'_, F, P, T>,
    mut verdict: Verdict,
    reversed: Verdict,
) -> Verdict {
    let Case { tables, hook, headers, record, .. } = *case;
    let mut flags = if verdict.deferred { CONN_DEFERRED } else { 0 };
    let mut opener = hook.direction();
    let mut tracked = is_tracked(headers);
    let mut guessed = 0;
    let was_exempt = matches!(verdict.reason, Reason::OwnNode | Reason::OwnPod);
    if headers.protocol == TCP && !was_exempt {
        flags |= CONN_MIDFLOW;
        let continues = headers.flags & (ACK | SYN | RST) == ACK
            || planted("any-ack-continues") && headers.flags & ACK != 0;
        if verdict.reason.is_drop() || !continues {
            let by_peer =
                planted("only-what-the-pod-opened-is-taken-over") && matches!(opener, Direction::Egress);
            if is_taken_over(record.midflow_until, tables.now()) && !reversed.reason.is_drop() && !by_peer {
                // The other side opened it before anyone looked.
                verdict = Verdict::by_rule(Reason::Midflow, reversed.rule);
                opener = opener.reverse();
                flags = CONN_MIDFLOW;
            } else if !verdict.reason.is_drop() && !case.is_open() && !planted("scans-pass") {
                return Verdict::new(Reason::NoConnection);
            } else {
                tracked = false;
            }
        } else if reversed.reason.is_drop() {
            // Either side may have opened it, and one of them must not: the packet passes by its own direction's
            // policy and leaves nothing that would admit the other's.
            tracked = planted("midflow-admits-the-other-side");
        } else {
            guessed = CONN_GUESSED;
        }
    }
    if !verdict.reason.is_drop() || is_audited(record, verdict.reason) {
        if tracked {
            let mut conn = Conn::default();
            fill(case, &verdict, (opener, flags), tables.now(), &mut conn);
            conn.state |= guessed;
            tables.insert_pending(&key(hook, headers), &conn, case.slot);
        }
        // Also what leaves no entry.
        let opened_by_pod = opener as u8 == Direction::Egress as u8;
        stamp_if(case, !was_exempt && opened_by_pod && stage::is_judged(record, false), flags);
    }
    verdict
}

/// True while a pod that was running when its interface was first enforced is taken over.
#[inline(always)]
fn is_taken_over(until: u32, now: u32) -> bool {
    until != 0 && until.wrapping_sub(now) < u32::MAX / 2 && !planted("nothing-is-taken-over")
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
    let into = u32::from(matches!(hook.direction(), Direction::Ingress));
    let length = packet.length();
    conn.packets = [into, 1 - into];
    conn.bytes = [u64::from(length * into), u64::from(length * (1 - into))];
    conn.seen = now;
    conn.created = now;
    conn.handshake_us = if is_handshake { tables.now_us() } else { 0 };
    conn.rule = verdict.rule;
    conn.mac.0[0] = record.mac.0[0];
    conn.mac.0[1] = record.mac.0[1];
    conn.mac.0[2] = record.mac.0[2];
    conn.state = if verdict.listed { CONN_LISTED } else { 0 };
    conn.flags = flags | opened_by | if verdict.reason.is_drop() { CONN_AUDIT } else { 0 };
    set_stamped(case, conn, false);
}
