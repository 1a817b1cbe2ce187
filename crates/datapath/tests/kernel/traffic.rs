//! Plans under running traffic: what is allowed before and after a plan passes during it, what is denied before
//! and after does not, and what changes changes with the flip.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use cellwall_abi::Direction;
use cellwall_policy::flow::Protocol;
use cellwall_policy::model::Rule;
use cellwall_testkit::net::Pod;

use crate::place::place;
use crate::world::{World, allow, block, pods};

/// Plans of one run.
const PLANS: u64 = 300;
/// Datagrams on their way at a time: fewer than a socket has room for.
const WINDOW: u64 = 16;
const SOON: Duration = Duration::from_secs(10);

const ALWAYS: u16 = 1000;
const NEVER: u16 = 2000;
const SOMETIMES: u16 = 3000;

/// Sends numbered datagrams and takes them in, each with a connection of its own (another source port), until told
/// to stop. Every one must arrive.
fn always(from: &Pod, to: &Pod, family: usize, stop: &AtomicBool, sent: &AtomicU64) {
    let (source, target) = (from.addresses()[family], to.addresses()[family]);
    let receiver = socket(to, target, ALWAYS);
    receiver.set_read_timeout(Some(SOON)).expect("a socket");
    while !stop.load(Relaxed) {
        // New connections of one socket each, so that policy is asked; and a second datagram on each.
        let sender = socket(from, source, 0);
        let mut missing: BTreeSet<u64> = (0..WINDOW).collect();
        for number in &missing {
            sender.send_to(&number.to_be_bytes(), (target, ALWAYS)).expect("a route");
        }
        while !missing.is_empty() {
            let mut bytes = [0; 8];
            let from =
                receiver.recv_from(&mut bytes).unwrap_or_else(|_| panic!("{missing:?} did not arrive")).1;
            if from == sender.local_addr().expect("bound") {
                missing.remove(&u64::from_be_bytes(bytes));
            }
        }
        sent.fetch_add(WINDOW, Relaxed);
    }
}

/// Sends what must never arrive.
fn never(from: &Pod, to: &Pod, family: usize, stop: &AtomicBool, sent: &AtomicU64) {
    let (source, target) = (from.addresses()[family], to.addresses()[family]);
    let receiver = socket(to, target, NEVER);
    receiver.set_nonblocking(true).expect("a socket");
    while !stop.load(Relaxed) {
        let sender = socket(from, source, 0);
        for _ in 0..WINDOW {
            sender.send_to(b"denied", (target, NEVER)).expect("a route");
            sent.fetch_add(1, Relaxed);
        }
        assert!(receiver.recv(&mut [0; 8]).is_err(), "what no state allows arrived");
        std::thread::yield_now();
    }
}

fn socket(pod: &Pod, address: IpAddr, port: u16) -> UdpSocket {
    pod.namespace.run(|| UdpSocket::bind((address, port)).expect("a port"))
}

/// Rules of revision `n`: always 1000 and never 2000 from the client, and 3000 every other time; with peers,
/// ports and blocks that come and go around them.
fn rules(n: u64) -> Vec<Rule> {
    let mut ports = vec![(Protocol::UDP, ALWAYS)];
    if n.is_multiple_of(2) {
        ports.push((Protocol::UDP, SOMETIMES));
    }
    // More than an entry holds, so that the list of ports is used, too.
    ports.extend((0..n % 7).map(|more| (Protocol::TCP, 4000 + 2 * u16::try_from(more).expect("small"))));
    let mut rules = vec![allow(vec![pods("client")], &ports)];
    let third = u8::try_from(n % 5).expect("small");
    rules.push(allow(vec![block(&format!("10.24{third}.0.0/24"))], &[(Protocol::UDP, ALWAYS)]));
    rules.push(allow(vec![block(&format!("fd00:24{third}::/64"))], &[(Protocol::UDP, ALWAYS)]));
    rules.push(allow(vec![pods(&format!("far{}", n % 3))], &[(Protocol::UDP, NEVER)]));
    rules
}

/// True when a datagram from `from` arrives at `to`. One that should is waited for; of one that should not, a tenth
/// of a second of silence is taken for the verdict (a veth delivers at once).
fn passes(from: &Pod, to: &UdpSocket, expected: bool) -> bool {
    let sender = from.namespace.run(|| UdpSocket::bind((IpAddr::from(from.v4), 0)).expect("a port"));
    sender.send_to(b"x", to.local_addr().expect("bound")).expect("a route");
    let wait = if expected { SOON } else { Duration::from_millis(100) };
    to.set_read_timeout(Some(wait)).expect("a socket");
    to.recv_from(&mut [0; 8]).is_ok_and(|(_, who)| who == sender.local_addr().expect("bound"))
}

#[test]
fn no_packet_sees_a_third_verdict() {
    place("traffic", |place| {
        let (server, client) = (place.net.pod().expect("a pod"), place.net.pod().expect("a pod"));
        let mut world = World::new(place);
        world.pod("server", &server);
        world.pod("client", &client);
        world.policy("p", "server", Direction::Ingress, rules(0));
        world.converge();
        let sometimes = socket(&server, server.v4.into(), SOMETIMES);
        let (stop, sent) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 4]);
        std::thread::scope(|scope| {
            let (server, client, stop, sent) = (&server, &client, &stop, &sent);
            for family in 0..2 {
                scope.spawn(move || {
                    let _stop = Stop(stop);
                    always(client, server, family, stop, &sent[family]);
                });
                scope.spawn(move || {
                    let _stop = Stop(stop);
                    never(client, server, family, stop, &sent[2 + family]);
                });
            }
            let _stop = Stop(stop);
            let mut flips = 0;
            for n in 1..=PLANS {
                assert!(!stop.load(Relaxed), "the traffic goes on");
                let far = format!("far{}", n % 3);
                let address = Ipv4Addr::new(10, 244, 1, u8::try_from(n % 11).expect("small"));
                if n.is_multiple_of(4) {
                    world.forget_pod(&far);
                } else {
                    world.far_pod(&far, &[address.into()]);
                }
                if n.is_multiple_of(13) {
                    world.forget_policy("egress");
                } else {
                    let all = allow(vec![block("0.0.0.0/0"), block("::/0")], &[]);
                    world.policy("egress", "client", Direction::Egress, vec![all]);
                }
                world.policy("p", "server", Direction::Ingress, rules(n));
                flips += u64::from(!world.converge().is_empty());
                let expected = n.is_multiple_of(2);
                assert_eq!(
                    passes(client, &sometimes, expected),
                    expected,
                    "plan {n} holds when it has been run"
                );
            }
            assert_eq!(flips, PLANS, "each plan wrote something");
        });
        world.assert_no_drift();
        for (what, sent) in ["allowed", "allowed", "denied", "denied"].iter().zip(&sent) {
            let sent = sent.load(Relaxed);
            assert!(sent > PLANS, "{sent} {what} datagrams are too few for {PLANS} plans");
        }
    });
}

/// Stops the traffic when a thread ends, also when it fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
