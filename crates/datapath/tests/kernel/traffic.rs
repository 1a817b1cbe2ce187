//! Plans under running traffic: what is allowed before and after a plan passes during it, what is denied before
//! and after does not, and what changes changes with the flip.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::Scope;
use std::time::{Duration, Instant};

use cellwall_abi::Direction;
use cellwall_policy::flow::Protocol;
use cellwall_policy::model::Rule;
use cellwall_testkit::net::Pod;
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

use crate::flood::{self, Held};
use crate::place::{Place, place};
use crate::sockets::until;
use crate::world::{World, allow, block, pods};

/// Plans of one run.
const PLANS: u64 = 300;
/// Datagrams on their way at a time: fewer than a socket has room for.
pub(crate) const WINDOW: u64 = 16;
/// Connections of each family that are open all the time.
const HELD: usize = 3;
const SOON: Duration = Duration::from_secs(10);

const ALWAYS: u16 = 1000;
/// Always open, too, to whom nobody else sends.
const FENCE: u16 = 1001;
/// Of TCP, and always open.
const LONG: u16 = 1002;
const NEVER: u16 = 2000;
const SOMETIMES: u16 = 3000;

/// What one sender has done, and how often it saw what no state of the policies allows or demands.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: AtomicU64,
    pub(crate) wrong: AtomicU64,
}

/// Sends numbered datagrams and takes them in, each with a connection of its own (another source port), until told
/// to stop. Every one must arrive.
fn always(from: &Pod, to: &Pod, family: usize, stop: &AtomicBool, tally: &Tally) {
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
            let Ok((_, from)) = receiver.recv_from(&mut bytes) else {
                tally.wrong.fetch_add(1, Relaxed);
                break;
            };
            if from == sender.local_addr().expect("bound") {
                missing.remove(&u64::from_be_bytes(bytes));
            }
        }
        tally.sent.fetch_add(WINDOW, Relaxed);
    }
}

/// Sends what must never arrive.
fn never(from: &Pod, to: &Pod, family: usize, stop: &AtomicBool, tally: &Tally) {
    let (source, target) = (from.addresses()[family], to.addresses()[family]);
    let receiver = socket(to, target, NEVER);
    receiver.set_nonblocking(true).expect("a socket");
    while !stop.load(Relaxed) {
        let sender = socket(from, source, 0);
        for _ in 0..WINDOW {
            sender.send_to(b"denied", (target, NEVER)).expect("a route");
            tally.sent.fetch_add(1, Relaxed);
        }
        tally.wrong.fetch_add(u64::from(receiver.recv(&mut [0; 8]).is_ok()), Relaxed);
        std::thread::yield_now();
    }
}

/// Uses connections that were opened before: none may break.
fn held(mut connections: Vec<Held>, stop: &AtomicBool, tally: &Tally) {
    while !stop.load(Relaxed) && !connections.is_empty() {
        connections.retain_mut(|connection| {
            let holds = connection.exchange().is_ok();
            tally.wrong.fetch_add(u64::from(!holds), Relaxed);
            tally.sent.fetch_add(u64::from(holds), Relaxed);
            holds
        });
    }
}

fn socket(pod: &Pod, address: IpAddr, port: u16) -> UdpSocket {
    pod.namespace.run(|| UdpSocket::bind((address, port)).expect("a port"))
}

/// Rules of revision `n`: always some ports and never 2000 from the client, and 3000 every other time; with peers,
/// ports and blocks that come and go around them.
pub(crate) fn rules(n: u64) -> Vec<Rule> {
    let mut ports = vec![(Protocol::UDP, ALWAYS), (Protocol::UDP, FENCE), (Protocol::TCP, LONG)];
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

/// What is sent at a port that is open every other time, and behind it at one that always is: when the second datagram
/// is there, the first is as well, or never will be.
pub(crate) struct Probe {
    sometimes: [UdpSocket; 2],
    fence: [UdpSocket; 2],
}

impl Probe {
    /// Keeps this thread, and those that it starts afterwards, on one CPU.
    pub(crate) fn new(server: &Pod) -> Self {
        // What one CPU sends, it delivers: in order.
        let mut one = CpuSet::new();
        one.set(sched_getcpu());
        sched_setaffinity(None, &one).expect("a CPU of this machine");
        let [sometimes, fence] =
            [SOMETIMES, FENCE].map(|port| server.addresses().map(|address| socket(server, address, port)));
        for (sometimes, fence) in sometimes.iter().zip(&fence) {
            sometimes.set_nonblocking(true).expect("a socket");
            fence.set_read_timeout(Some(SOON)).expect("a socket");
        }
        Self { sometimes, fence }
    }

    /// Of each family: true when the datagram arrives at the port that is open sometimes.
    pub(crate) fn passes(&self, from: &Pod) -> [bool; 2] {
        [0, 1].map(|family| {
            let sender = socket(from, from.addresses()[family], 0);
            let is_mine = |to: &UdpSocket| {
                to.recv_from(&mut [0; 8]).map(|(_, who)| who == sender.local_addr().expect("bound"))
            };
            for to in [&self.sometimes[family], &self.fence[family]] {
                sender.send_to(b"x", to.local_addr().expect("bound")).expect("a route");
            }
            assert!(is_mine(&self.fence[family]).expect("what is always allowed arrives"));
            is_mine(&self.sometimes[family]).unwrap_or(false)
        })
    }
}

/// A server that lets some of the client's traffic in; the client gets nothing but answers.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) server: Pod,
    pub(crate) client: Pod,
}

/// Who sends: what always passes, what never does, and long connections; of both families.
pub(crate) const SENDERS: [&str; 6] =
    ["allowed", "allowed", "denied", "denied", "on connections", "on connections"];

impl Scene {
    pub(crate) fn new(place: &mut Place) -> Self {
        let (server, client) = (place.net.pod().expect("a pod"), place.net.pod().expect("a pod"));
        let mut world = World::new(place);
        world.pod("server", &server);
        world.pod("client", &client);
        world.policy("p", "server", Direction::Ingress, rules(0));
        world.policy("answers", "client", Direction::Ingress, vec![]);
        world.converge();
        Self { world, server, client }
    }

    /// Starts all senders.
    pub(crate) fn start<'s>(
        scope: &'s Scope<'s, '_>,
        (server, client): (&'s Pod, &'s Pod),
        stop: &'s AtomicBool,
        tallies: &'s [Tally; 6],
    ) {
        for (family, address) in server.addresses().into_iter().enumerate() {
            let listener = server.namespace.run(|| TcpListener::bind((address, LONG)).expect("a free port"));
            let connections = (0..HELD).map(|_| flood::open(client, &listener).expect("allowed")).collect();
            scope.spawn(move || {
                let _stop = Stop(stop);
                always(client, server, family, stop, &tallies[family]);
            });
            scope.spawn(move || {
                let _stop = Stop(stop);
                never(client, server, family, stop, &tallies[2 + family]);
            });
            scope.spawn(move || held(connections, stop, &tallies[4 + family]));
        }
    }
}

/// The `n`th change: of the server's rules, of pods elsewhere, and sometimes of a policy of the client.
fn change(world: &mut World, n: u64) {
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
}

#[test]
fn no_packet_sees_a_third_verdict() {
    place("traffic", |place| {
        let Scene { mut world, server, client } = Scene::new(place);
        let (stop, tallies) = (AtomicBool::new(false), <[Tally; 6]>::default());
        std::thread::scope(|scope| {
            let _stop = Stop(&stop);
            Scene::start(scope, (&server, &client), &stop, &tallies);
            let probe = Probe::new(&server);
            let mut flips = 0;
            for n in 1..=PLANS {
                assert!(!stop.load(Relaxed), "the traffic goes on");
                change(&mut world, n);
                flips += u64::from(!world.converge().is_empty());
                let expected = n.is_multiple_of(2);
                assert_eq!(probe.passes(&client), [expected; 2], "plan {n} holds when it has been run");
            }
            assert_eq!(flips, PLANS, "each plan wrote something");
        });
        world.assert_no_drift();
        println!("{PLANS} plans: {:?}", SENDERS.iter().zip(&tallies).collect::<Vec<_>>());
        for (what, tally) in SENDERS.iter().zip(&tallies) {
            let sent = tally.sent.load(Relaxed);
            assert_eq!(tally.wrong.load(Relaxed), 0, "a third verdict on what is {what}");
            assert!(sent > PLANS, "{sent} {what} are too few for {PLANS} plans");
        }
    });
}

/// The test above can fail: every sender sees a state that is neither the one before nor the one behind.
#[test]
fn a_planted_third_verdict_is_seen() {
    place("third", |place| {
        let Scene { mut world, server, client } = Scene::new(place);
        let (stop, tallies) = (AtomicBool::new(false), <[Tally; 6]>::default());
        let wrong = || tallies.each_ref().map(|tally| tally.wrong.load(Relaxed));
        std::thread::scope(|scope| {
            let _stop = Stop(&stop);
            Scene::start(scope, (&server, &client), &stop, &tallies);
            until("on its way", || tallies.iter().all(|tally| tally.sent.load(Relaxed) > WINDOW));
            assert_eq!(wrong(), [0; 6]);
            let third = vec![allow(vec![pods("client")], &[(Protocol::UDP, NEVER)])];
            world.policy("p", "server", Direction::Ingress, third);
            world.converge();
            // What was lost is waited for as long as in the test above.
            let deadline = Instant::now() + 6 * SOON;
            while wrong().contains(&0) {
                assert!(Instant::now() < deadline, "somebody sees nothing: {:?}", wrong());
                std::thread::yield_now();
            }
        });
        println!("a planted third verdict: {:?}", SENDERS.iter().zip(&tallies).collect::<Vec<_>>());
    });
}

/// Stops the traffic when a thread ends, also when it fails.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
