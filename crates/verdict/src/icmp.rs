//! ICMP: echoes are connections, errors belong to the connection they quote.

use cellwall_abi::{Direction, Family, Reason, planted};

use crate::Verdict;
use crate::entry::{Case, unjudgeable};
use crate::header::{ICMP, ICMPV6};
use crate::older;
use crate::parse::{Headers, Parse};
use crate::tables::{Packet, Tables};

/// The request of an echo.
#[inline(always)]
pub(crate) const fn is_request<F: Family>(headers: &Headers<F>) -> bool {
    matches!((headers.protocol, headers.flags), (ICMP, 8) | (ICMPV6, 128))
}

/// The answer to it.
#[inline(always)]
pub(crate) const fn is_reply<F: Family>(headers: &Headers<F>) -> bool {
    matches!((headers.protocol, headers.flags), (ICMP, 0) | (ICMPV6, 129))
}

/// A message that quotes the packet it is about (RFC 792: 3, 11, 12; RFC 4443: 1 to 4).
#[inline(always)]
pub(crate) const fn is_error<F: Family>(headers: &Headers<F>) -> bool {
    matches!((headers.protocol, headers.flags), (ICMP, 3 | 11 | 12) | (ICMPV6, 1..=4))
}

/// A redirect or router advertisement of IPv4 (RFC 792, RFC 1256): a pod is no router. Those of IPv6 are
/// neighbour discovery.
#[inline(always)]
pub(crate) const fn is_router_message<F: Family>(headers: &Headers<F>) -> bool {
    matches!((headers.protocol, headers.flags), (ICMP, 5 | 9))
}

/// An error passes when the packet it quotes belongs to a live connection of this pod, and goes the other way. It
/// makes no state.
#[inline(never)]
pub(crate) fn error<F: Parse, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>) -> Verdict {
    if let Some(reason) = case.exempt() {
        return Verdict::new(reason);
    }
    let mut quoted = Headers::default();
    if !read_quoted(case, &mut quoted) {
        return unjudgeable(case, Reason::Truncated);
    }
    if !case.headers.lengths_hold(case.packet, quoted.end) && !planted("quotes-behind-the-end") {
        return unjudgeable(case, Reason::Malformed);
    }
    // What the pod sent comes back to it, from any router; what it was sent, it complains about, to the sender alone (RFC
    // 792): else an error about a connection that is allowed could carry anything to anybody.
    let is_placed = match case.hook.direction() {
        Direction::Ingress => quoted.source == F::own(case.record),
        Direction::Egress => {
            !planted("a-pod-tells-no-errors")
                && quoted.destination == F::own(case.record)
                && (quoted.source == case.headers.destination || planted("errors-to-anybody"))
        }
    };
    if is_placed && older::is_live(case, &quoted) {
        return Verdict::new(Reason::Related);
    }
    unjudgeable(case, Reason::Unrelated)
}

#[inline(always)]
fn read_quoted<F: Parse, P: Packet, T>(case: &Case<'_, F, P, T>, quoted: &mut Headers<F>) -> bool {
    match F::quoted(case.packet, case.headers.transport + 8) {
        Some(read) => {
            *quoted = read;
            true
        }
        None => false,
    }
}
