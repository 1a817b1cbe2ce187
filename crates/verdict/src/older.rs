//! Connections that are known, and what is asked about them later: whether they may go on, whether a packet behind a
//! translation is of one of them, whether an error is about one.

use cellwall_abi::{
    CLASS_NODE, CONN_AUDIT, CONN_DEFERRED, CONN_DIRECT, CONN_LISTED, CONN_OPENED_BY_POD, CONN_OWN_NODE,
    CONN_REPLIED, CONN_SELF, CONN_STAMPED, Conn, Direction, Reason, ServiceRecord, planted,
};

use crate::conn::{is_over, opener};
use crate::entry::{Case, is_audited};
use crate::key::key;
use crate::parse::{Headers, Parse};
use crate::policy::ask;
use crate::tables::{Packet, Tables};
use crate::{Verdict, stage};

/// Asks policy about a live connection, in its opener's direction. `Some` when it is no longer allowed.
#[inline(always)]
pub(crate) fn judge_again<F: Parse, P: Packet, T: Tables<F>>(
    case: &Case<'_, F, P, T>,
    conn: &mut Conn,
) -> Option<Verdict> {
    conn.mac = case.record.mac;
    if conn.flags & (CONN_OWN_NODE | CONN_SELF) != 0 {
        return None;
    }
    let verdict = match opener(conn) {
        Direction::Ingress => ask(case, Direction::Ingress),
        Direction::Egress => match stage::service(case) {
            Some(service) => judge_older(case, conn, service),
            // The Service is gone, and what it led to may be on this node, where nobody judges it.
            None if conn.state & CONN_LISTED != 0
                && case.record.image[Direction::Egress as usize] != 0
                && !planted("what-was-listed-outlives-its-service") =>
            {
                Verdict::new(Reason::DefaultDeny)
            }
            // Else it is judged behind the translation.
            None if conn.flags & CONN_DEFERRED != 0
                && conn.revision != 0
                && !planted("deferred-is-judged-again") =>
            {
                return None;
            }
            None => ask(case, Direction::Egress),
        },
    }
    .forgotten(case.packet);
    if verdict.reason.is_drop() {
        if !is_audited(case.record, verdict.reason) {
            // Audit, which would lift a revocation, does not lift a tunnel.
            let reason =
                if matches!(verdict.reason, Reason::Tunnel) { Reason::Tunnel } else { Reason::Revoked };
            return Some(Verdict::by_rule(reason, verdict.rule));
        }
        conn.flags |= CONN_AUDIT;
    } else {
        conn.flags &= !CONN_AUDIT;
    }
    conn.rule = verdict.rule;
    None
}

/// The verdict on a connection to what has become a Service since, or was one. One to a node that is older than the Service
/// goes where it went: no hook sees it there, so its own address is judged, and it is never deferred. Both, one after the
/// other, were 75,000 instructions more to verify.
#[inline(always)]
fn judge_older<F: Parse, P: Packet, T: Tables<F>>(
    case: &Case<'_, F, P, T>,
    conn: &mut Conn,
    service: &ServiceRecord,
) -> Verdict {
    let class = case.tables.class(&case.remote(), case.hook.live.bank());
    if conn.flags & CONN_DEFERRED == 0
        && class & CLASS_NODE != 0
        && !planted("what-is-older-goes-where-its-service-leads")
    {
        conn.flags &= !CONN_DIRECT;
        return ask(case, Direction::Egress);
    }
    if !planted("older-connections-are-not-deferred") {
        conn.flags |= CONN_DEFERRED;
        if stage::is_listed(service) {
            conn.state |= CONN_LISTED;
        }
    }
    stage::at_source(case, service)
}

/// True when the packet of this case, seen behind all translation, is of a connection of its pod that was judged on
/// this very destination. That connection need not be stamped any more.
#[inline(never)]
pub(crate) fn is_direct<F: Parse, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>) -> bool {
    let Case { tables, hook, headers, record, .. } = *case;
    let key = key(hook, headers);
    let mut is_pending = false;
    let mut found = tables.flow(&key);
    if found.is_none() {
        is_pending = true;
        found = tables.pending(&key);
    }
    let Some(conn) = found else { return false };
    let deferred = if planted("a-deferred-entry-is-a-verdict") { 0 } else { CONN_DEFERRED };
    let opened_by_pod = if planted("answers-name-a-destination") { 0 } else { CONN_OPENED_BY_POD };
    if conn.flags & (opened_by_pod | deferred) != opened_by_pod
        || conn.revision < record.since && !planted("what-was-unchanged-outlives-its-policy")
        || is_over(conn, headers.protocol, is_pending, tables.now())
            && !planted("what-was-unchanged-never-ends")
    {
        return false;
    }
    if !planted("what-is-unchanged-stays-stamped") {
        conn.flags = conn.flags & !CONN_STAMPED | CONN_DIRECT;
    }
    true
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
    let from_pod = matches!(hook.direction(), Direction::Egress);
    let is_current = |conn: &Conn, is_pending| {
        // To where nobody has answered from, no hook follows an error to judge where it leads.
        let is_answered = !from_pod || conn.flags & CONN_DEFERRED == 0 || conn.state & CONN_REPLIED != 0;
        conn.revision >= record.since
            && (is_answered || planted("errors-about-nobodys-answer"))
            && !is_over(conn, quoted.protocol, is_pending, now)
    };
    planted("errors-about-nothing")
        || tables.flow(&key).is_some_and(|conn| is_current(conn, false))
        || tables.pending(&key).is_some_and(|conn| is_current(conn, true))
}
