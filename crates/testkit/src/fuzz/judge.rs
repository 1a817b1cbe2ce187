//! What must become of a frame: by the oracle where it is a flow, else by the catalogue in `docs/robustness.md`.
//!
//! Written for a pod that is isolated in both directions. It remembers what was opened, so that it knows what may be
//! an answer, and never forgets: a connection that has ended may still be answered for all it knows. Who shows it every
//! frame of the pod, and says when ([`Judge::at`]), is told what must be answered, too.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::{HashMap, HashSet};

use cellwall_oracle::{Flow, Objects, decide};
use cellwall_policy::flow::{Decision, Direction, Protocol};

use super::grammar::{Place, link_local};
use super::known::{self, Known, Opened};
use super::see::{Part, Seen, Why, see};

/// What must become of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sentence {
    /// Dropped, whatever was before.
    Never,
    /// Either: what belongs to no connection that is known to live, or cannot be told by looking at one frame.
    May,
    /// Delivered, whatever was before, or because of it.
    Must,
}

use Sentence::{May, Must, Never};

/// A datagram whose first fragment may pass: remote address, identification and, of IPv4, protocol.
type Datagram = (Direction, IpAddr, u32, u8);

/// The judge of the frames of one pod.
#[derive(Debug)]
pub struct Judge {
    objects: Objects,
    place: Place,
    nodes: Vec<IpAddr>,
    allowed: HashMap<(Direction, IpAddr, u8, u16), bool>,
    opened: HashSet<Opened>,
    firsts: HashSet<Datagram>,
    /// The same behind a translation, where datagrams are others.
    firsts_behind: HashSet<Datagram>,
    known: Known,
    known_behind: Known,
}

const TUNNELS: [u8; 7] = [4, 41, 47, 50, 51, 97, 115];
const TUNNEL_PORTS: [u16; 3] = [4789, 8472, 6081];

impl Judge {
    /// A judge who has seen nothing yet. `nodes` are the addresses of nodes among the remote ones.
    #[must_use]
    pub fn new(objects: Objects, place: Place, nodes: Vec<IpAddr>) -> Self {
        Self {
            objects,
            place,
            nodes,
            allowed: HashMap::new(),
            opened: HashSet::new(),
            firsts: HashSet::new(),
            firsts_behind: HashSet::new(),
            known: Known::default(),
            known_behind: Known::default(),
        }
    }

    /// Forgets what was opened, and what began.
    pub fn forget(&mut self) {
        self.opened.clear();
        self.firsts.clear();
        self.firsts_behind.clear();
        self.known.forget();
        self.known_behind.forget();
    }

    /// This judge is asked about every frame of the pod, and nothing keeps the programs from remembering one; the next
    /// comes in this tick. Without this it knows of no frame for certain what it left.
    pub fn at(&mut self, tick: u32) {
        self.known.at(tick);
        self.known_behind.at(tick);
    }

    fn own(&self, family_of: IpAddr) -> IpAddr {
        self.place.pod[usize::from(family_of.is_ipv6())]
    }

    /// What the oracle says about a flow between the pod and a remote address.
    pub fn allows(&mut self, direction: Direction, remote: IpAddr, protocol: u8, port: u16) -> bool {
        let local = self.own(remote);
        let objects = &self.objects;
        *self.allowed.entry((direction, remote, protocol, port)).or_insert_with(|| {
            let protocol = Protocol(protocol);
            let flow = Flow { local, direction, remote, from_own_node: false, protocol, port };
            decide(objects, &flow).decision == Decision::Allow
        })
    }

    /// What must become of a frame without VLAN tags at the hook of a direction. Remembers what it opens.
    pub fn sentence(&mut self, frame: &[u8], direction: Direction) -> Sentence {
        let Some((to, from)) = frame.get(..6).zip(frame.get(6..12)) else { return Never };
        let from_pod = direction == Direction::Egress;
        let own_mac =
            if from_pod { from == self.place.pod_mac } else { to == self.place.pod_mac || to[0] & 1 != 0 };
        let seen = see(frame);
        let (source, destination, hops, protocol, (part, id), payload) = match &seen {
            Seen::Arp(_) if !from_pod => return Must,
            Seen::Arp(arp) => return if own_mac && self.is_own_arp(arp) { Must } else { Never },
            Seen::Nothing(..) => return Never,
            Seen::Packet { source, destination, hops, protocol, part, id, payload } => {
                (*source, *destination, *hops, *protocol, (*part, *id), payload)
            }
        };
        if let Some(sentence) = self.discovery(&seen, direction, own_mac, hops) {
            return sentence;
        }
        let own = self.own(source);
        let (remote, placed) = if from_pod {
            (destination, source == own && own_mac && !is_nowhere(destination))
        } else {
            let addressed = destination == own || is_group(destination);
            (source, addressed && own_mac && !is_nowhere(source) && !is_group(source))
        };
        if !placed || (from_pod && self.leaves_as_router_or_tunnel(protocol, part, payload, destination)) {
            return Never;
        }
        // To itself, or as itself: whoever it is, it gains nothing.
        if source == destination || remote == own {
            return May;
        }
        // An error of a router may come in fragments too, from whom nothing else may.
        let kind = if source.is_ipv4() { protocol } else { 0 };
        let datagram = (direction, remote, id, kind);
        let whole: known::Datagram = (direction, (source, destination), id, kind);
        if part == Part::Later && self.known.has_begun(&whole) {
            return Must;
        }
        if part == Part::Later {
            let may = self.firsts.contains(&datagram) || self.allows_some(direction, remote);
            return if may { May } else { Never };
        }
        let sentence = self.connection(direction, (remote, destination), protocol, payload);
        if part == Part::First && sentence != Never {
            self.firsts.insert(datagram);
        }
        if part == Part::First && sentence == Must {
            self.known.begins(whole);
        }
        sentence
    }

    /// What must become of a frame with the pod's stamp at the hook behind a translation: whoever it comes from by then,
    /// it goes only where the pod itself may open something.
    pub fn sentence_behind(&mut self, frame: &[u8]) -> Sentence {
        let out = Direction::Egress;
        let (source, destination, protocol, part, id, payload) = match see(frame) {
            Seen::Packet { source, destination, protocol, part, id, payload, .. } => {
                (source, destination, protocol, part, id, payload)
            }
            // The node's own stack has seen to lengths; what is read of such a packet stands before its end.
            Seen::Nothing(Why::Broken, Some((from, to))) => {
                return if from == to || to == self.own(to) || self.allows_some(out, to) {
                    May
                } else {
                    Never
                };
            }
            Seen::Nothing(..) | Seen::Arp(_) => return Never,
        };
        if destination == self.own(destination) {
            return May;
        }
        let kind = if destination.is_ipv4() { protocol } else { 0 };
        let datagram = (out, destination, id, kind);
        let whole: known::Datagram = (out, (source, destination), id, kind);
        if part == Part::Later && self.known_behind.has_begun(&whole) {
            return Must;
        }
        if part == Part::Later {
            // Nobody is kept from itself, and what it left its pod with was its own address.
            let may = source == destination
                || self.firsts_behind.contains(&datagram)
                || self.allows_some(out, destination);
            return if may { May } else { Never };
        }
        let port = if matches!(protocol, 6 | 17 | 132) { pair(&payload, 2) } else { 0 };
        if !self.allows(out, destination, protocol, port) {
            return Never;
        }
        if part == Part::First {
            self.firsts_behind.insert(datagram);
            self.known_behind.begins(whole);
        }
        Must
    }

    fn is_own_arp(&self, arp: &[u8]) -> bool {
        let sender = arp.get(14..18);
        arp.len() >= 28
            && arp[..6] == [0, 1, 8, 0, 6, 4]
            && arp[8..14] == self.place.pod_mac
            && sender.is_some_and(|b| {
                b == [0; 4] || IpAddr::V4(Ipv4Addr::new(b[0], b[1], b[2], b[3])) == self.place.pod[0]
            })
    }

    /// RFC 4861 and RFC 3810; `None` for what policy judges.
    fn discovery(&self, seen: &Seen, direction: Direction, own_mac: bool, hops: u8) -> Option<Sentence> {
        let Seen::Packet { source, destination, protocol: 58, part, payload, .. } = seen else { return None };
        if *part == Part::Later || source.is_ipv4() {
            return None;
        }
        let from_pod = direction == Direction::Egress;
        let is_own =
            |address: IpAddr| address == self.place.pod[1] || address == link_local(self.place.pod_mac);
        let own_sender = own_mac && (is_own(*source) || source.is_unspecified());
        let holds = match payload[0] {
            133..=137 if hops != 255 || *part != Part::Whole => false,
            134 | 137 => !from_pod,
            133 | 135 | 136 if !from_pod => true,
            133 => own_sender && self.own_options(&payload[8..]),
            kind @ (135 | 136) => {
                let target = payload.get(8..24).and_then(|b| <[u8; 16]>::try_from(b).ok());
                let target_is_own = target.is_some_and(|b| is_own(Ipv6Addr::from(b).into()));
                let may_ask = kind == 135 && !source.is_unspecified();
                own_sender
                    && target.is_some()
                    && (may_ask || target_is_own)
                    && self.own_options(&payload[24..])
            }
            130 => !from_pod && hops == 1,
            131 | 132 | 143 if from_pod => {
                let within_link = matches!(destination, IpAddr::V6(to) if to.segments()[0] == 0xff02 && to.segments()[1] == 0);
                own_sender && hops == 1 && within_link
            }
            _ => return None,
        };
        Some(if holds { Must } else { Never })
    }

    fn own_options(&self, mut options: &[u8]) -> bool {
        for _ in 0..8 {
            match options {
                [] => return true,
                [1 | 2, 1, rest @ ..] if rest.len() >= 6 && rest[..6] == self.place.pod_mac => {
                    options = &rest[6..];
                }
                [1 | 2, ..] | [_, 0, ..] | [_] => return false,
                [_, length, ..] => match options.get(usize::from(*length) * 8..) {
                    Some(rest) => options = rest,
                    None => return false,
                },
            }
        }
        options.is_empty()
    }

    fn leaves_as_router_or_tunnel(&self, protocol: u8, part: Part, payload: &[u8], to: IpAddr) -> bool {
        let head = if part == Part::Later { &[][..] } else { payload };
        let is_router = protocol == 1 && matches!(head.first(), Some(5 | 9));
        let is_port = protocol == 17 && head.len() >= 4 && TUNNEL_PORTS.contains(&pair(head, 2));
        is_router || ((TUNNELS.contains(&protocol) || is_port) && self.nodes.contains(&to))
    }

    fn allows_some(&mut self, direction: Direction, remote: IpAddr) -> bool {
        [(6, 80), (6, 443), (17, 53), (132, 80), (47, 0)]
            .into_iter()
            .any(|(protocol, port)| self.allows(direction, remote, protocol, port))
    }

    fn connection(
        &mut self,
        direction: Direction,
        (remote, destination): (IpAddr, IpAddr),
        protocol: u8,
        payload: &[u8],
    ) -> Sentence {
        let is_icmp = matches!(protocol, 1 | 58);
        let kind = payload.first().copied().unwrap_or_default();
        if is_icmp && matches!((protocol, kind), (1, 3 | 11 | 12) | (58, 1..=4)) {
            return self.error(direction, remote, &payload[8..]);
        }
        let has_ports = matches!(protocol, 6 | 17 | 132);
        let ports = if has_ports { (pair(payload, 0), pair(payload, 2)) } else { (0, 0) };
        let is_request = is_icmp && matches!((protocol, kind), (1, 8) | (58, 128));
        let is_reply = is_icmp && matches!((protocol, kind), (1, 0) | (58, 129));
        let id = if is_icmp { pair(payload, 4) } else { 0 };
        let opener = if is_icmp { (id, 0) } else { ports };
        let is_opening = match protocol {
            6 => payload[13] & 0x17 == 2,
            132 => payload[12] == 1,
            _ => is_request || !is_icmp,
        };
        if self.allows(direction, remote, protocol, ports.1) {
            let leaves = is_opening || protocol == 132;
            if !is_icmp || is_request {
                self.opened.insert((direction, remote, opener, protocol));
            }
            // Nobody answers for a group.
            if leaves && !is_group(destination) {
                self.known.opens((direction, remote, opener, protocol));
            }
            // A segment in the middle of a connection needs none that is known.
            let continues = protocol == 6 && payload[13] & 0x16 == 0x10;
            return if leaves || continues { Must } else { May };
        }
        let reversed = if is_icmp { (id, 0) } else { (ports.1, ports.0) };
        let answers = if is_icmp { is_reply } else { !matches!(protocol, 6 | 132) || !is_opening };
        let asked: Opened = (other(direction), remote, reversed, protocol);
        if !answers || !self.opened.contains(&asked) {
            return Never;
        }
        if is_group(destination) || !self.known.is_open(&asked) {
            return May;
        }
        // What begins otherwise may be taken for the end of an older connection with the same ports.
        let takes = match protocol {
            6 => payload[13] & 0x17 == 0x12,
            132 => payload[12] == 2,
            _ => return Must,
        };
        if takes {
            self.known.takes(asked);
        }
        if takes || self.known.is_taken(&asked) { Must } else { May }
    }

    fn error(&self, direction: Direction, remote: IpAddr, quoted: &[u8]) -> Sentence {
        if !self.is_about_something(direction, remote, quoted) {
            return Never;
        }
        if self.is_about_known(direction, remote, quoted) { Must } else { May }
    }

    /// True when the ports of what is quoted can be read as every router quotes them, and something with them is open.
    /// That its addresses are in place has been seen.
    fn is_about_known(&self, direction: Direction, with: IpAddr, quoted: &[u8]) -> bool {
        let first = quoted[0];
        let at = match first >> 4 {
            4 if with.is_ipv4() && first & 15 >= 5 && pair(quoted, 6) << 3 == 0 => {
                usize::from(first & 15) * 4
            }
            6 if with.is_ipv6() => 40,
            _ => return false,
        };
        let protocol = if with.is_ipv4() { quoted[9] } else { quoted[6] };
        let Some(head) = quoted.get(at..at + 4).filter(|_| matches!(protocol, 6 | 17 | 132)) else {
            return false;
        };
        let remote =
            quoted_ends(quoted).map(|(from, to)| if direction == Direction::Ingress { to } else { from });
        let Some(remote) = remote else { return false };
        let ports = (pair(head, 0), pair(head, 2));
        self.known.is_open(&(other(direction), remote, ports, protocol))
            || self.known.is_open(&(direction, remote, (ports.1, ports.0), protocol))
    }

    /// An error that goes in `direction` quotes a packet that went the other way, of a connection either side opened. Any
    /// router may send one to the pod; the pod sends it to whom it quotes.
    fn is_about_something(&self, direction: Direction, with: IpAddr, quoted: &[u8]) -> bool {
        let Some(&first) = quoted.first() else { return false };
        let (at, protocol) =
            if first >> 4 == 4 { (usize::from(first & 15) * 4, quoted.get(9)) } else { (40, quoted.get(6)) };
        let (Some(&protocol), Some((from, to))) = (protocol, quoted_ends(quoted)) else { return false };
        let (own, remote) = if direction == Direction::Ingress { (from, to) } else { (to, from) };
        if own != self.own(own) || direction == Direction::Egress && remote != with {
            return false;
        }
        // Behind headers of its own, or an echo: whatever is open with that address may be meant.
        let Some(head) = quoted.get(at..at + 4).filter(|_| matches!(protocol, 6 | 17 | 132)) else {
            return self.opened.iter().any(|(_, with, ..)| *with == remote);
        };
        let ports = (pair(head, 0), pair(head, 2));
        let sent = other(direction);
        self.opened.contains(&(sent, remote, ports, protocol))
            || self.opened.contains(&(direction, remote, (ports.1, ports.0), protocol))
    }
}

/// Source and destination of a packet that an error quotes.
fn quoted_ends(quoted: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let address = |bytes: &[u8]| -> IpAddr {
        match <[u8; 4]>::try_from(bytes) {
            Ok(four) => four.into(),
            Err(_) => <[u8; 16]>::try_from(bytes).expect("one of two sizes").into(),
        }
    };
    let both = if quoted.first()? >> 4 == 4 { quoted.get(12..20) } else { quoted.get(8..40) }?;
    let (from, to) = both.split_at(both.len() / 2);
    Some((address(from), address(to)))
}

fn pair(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

const fn other(direction: Direction) -> Direction {
    match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    }
}

/// No packet on a wire comes from there or goes there.
fn is_nowhere(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => matches!(address.octets()[0], 0 | 127),
        IpAddr::V6(address) => matches!(address.segments(), [0, 0, 0, 0, 0, 0 | 0xffff, ..]),
    }
}

fn is_group(address: IpAddr) -> bool {
    address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST)
}
