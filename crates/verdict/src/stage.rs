//! A Service is a reason to wait: the source is judged where its destination is known.
//!
//! A packet to an address that this node translates is not judged on that address: its connection is *deferred*.
//! Packets out of a pod carry a stamp until it is known that nothing translates them: a bit of the mark, and the pod's
//! slot in `tc_index`. The next hook that sees the stamp judges that pod's egress on the destination that the packet
//! has by then, remembers what it said of that destination, and takes the stamp off. Nothing else is
//! known about who translates: what no table lists is caught by the same rule.

use cellwall_abi::{
    Be16, CONN_DEFERRED, Chosen, Direction, ENDPOINT_IDENTIFIED, EndpointRecord, Family, Reason,
    SERVICE_BACKENDS, SERVICE_TOO_MANY, SERVICE_TUNNEL, STAMP_DEFERRED, STAMP_SLOTS, ServiceRecord, V4, V6,
    planted,
};

use crate::entry::{Case, Hook, audited, ends_tunnels, is_audited, is_tunnel, read_all};
use crate::header::{ETH_IPV4, ETH_IPV6, TCP};
use crate::parse::{Headers, Parse, Part};
use crate::policy::{ask, ask_backend};
use crate::tables::{Packet, Tables};
use crate::{Verdict, fragment, older};

/// The Service that the pod of this case asks, when this node translates its address.
#[inline(always)]
pub(crate) fn service<'a, F: Family, P: Packet, T: Tables<F>>(
    case: &Case<'a, F, P, T>,
) -> Option<&'a ServiceRecord> {
    let Case { tables, hook, headers, .. } = *case;
    if !headers.has_ports()
        || tables.mark() == 0 && !planted("addresses-wait-without-a-stamp")
        || planted("virtual-address-judged")
    {
        return None;
    }
    let protocol = if planted("services-of-every-protocol") { TCP } else { headers.protocol };
    let direction = if planted("answers-ask-another-service") { hook.direction() } else { Direction::Egress };
    tables.service(&case.remote(), case.asked_port(direction), protocol, hook.live.bank())
}

/// True when some backend of a Service is seen by no later hook.
#[inline(always)]
pub(crate) const fn is_listed(service: &ServiceRecord) -> bool {
    service.count != 0 || service.flags & SERVICE_TOO_MANY != 0
}

/// What is decided at the source about a Service: every backend that no later hook sees must be allowed.
#[inline(never)]
pub(crate) fn at_source<F: Family, P: Packet, T: Tables<F>>(
    case: &Case<'_, F, P, T>,
    service: &ServiceRecord,
) -> Verdict {
    if service.flags & SERVICE_TUNNEL != 0 && !planted("tunnels-behind-services") {
        return Verdict::new(Reason::Tunnel);
    }
    if case.record.image[Direction::Egress as usize] == 0 {
        return Verdict::new(Reason::NotIsolated);
    }
    if service.flags & SERVICE_TOO_MANY != 0 && !planted("too-many-backends-pass") {
        return Verdict::new(Reason::DefaultDeny);
    }
    for i in 0..SERVICE_BACKENDS {
        let backend = &service.backends[i];
        let address = F::narrow(backend.address);
        // Nothing keeps a pod from itself (S64).
        let is_other = address != F::own(case.record) || planted("a-pod-is-kept-from-itself");
        if i < service.count as usize && is_other && !planted("local-backends-unjudged") {
            let verdict = ask_backend(case, &address, backend.port);
            if verdict.reason.is_drop() || planted("one-local-backend-is-enough") {
                return verdict;
            }
        }
    }
    Verdict::new(Reason::Deferred)
}

/// Takes a stamp off.
#[inline(always)]
fn clear<P: Packet>(packet: &P, mark: u32) {
    packet.set_stamp(packet.mark() & !mark, 0);
}

/// Takes off a stamp that somebody else has put on what leaves a pod.
#[inline(always)]
pub(crate) fn refuse<P: Packet, T: Tables<V4>>(packet: &P, tables: &T) {
    let mark = tables.mark();
    if packet.mark() & mark != 0 && !planted("stamps-of-others-are-believed") {
        clear(packet, mark);
    }
}

/// True when something is judged by the stamp of this pod: its egress, or, where the packet turns round in the node,
/// whether it is the pod itself that asks.
#[inline(always)]
pub(crate) const fn is_judged(record: &EndpointRecord, is_answered: bool) -> bool {
    record.image[Direction::Egress as usize] != 0
        || !is_answered && record.image[Direction::Ingress as usize] != 0
}

/// Stamps a packet out of the pod in `slot`, of a connection with these flags.
#[inline(always)]
pub(crate) fn stamp<F: Family, P: Packet, T: Tables<F>>(packet: &P, tables: &T, slot: u32, flags: u8) {
    let mark = tables.mark();
    if mark != 0 && !planted("nothing-is-stamped") {
        // A slot that has no room there is named by the interface alone, which says enough where the node routes.
        let has_room = slot < STAMP_SLOTS || planted("slots-without-room-are-cut");
        let named = if has_room { slot + 1 } else { 0 };
        let deferred = if flags & CONN_DEFERRED != 0 { STAMP_DEFERRED } else { 0 };
        let others = if planted("stamps-wipe-the-mark") { 0 } else { packet.mark() };
        packet.set_stamp(others | mark, named | deferred);
    }
}

/// Stamps a packet of an established connection; false when its pod is not known any more.
#[inline(never)]
pub(crate) fn stamp_established<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: &Hook,
    flags: u8,
) -> bool {
    match tables.record(hook.ifindex, hook.live.bank()) {
        Some((slot, _)) => {
            stamp::<F, P, T>(packet, tables, slot, flags);
            true
        }
        None => false,
    }
}

/// What is decided about the pod that stamped a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The verdict on its egress.
    pub verdict: Verdict,
    /// Index of its interface; 0 when it is not known.
    pub ifindex: u32,
}

/// Judges the egress of the pod that stamped this packet on the destination that it has now, and takes the stamp off.
/// A packet without a stamp passes, and so does one that this node made: it is nobody's.
///
/// What comes back to the pod that sent it keeps its stamp: only by it does the hook of that pod know it, once the
/// source is masqueraded.
#[inline(always)]
pub fn arrive<P: Packet, T: Tables<V4> + Tables<V6>>(packet: &P, tables: &T) -> Arrival {
    let mut ifindex = 0;
    let verdict = stamped(packet, tables, &mut ifindex);
    Arrival { verdict, ifindex }
}

#[inline(always)]
fn stamped<P: Packet, T: Tables<V4> + Tables<V6>>(packet: &P, tables: &T, by: &mut u32) -> Verdict {
    let is_stamped = packet.mark() != 0 && packet.mark() & Tables::<V4>::mark(tables) != 0;
    if !is_stamped || packet.ingress_ifindex() == 0 && !planted("the-node-stamps") {
        return Verdict::new(Reason::NotIsolated);
    }
    match packet.ether_type().get() {
        ETH_IPV4 => read_and_judge::<V4, P, T>(packet, tables, by),
        ETH_IPV6 => read_and_judge::<V6, P, T>(packet, tables, by),
        // Only IP is stamped, and whatever this has become says nothing about a destination.
        _ if planted("stamped-frames-of-other-types-pass") => Verdict::new(Reason::NotIsolated),
        _ => Verdict::new(Reason::EtherType),
    }
}

#[inline(always)]
fn read_and_judge<F: Parse, P: Packet, T: Tables<F>>(packet: &P, tables: &T, by: &mut u32) -> Verdict {
    let mut headers = Headers::default();
    let mut problem = read_all::<F, P>(packet, &mut headers);
    if matches!(problem, Reason::Truncated | Reason::TinyFragment) {
        packet.pull();
        problem = read_all::<F, P>(packet, &mut headers);
    }
    judge(packet, tables, &headers, problem, by)
}

/// Interface, slot and record of the pod that stamped a packet: the one behind the interface that received it, else
/// the one that `tc_index` names.
#[inline(always)]
fn stamper<'a, F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &'a T,
    bank: u32,
) -> Option<(u32, u32, &'a EndpointRecord)> {
    let received = packet.ingress_ifindex();
    let stands_back = planted("stamps-stand-before-interfaces") && packet.tc_index() & !STAMP_DEFERRED != 0;
    let (ifindex, slot, record) = if let Some((slot, record)) = tables.record(received, bank)
        && !planted("stamps-alone-name-the-pod")
        && !stands_back
    {
        (received, slot, record)
    } else {
        if planted("interfaces-alone-name-the-pod") {
            return None;
        }
        let slot = (packet.tc_index() & !STAMP_DEFERRED).checked_sub(1)?;
        let record = tables.record_of(slot, bank)?;
        (record.ifindex, slot, record)
    };
    let is_known = record.flags & ENDPOINT_IDENTIFIED != 0 || planted("pods-that-nobody-knows-stamp");
    is_known.then_some((ifindex, slot, record))
}

/// What is decided about a packet whose headers were read, or about one with a problem.
#[inline(never)]
fn judge<F: Parse, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    headers: &Headers<F>,
    problem: Reason,
    by: &mut u32,
) -> Verdict {
    let live = tables.live();
    let Some((ifindex, slot, record)) = stamper::<F, P, T>(packet, tables, live.bank()) else {
        let reason =
            if planted("stamps-of-nobody-pass") { Reason::NotIsolated } else { Reason::StampUnknown };
        return Verdict::new(reason);
    };
    *by = ifindex;
    let own = F::own(record);
    if problem == Reason::Allowed && headers.destination == own && !planted("hairpin-loses-its-stamp") {
        return Verdict::new(Reason::OwnPod);
    }
    let hook = Hook::behind(ifindex, live);
    let case = Case { packet, tables, hook: &hook, headers, record, slot, is_unanswered: false };
    if problem == Reason::Allowed && enters_node(&case) {
        return Verdict::new(Reason::Tunnel);
    }
    let mut verdict = match problem {
        _ if case.is_open() => Verdict::new(Reason::NotIsolated),
        Reason::Allowed if matches!(headers.part, Part::Later) => fragment::later(&case),
        Reason::Allowed => {
            let is_deferred = packet.tc_index() & STAMP_DEFERRED != 0;
            let verdict = if !is_deferred && older::is_direct(&case) || is_known(&case) {
                Verdict::new(Reason::Established)
            } else {
                choose(&case)
            };
            if matches!(headers.part, Part::First) {
                fragment::remember(&case, verdict);
            }
            verdict
        }
        problem => Verdict::new(problem),
    };
    verdict = audited(record, verdict);
    if verdict.passes() && !planted("stamps-stay-on") {
        clear(packet, tables.mark());
    }
    verdict
}

/// True for a tunnel to where a node ends it. A function of its own for its stack: [`judge`] has none to spare.
#[inline(never)]
fn enters_node<F: Parse, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>) -> bool {
    is_tunnel(case.headers)
        && ends_tunnels::<F, T>(case.tables, case.hook, &case.headers.destination)
        && !planted("tunnels-behind-translations")
}

/// The key of the destination that the packet of this case has now.
#[inline(always)]
fn key<F: Family, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>) -> F::ChosenKey {
    let Case { hook, headers, .. } = *case;
    let port = if headers.has_ports() { headers.destination_port } else { Be16::default() };
    let ifindex = if planted("chosen-of-all-pods") { 0 } else { hook.ifindex };
    F::chosen_key(ifindex, headers.destination, port, headers.protocol)
}

/// True when this destination was allowed before, and nothing has changed for this pod since.
#[inline(never)]
fn is_known<F: Parse, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>) -> bool {
    let holds = |chosen: Chosen| {
        chosen.revision >= case.record.since || planted("what-was-chosen-outlives-its-policy")
    };
    case.tables.chosen(&key(case)).is_some_and(holds)
}

/// The verdict on a destination that is not known yet. It is remembered only to save time.
#[inline(never)]
fn choose<F: Parse, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>) -> Verdict {
    let mut verdict = ask(case, Direction::Egress);
    if planted("who-was-chosen-is-not-asked-about") {
        verdict = Verdict::new(Reason::Allowed);
    }
    if !verdict.reason.is_drop() || is_audited(case.record, verdict.reason) {
        let chosen = Chosen { revision: case.hook.live.0, rule: verdict.rule, pad: 0 };
        case.tables.insert_chosen(&key(case), &chosen);
    }
    verdict
}
