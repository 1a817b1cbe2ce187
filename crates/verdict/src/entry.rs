//! From a frame at a hook to a verdict: who is at this interface, what may pass unseen, what is tracked.
//!
//! Everything that cannot be understood ends in [`unjudgeable`], the one place that knows what happens then: it is
//! dropped, with its reason, when the pod is isolated in that direction, and passes when it is not.

use cellwall_abi::{
    Be16, CLASS_NODE, CLASS_UNKNOWN_POD, CONN_STAMPED, Direction, ENDPOINT_AUDIT, ENDPOINT_IDENTIFIED,
    EndpointRecord, Family, Live, Reason, V4, V6, is_tunnel_port, planted,
};

use crate::header::{ETH_ARP, ETH_IPV4, ETH_IPV6, ETH_QINQ, ETH_VLAN, Ethernet, ICMPV6, UDP};
use crate::parse::{Headers, Parse, Part};
use crate::tables::{Packet, Tables};
use crate::{Verdict, conn, fragment, icmp, key, neighbour, stage};

/// Where and when: constant for one packet.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// 0 at the ingress hook of the pod, 1 at its egress hook. A number, compared where it is used: the verifier trusts a comparison,
    /// and does not know that a [`Direction`] in memory can only be 0 or 1.
    /// 2 where the egress of a pod is judged behind a translation.
    egress: u32,
    /// Index of the host side of the pod's interface.
    pub ifindex: u32,
    /// The live word, read once.
    pub live: Live,
}

impl Hook {
    /// The hook of `direction` at an interface, and the live word that was read for this packet.
    #[inline(always)]
    #[must_use]
    pub const fn new(direction: Direction, ifindex: u32, live: Live) -> Self {
        Self { egress: direction as u32, ifindex, live }
    }

    /// The egress of the pod behind `ifindex`, judged at another hook, behind a translation.
    #[inline(always)]
    #[must_use]
    pub const fn behind(ifindex: u32, live: Live) -> Self {
        Self { egress: 2, ifindex, live }
    }

    /// True for [`Hook::behind`].
    #[inline(always)]
    #[must_use]
    pub const fn is_behind(&self) -> bool {
        self.egress == 2
    }

    /// Into the pod or out of it.
    #[inline(always)]
    #[must_use]
    pub const fn direction(&self) -> Direction {
        if self.egress == 0 { Direction::Ingress } else { Direction::Egress }
    }

    /// The other hook of the same interface of a pod.
    #[inline(always)]
    #[must_use]
    pub const fn reverse(self) -> Self {
        Self { egress: 1 - self.egress, ..self }
    }
}

/// A packet whose headers are understood, at a pod that is known: what every part of the decision needs. One
/// argument, because a kernel function has at most five.
pub(crate) struct Case<'a, F: Family, P, T> {
    pub(crate) packet: &'a P,
    pub(crate) tables: &'a T,
    pub(crate) hook: &'a Hook,
    pub(crate) headers: &'a Headers<F>,
    pub(crate) record: &'a EndpointRecord,
    pub(crate) slot: u32,
    /// The established path has asked, and the connection is not among those that were answered.
    pub(crate) is_unanswered: bool,
}

impl<F: Family, P: Packet, T: Tables<F>> Case<'_, F, P, T> {
    /// The address at the other end.
    #[inline(always)]
    pub(crate) fn remote(&self) -> F::Addr {
        match self.hook.direction() {
            Direction::Egress => self.headers.destination,
            Direction::Ingress => self.headers.source,
        }
    }

    /// The port that policy asks about, of a connection that was opened in `direction`.
    #[inline(always)]
    pub(crate) fn asked_port(&self, direction: Direction) -> Be16 {
        let is_forward = direction as u8 == self.hook.direction() as u8;
        if is_forward { self.headers.destination_port } else { self.headers.source_port }
    }

    /// True when nothing isolates the pod in the direction of this packet.
    #[inline(always)]
    pub(crate) fn is_open(&self) -> bool {
        self.record.image[self.hook.direction() as usize] == 0
    }

    /// Traffic that no policy can forbid (S59, S64); `None` for all other. That the own node made a packet is never
    /// decided by address, which masquerading forges: what nothing received, this node made.
    #[inline(always)]
    pub(crate) fn exempt(&self) -> Option<Reason> {
        if planted("own-node-by-address") && matches!(self.hook.direction(), Direction::Ingress) {
            let class = self.tables.class(&self.headers.source, self.hook.live.bank());
            return (class & CLASS_NODE != 0).then_some(Reason::OwnNode);
        }
        match (self.hook.direction(), self.packet.ingress_ifindex()) {
            // Its source is the pod's own: that has been checked.
            (Direction::Egress, _) => {
                (self.headers.source == self.headers.destination).then_some(Reason::OwnPod)
            }
            (Direction::Ingress, 0) => Some(Reason::OwnNode),
            // A stamp that is still there names the pod of this hook ([`crate::arrive`]).
            (Direction::Ingress, ifindex) => (ifindex == self.hook.ifindex
                && !planted("the-pod-is-a-stranger-to-itself")
                || self.packet.mark() & self.tables.mark() != 0)
                .then_some(Reason::OwnPod),
        }
    }
}

/// Judges a frame at the hook of one direction.
#[inline(always)]
pub fn process<P: Packet, T: Tables<V4> + Tables<V6>>(
    packet: &P,
    tables: &T,
    direction: Direction,
) -> Verdict {
    let live = Tables::<V4>::live(tables);
    let hook = Hook::new(direction, packet.ifindex(), live);
    if matches!(direction, Direction::Egress) && packet.mark() != 0 {
        stage::refuse(packet, tables);
    }
    match packet.ether_type().get() {
        ETH_IPV4 if !packet.has_vlan_tag() => ip::<V4, P, T>(packet, tables, &hook, direction),
        ETH_IPV6 if !packet.has_vlan_tag() => ip::<V6, P, T>(packet, tables, &hook, direction),
        ether_type => other(packet, tables, &hook, ether_type),
    }
}

/// An IP packet: the established path, and the way out of it. The parts of the slow path are functions of their
/// own, called one after the other, so that the kernel's 512 bytes of stack never hold two of them.
#[inline(always)]
fn ip<F: Parse, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    hook: &Hook,
    direction: Direction,
) -> Verdict {
    let mut is_unanswered = false;
    let headers = if let Some(headers) = F::simple(packet) {
        // What opens a connection is judged whatever is known of it.
        if !conn::is_opening(&headers) {
            let found = tables.flow(&key::key_at(packet.ifindex(), direction, &headers));
            is_unanswered = found.is_none();
            if let Some(found) = found
                && conn::established::<F, P, T>(found, packet, tables, (hook.live, direction), &headers)
                && (found.flags & CONN_STAMPED == 0
                    || planted("stamps-end-with-the-handshake")
                    || matches!(direction, Direction::Ingress)
                    || stage::stamp_established::<F, P, T>(packet, tables, hook, found.flags))
            {
                return Verdict::by_rule(Reason::Established, found.rule);
            }
        }
        headers
    } else {
        let mut headers = Headers::default();
        let problem = read_all::<F, P>(packet, &mut headers);
        if problem != Reason::Allowed {
            return unread::<F, P, T>(packet, tables, hook, problem);
        }
        headers
    };
    let Some((slot, record)) = endpoint::<F, T>(tables, hook) else { return unidentified(tables.strict()) };
    let case = Case { packet, tables, hook, headers: &headers, record, slot, is_unanswered };
    let mut verdict = admit(&case);
    if verdict.reason == Reason::Allowed {
        verdict = match () {
            () if matches!(headers.part, Part::Later) => fragment::later(&case),
            () if icmp::is_error(&headers) => icmp::error(&case),
            () if conn::is_opening(&headers) && !planted("reply-entry-admits-a-syn") => {
                Verdict::new(Reason::NoConnection)
            }
            () => conn::track(&case),
        };
        if verdict.reason == Reason::NoConnection {
            verdict = conn::open(&case);
        }
        if matches!(headers.part, Part::First) {
            fragment::remember(&case, verdict);
        }
        verdict = audited(record, verdict);
    }
    if planted("audit-lifts-everything") {
        verdict.audit = verdict.reason.is_drop() && record.flags & ENDPOINT_AUDIT != 0;
    }
    verdict
}

/// [`Parse::full`] with a signature that BTF can say: the layout of a `Result` is not one. `Reason::Allowed` for
/// headers that were read.
#[inline(never)]
pub(crate) fn read_all<F: Parse, P: Packet>(packet: &P, headers: &mut Headers<F>) -> Reason {
    match F::full(packet) {
        Ok(read) => {
            *headers = read;
            Reason::Allowed
        }
        Err(reason) => reason,
    }
}

/// A packet whose headers could not be read. What a pod must not send as, and to whom, stands before what was not
/// understood, and who receives it may understand more.
#[inline(never)]
fn unread<F: Parse, P: Packet, T: Tables<F>>(packet: &P, tables: &T, hook: &Hook, reason: Reason) -> Verdict {
    let Some((_, record)) = endpoint::<F, T>(tables, hook) else { return unidentified(tables.strict()) };
    let is_open = record.image[hook.direction() as usize] == 0;
    let is_open = is_open || planted("unread-leaves-a-pod") && matches!(hook.direction(), Direction::Egress);
    let passes = is_open || record.flags & ENDPOINT_AUDIT != 0;
    if passes && matches!(hook.direction(), Direction::Egress) && !planted("unread-from-anybody") {
        let (Some(frame), Some((source, destination))) = (packet.read::<Ethernet>(0), F::addresses(packet))
        else {
            return Verdict::new(reason);
        };
        if !is_own_mac(record, &frame) || F::is_zero(source) || source != F::own(record) {
            return Verdict::new(Reason::Spoofed);
        }
        if ends_tunnels::<F, T>(tables, hook, &destination) {
            return Verdict::new(reason);
        }
    }
    audited(record, Verdict::new(if is_open { Reason::NotIsolated } else { reason }))
}

/// Nodes end tunnels, and an address of a pod range that no known pod has may be a node's as well: bridges are there.
#[inline(always)]
pub(crate) fn ends_tunnels<F: Family, T: Tables<F>>(tables: &T, hook: &Hook, address: &F::Addr) -> bool {
    let class = tables.class(address, hook.live.bank());
    class & CLASS_NODE != 0 || class == CLASS_UNKNOWN_POD
}

/// A packet with another inside, for whoever it is addressed to: IPIP, 6in4, GRE, ESP, AH, EtherIP, L2TP; and VXLAN
/// on the port of the RFC and on that of Linux, and Geneve.
#[inline(always)]
pub(crate) fn is_tunnel<F: Family>(headers: &Headers<F>) -> bool {
    match headers.protocol {
        4 | 41 | 47 | 50 | 51 | 97 | 115 => true,
        UDP => is_tunnel_port(headers.destination_port.get()),
        _ => false,
    }
}

/// A frame from a pod has its own address.
#[inline(always)]
fn is_own_mac(record: &EndpointRecord, frame: &Ethernet) -> bool {
    record.mac.is_unknown() || frame.source == record.mac
}

/// Slot and record of the pod at this hook, when it is known.
#[inline(always)]
fn endpoint<'a, F: Family, T: Tables<F>>(tables: &'a T, hook: &Hook) -> Option<(u32, &'a EndpointRecord)> {
    tables
        .record(hook.ifindex, hook.live.bank())
        .filter(|(_, record)| record.flags & ENDPOINT_IDENTIFIED != 0)
}

/// True for a drop by a policy of a pod that is audited: it is counted and reported, and the packet passes. What keeps
/// a pod from speaking for others or from going round their policies is not for its own annotation to lift.
#[inline(always)]
pub(crate) const fn is_audited(record: &EndpointRecord, reason: Reason) -> bool {
    reason.is_drop() && record.flags & ENDPOINT_AUDIT != 0 && !matches!(reason, Reason::Tunnel)
}

/// A verdict of policy at a pod that may be audited.
#[inline(always)]
pub(crate) const fn audited(record: &EndpointRecord, verdict: Verdict) -> Verdict {
    Verdict { audit: is_audited(record, verdict.reason), ..verdict }
}

/// What is decided before policy is asked: `Reason::Allowed` when it may be. Drops are of every pod, audited or not, but
/// for what cannot be judged.
#[inline(never)]
fn admit<F: Parse, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>) -> Verdict {
    let Case { packet, hook, headers, record, .. } = *case;
    // Linear but for a handful of packets, and a helper costs as much as a lookup.
    let frame = packet.direct::<Ethernet, 0>().copied().or_else(|| packet.read(0));
    let Some(frame) = frame else { return Verdict::new(Reason::Truncated) };
    let reason = if F::V6 && headers.protocol == ICMPV6 { neighbour::discovery(case, &frame) } else { None }
        .or_else(|| misplaced(hook, record, &frame, headers));
    let end = if planted("ports-behind-the-end") { headers.transport } else { headers.transport_end() };
    let is_whole = headers.lengths_hold(packet, end);
    if let Some(reason) = reason {
        let is_heard = is_whole || reason != Reason::Neighbour;
        return Verdict::new(if is_heard { reason } else { Reason::Malformed });
    }
    if matches!(hook.direction(), Direction::Egress) {
        if icmp::is_router_message(headers) {
            return Verdict::new(Reason::NeighbourForged);
        }
        if is_tunnel(headers)
            && ends_tunnels::<F, T>(case.tables, hook, &headers.destination)
            && !planted("tunnels-to-nodes")
        {
            return Verdict::new(Reason::Tunnel);
        }
    }
    if !is_whole {
        return audited(record, unjudgeable(case, Reason::Malformed));
    }
    Verdict::new(Reason::Allowed)
}

/// Addresses that this pod cannot have sent from, or that are not this pod's: dropped on every pod, isolated or
/// not, since another pod's policy relies on it.
#[inline(always)]
fn misplaced<F: Parse>(
    hook: &Hook,
    record: &EndpointRecord,
    frame: &Ethernet,
    headers: &Headers<F>,
) -> Option<Reason> {
    let own = F::own(record);
    match hook.direction() {
        Direction::Egress => {
            let has_one = !F::is_zero(own) || planted("no-address-is-an-address");
            let holds = has_one
                && (headers.source == own || planted("ones-own-mac-is-enough"))
                && is_own_mac(record, frame);
            if !holds && !planted("spoofing-unchecked") {
                return Some(Reason::Spoofed);
            }
            // A node may route what is for its own loopback (CVE-2020-8558).
            (F::is_martian(headers.destination) && !planted("loopback-of-the-node"))
                .then_some(Reason::NotAddressed)
        }
        Direction::Ingress => {
            let mac_holds =
                record.mac.is_unknown() || frame.destination == record.mac || frame.destination.is_group();
            let addressed =
                (!F::is_zero(own) && headers.destination == own) || F::is_group(headers.destination);
            if F::is_martian(headers.source) || F::is_group(headers.source) {
                return Some(Reason::Spoofed);
            }
            (!(addressed && mac_holds)).then_some(Reason::NotAddressed)
        }
    }
}

/// What is neither IPv4 nor IPv6, or has a VLAN tag. A switch believes every frame's source, whatever is in it; and a
/// second tag behind one with id 0, which is all that can be left in a frame from a pod, is taken off as well.
#[inline(never)]
fn other<P: Packet, T: Tables<V4> + Tables<V6>>(
    packet: &P,
    tables: &T,
    hook: &Hook,
    ether_type: u16,
) -> Verdict {
    let Some((_, record)) = endpoint::<V4, T>(tables, hook) else {
        return unidentified(Tables::<V4>::strict(tables));
    };
    let from_pod = matches!(hook.direction(), Direction::Egress);
    let is_forged = from_pod && !packet.read::<Ethernet>(0).is_some_and(|frame| is_own_mac(record, &frame));
    let is_tagged_twice = from_pod && !packet.has_vlan_tag() && matches!(ether_type, ETH_VLAN | ETH_QINQ);
    let reason = if is_forged && !planted("any-mac-in-other-frames") {
        Reason::Spoofed
    } else if is_tagged_twice && !planted("two-tags-hide-what-follows") {
        Reason::EtherType
    } else if ether_type == ETH_ARP && !packet.has_vlan_tag() {
        neighbour::arp(packet, hook, record)
    } else if record.image[0] | record.image[1] != 0 {
        return audited(record, Verdict::new(Reason::EtherType));
    } else {
        Reason::NotIsolated
    };
    Verdict::new(reason)
}

/// A packet that cannot be judged.
#[inline(always)]
pub(crate) fn unjudgeable<F: Family, P: Packet, T: Tables<F>>(
    case: &Case<'_, F, P, T>,
    reason: Reason,
) -> Verdict {
    Verdict::new(if case.is_open() { Reason::NotIsolated } else { reason })
}

/// The pod behind the interface is not known.
#[inline(always)]
fn unidentified(strict: bool) -> Verdict {
    Verdict::new(if strict { Reason::UnidentifiedStrict } else { Reason::Unidentified })
}
