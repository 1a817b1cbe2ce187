//! What a pod sees of a connection.
//!
//! The programs are at the host side of the pod's interface: packets out of the pod meet them before the node
//! translates addresses, packets into it after. So the pod that opened a connection sees `original`, whatever the node
//! makes of the destination, and the pod that was reached sees `reply`, from its side, whatever the client asked for
//! and wherever it really is:
//!
//! ```text
//!            original                 as delivered = reply, reversed
//!  pod A ── A ► service ──► node ──► node ► B ── pod B
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use cellwall_abi::{Be16, Family, FlowKey4, FlowKey6, V4, V6};

use super::entry::{ASSURED, DYING, Entry, SEEN_REPLY, TCP_ESTABLISHED, TCP_LAST_ACK, TCP_LIBERAL};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// A key of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    V4(FlowKey4),
    V6(FlowKey6),
}

/// A connection as one pod sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) key: Key,
    pub(super) protocol: u8,
    pub(super) opened_by_pod: bool,
    /// It went elsewhere than the pod sent it.
    pub(super) is_translated: bool,
}

/// What the pods behind these addresses see of it: nothing, one pod, or both of its ends.
pub(super) fn flows(entry: &Entry, pods: &BTreeMap<IpAddr, u32>) -> impl Iterator<Item = Flow> {
    let Entry { original, reply, .. } = *entry;
    let protocol = original.protocol;
    let ends = [(original.source, original.destination, true), (reply.source, reply.destination, false)].map(
        |(local, remote, opened_by_pod)| {
            // A pod that speaks to itself is known by its packets.
            let ifindex = pods.get(&local.ip()).filter(|_| local.ip() != remote.ip());
            let key = ifindex.and_then(|ifindex| key(*ifindex, local, remote, protocol))?;
            let is_translated = opened_by_pod && original.destination != reply.source;
            Some(Flow { key, protocol, opened_by_pod, is_translated })
        },
    );
    ends.into_iter().flatten().filter(|_| is_answered(entry))
}

fn key(ifindex: u32, local: SocketAddr, remote: SocketAddr, protocol: u8) -> Option<Key> {
    let ports = (Be16::new(local.port()), Be16::new(remote.port()));
    match (local.ip(), remote.ip()) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => {
            Some(Key::V4(V4::flow_key(ifindex, (local.into(), remote.into()), ports, protocol)))
        }
        (IpAddr::V6(local), IpAddr::V6(remote)) => {
            Some(Key::V6(V6::flow_key(ifindex, (local.into(), remote.into()), ports, protocol)))
        }
        _ => None,
    }
}

/// Answered, alive, and known from its first packet.
fn is_answered(entry: &Entry) -> bool {
    let has = |bits| entry.status & bits == bits;
    let answered = match entry.original.protocol {
        UDP => true,
        SCTP => has(ASSURED),
        // nf_conntrack takes up a TCP connection in its middle, too, and then takes the side that it saw first for
        // the opener. It checks such a connection's window liberally: of those nobody knows who opened them.
        TCP => {
            has(ASSURED)
                && entry.tcp.is_some_and(|tcp| {
                    (TCP_ESTABLISHED..=TCP_LAST_ACK).contains(&tcp.state) && tcp.flags & TCP_LIBERAL == 0
                })
        }
        _ => false,
    };
    answered && has(SEEN_REPLY) && entry.status & DYING == 0
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Tcp, Tuple};
    use super::*;

    const UP: Option<Tcp> = Some(Tcp { state: TCP_ESTABLISHED, flags: 3 });

    fn tuple(source: &str, destination: &str, protocol: u8) -> Tuple {
        let [source, destination] = [source, destination].map(|text| text.parse().expect("an end"));
        Tuple { source, destination, protocol }
    }

    /// "interface local way remote" for what each pod sees, with dots where it went elsewhere. The pods are 10.0.0.2 and fd00::2 at 2, 10.0.0.3 at 3.
    fn seen(entry: &Entry) -> Vec<String> {
        let pods = [("10.0.0.2", 2), ("fd00::2", 2), ("10.0.0.3", 3)];
        let pods = pods.map(|(address, ifindex)| (address.parse().expect("an address"), ifindex)).into();
        let text = |flow: Flow| {
            let (ifindex, local, remote, ports) = match flow.key {
                Key::V4(k) => {
                    (k.ifindex, IpAddr::from(k.local), IpAddr::from(k.remote), (k.local_port, k.remote_port))
                }
                Key::V6(k) => {
                    (k.ifindex, IpAddr::from(k.local), IpAddr::from(k.remote), (k.local_port, k.remote_port))
                }
            };
            let local = SocketAddr::new(local, ports.0.get());
            let remote = SocketAddr::new(remote, ports.1.get());
            let way = match (flow.opened_by_pod, flow.is_translated) {
                (true, true) => "►…",
                (true, false) => "►",
                (false, _) => "◄",
            };
            format!("{ifindex} {local} {way} {remote}")
        };
        flows(entry, &pods).map(text).collect()
    }

    fn tcp(original: [&str; 2], reply: [&str; 2]) -> Entry {
        Entry {
            original: tuple(original[0], original[1], TCP),
            reply: tuple(reply[0], reply[1], TCP),
            status: SEEN_REPLY | ASSURED,
            tcp: UP,
        }
    }

    /// What it is, the original and the reply direction, and what pods see of it.
    type Case = (&'static str, [&'static str; 2], [&'static str; 2], &'static [&'static str]);

    #[test]
    fn each_pod_sees_its_side_of_every_translation() {
        let cases: [Case; 9] = [
            (
                "between pods",
                ["10.0.0.2:4000", "10.0.0.3:80"],
                ["10.0.0.3:80", "10.0.0.2:4000"],
                &["2 10.0.0.2:4000 ► 10.0.0.3:80", "3 10.0.0.3:80 ◄ 10.0.0.2:4000"],
            ),
            (
                "from elsewhere",
                ["192.0.2.1:4000", "10.0.0.3:80"],
                ["10.0.0.3:80", "192.0.2.1:4000"],
                &["3 10.0.0.3:80 ◄ 192.0.2.1:4000"],
            ),
            (
                "to elsewhere, IPv6",
                ["[fd00::2]:4000", "[2001:db8::1]:80"],
                ["[2001:db8::1]:80", "[fd00::2]:4000"],
                &["2 [fd00::2]:4000 ► [2001:db8::1]:80"],
            ),
            (
                "out, masqueraded: the answer goes to the node",
                ["10.0.0.2:4000", "192.0.2.1:80"],
                ["192.0.2.1:80", "198.51.100.1:61000"],
                &["2 10.0.0.2:4000 ► 192.0.2.1:80"],
            ),
            (
                "to a service: the client sees it, the backend sees the client",
                ["10.0.0.2:4000", "10.96.0.1:80"],
                ["10.0.0.3:8080", "10.0.0.2:4000"],
                &["2 10.0.0.2:4000 ►… 10.96.0.1:80", "3 10.0.0.3:8080 ◄ 10.0.0.2:4000"],
            ),
            (
                "to a port of the node, masqueraded: the backend sees the node",
                ["192.0.2.1:4000", "198.51.100.1:30080"],
                ["10.0.0.3:8080", "10.0.0.1:61000"],
                &["3 10.0.0.3:8080 ◄ 10.0.0.1:61000"],
            ),
            (
                "to itself through a service, masqueraded: both sides at one pod",
                ["10.0.0.2:4000", "10.96.0.1:80"],
                ["10.0.0.2:8080", "10.0.0.1:61000"],
                &["2 10.0.0.2:4000 ►… 10.96.0.1:80", "2 10.0.0.2:8080 ◄ 10.0.0.1:61000"],
            ),
            (
                "to itself through a service: the pod it reaches is known by its packets",
                ["10.0.0.2:4000", "10.96.0.1:80"],
                ["10.0.0.2:8080", "10.0.0.2:4000"],
                &["2 10.0.0.2:4000 ►… 10.96.0.1:80"],
            ),
            ("of others", ["192.0.2.1:4000", "10.0.0.9:80"], ["10.0.0.9:80", "192.0.2.1:4000"], &[]),
        ];
        for (name, original, reply, expected) in cases {
            assert_eq!(seen(&tcp(original, reply)), expected, "{name}");
        }
    }

    #[test]
    fn only_what_was_answered_and_is_alive_counts() {
        let whole = tcp(["10.0.0.2:4000", "10.0.0.9:80"], ["10.0.0.9:80", "10.0.0.2:4000"]);
        let counts = |status, protocol, tcp| {
            let original = Tuple { protocol, ..whole.original };
            !seen(&Entry { original, status, tcp, ..whole }).is_empty()
        };
        let both = SEEN_REPLY | ASSURED;
        assert!(counts(SEEN_REPLY, UDP, None) && counts(both, SCTP, None) && counts(both, TCP, UP));
        assert!(!counts(0, UDP, None) && !counts(SEEN_REPLY | DYING, UDP, None));
        assert!(!counts(SEEN_REPLY, SCTP, None) && !counts(SEEN_REPLY, TCP, UP), "half a handshake");
        assert!(!counts(ASSURED, TCP, UP) && !counts(both, TCP, None));
        for (state, is_open) in
            [(0, false), (1, false), (2, false), (3, true), (4, true), (6, true), (7, false), (9, false)]
        {
            assert_eq!(counts(both, TCP, Some(Tcp { state, flags: 3 })), is_open, "{state}");
        }
        let picked_up = Some(Tcp { state: TCP_ESTABLISHED, flags: TCP_LIBERAL | 2 });
        assert!(!counts(both, TCP, picked_up), "nobody saw who opened it");
        assert!(!counts(both, 47, None), "of GRE the ports are something else");
    }
}
