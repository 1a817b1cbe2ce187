//! Rows B3 and B4 of docs/robustness.md: one pod floods or is flooded, and others do not notice; a client that is fast comes
//! back to its ports. `CELLWALL_FLOOD_ROUNDS` and `CELLWALL_CONNECTIONS` make it longer.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cellwall_abi::{Direction, Reason};
use cellwall_policy::flow::Protocol;
use cellwall_testkit::frame::packet;
use cellwall_testkit::net::{PacketSocket, Pod};

use crate::place::{Place, place};
use crate::world::{World, allow, block, pods};

const PORT: u16 = 8080;
/// Established connections of others.
const HELD: usize = 200;
/// Longer than any retransmission on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// After this a connection that was lost is given up; that it was, the counter of drops says.
const SHORT: Duration = Duration::from_millis(300);
/// Rows of tables that are too small: a pod may add sixteen times as many in one tick.
const SMALL: u32 = 256;

pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// A connection, and its end at the server.
pub(crate) struct Held(TcpStream, TcpStream);

impl Held {
    pub(crate) fn exchange(&mut self) -> io::Result<()> {
        let Self(client, server) = self;
        let mut bytes = [0; 4];
        client.write_all(b"ping")?;
        server.read_exact(&mut bytes)?;
        server.write_all(b"pong")?;
        client.read_exact(&mut bytes)
    }

    /// Both ends, for whoever has to end them while they are used.
    pub(crate) fn ends(&self) -> [TcpStream; 2] {
        [&self.0, &self.1].map(|stream| stream.try_clone().expect("a descriptor"))
    }

    /// What the server says by itself; it arrives.
    pub(crate) fn answer(&mut self) -> io::Result<()> {
        self.1.write_all(b"pong")?;
        self.0.read_exact(&mut [0; 4])
    }

    /// Waits no longer than this for what the other side says.
    fn wait(&self, at_most: Duration) {
        for stream in [&self.0, &self.1] {
            stream.set_read_timeout(Some(at_most)).expect("a socket");
        }
    }
}

pub(crate) fn open(from: &Pod, listener: &TcpListener) -> io::Result<Held> {
    let to = listener.local_addr()?;
    let client = from.namespace.run(|| TcpStream::connect_timeout(&to, PATIENCE))?;
    let (server, _) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    Ok(Held(client, server))
}

fn listen(pod: &Pod) -> [TcpListener; 2] {
    pod.addresses()
        .map(|address| pod.namespace.run(|| TcpListener::bind((address, PORT)).expect("a free port")))
}

/// All pods are isolated in both directions: whoever is answered, is answered by an entry.
struct Scene {
    world: World,
    server: Pod,
    client: Pod,
    ends: Ends,
}

/// Who floods or is flooded.
struct Ends {
    /// May say anything to the world, and be asked anything by it.
    open: Pod,
    /// Is asked by nobody.
    closed: Pod,
    outside: Pod,
}

fn scene(place: &mut Place) -> Scene {
    let [server, client, open, closed] = [(); 4].map(|()| place.net.pod().expect("a pod"));
    let outside = place.net.outside().expect("a host");
    let mut world = World::new(place);
    for (name, pod) in [("server", &server), ("client", &client), ("open", &open), ("closed", &closed)] {
        world.pod(name, pod);
    }
    let tcp = [(Protocol::TCP, PORT)];
    world.policy("s", "server", Direction::Ingress, vec![allow(vec![pods("client")], &tcp)]);
    world.policy("s-out", "server", Direction::Egress, vec![]);
    world.policy("c", "client", Direction::Egress, vec![allow(vec![pods("server")], &tcp)]);
    world.policy("c-in", "client", Direction::Ingress, vec![]);
    let anywhere =
        || vec![allow(["192.0.2.0/24", "198.18.0.0/15", "2001:db8::/32"].map(block).to_vec(), &[])];
    for direction in Direction::ALL {
        world.policy(direction.name(), "open", direction, anywhere());
        world.policy(&format!("{}-closed", direction.name()), "closed", direction, vec![]);
    }
    world.converge();
    // Where nobody answers and nobody is answered. Who says that he is there comes in all the same.
    for (namespace, interface) in [(&place.net.host, outside.interface.as_str()), (&open.namespace, "eth0")] {
        let routes = ["198.18.0.0/15", "2001:db8:ffff::/48"].map(|to| format!("route add blackhole {to}"));
        namespace.ip(&routes.each_ref().map(String::as_str)).expect("routes");
        for at in ["all", interface] {
            namespace.sysctl(&format!("ipv4/conf/{at}/rp_filter"), "0").expect("a setting");
        }
    }
    Scene { world, server, client, ends: Ends { open, closed, outside } }
}

/// Where nobody is, in the family of this number.
fn nowhere(family: usize, number: u32) -> IpAddr {
    if family == 0 {
        return Ipv4Addr::from(0xc612_0000 + number % 0x1_ffff).into();
    }
    let prefix = u128::from(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0));
    Ipv6Addr::from(prefix + u128::from(number)).into()
}

/// What `sender` puts on its wire, in whoever's name.
fn from_wire(sender: &Pod, ends: (IpAddr, IpAddr), protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = packet(Direction::Egress, ends, protocol, payload);
    frame[..12].copy_from_slice(&[sender.host_mac, sender.mac].concat());
    frame
}

/// The frame of one flood packet: a SYN, a datagram, an echo request, each with numbers of its own.
fn frame(sender: &Pod, number: u32, ends: (IpAddr, IpAddr)) -> Vec<u8> {
    let [_, a, b, c] = number.to_be_bytes();
    let mut payload = [a | 0x40, b, c, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xfa, 0, 0, 0, 0, 0];
    let (icmp, request) = if ends.1.is_ipv4() { (1, 8) } else { (58, 128) };
    let protocol = [6, 17, icmp][number as usize % 3];
    match protocol {
        17 => payload[4..8].copy_from_slice(&[0, 20, 0, 0]),
        1 | 58 => payload[..8].copy_from_slice(&[request, 0, 0, 0, b, c, 0, 1]),
        _ => {}
    }
    from_wire(sender, ends, protocol, &payload)
}

/// Who floods whom: a pod the world, or the world two pods, one of which does not let it in.
struct Flood<'a> {
    direction: Direction,
    ends: &'a Ends,
    stop: AtomicBool,
    sent: AtomicU64,
}

impl<'a> Flood<'a> {
    const fn new(direction: Direction, ends: &'a Ends) -> Self {
        Self { direction, ends, stop: AtomicBool::new(false), sent: AtomicU64::new(0) }
    }

    /// Packets so far.
    fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Floods both families until told to stop: nobody answers most of it, and somebody answers one datagram for every two
    /// packets of it, so that its connection counts as answered.
    fn run(&self) {
        let Ends { open, closed, outside } = self.ends;
        let is_inward = self.direction == Direction::Ingress;
        let (asks, answers) = if is_inward { (outside, open) } else { (open, outside) };
        let [from, back] =
            [asks, answers].map(|pod| PacketSocket::open(&pod.namespace, "eth0").expect("a packet socket"));
        let mut number = 0;
        while !self.stop.load(Relaxed) {
            for _ in 0..32 {
                number += 1;
                for family in 0..2 {
                    let nobody = nowhere(family, number);
                    if is_inward {
                        for pod in [open, closed] {
                            let _ = from.send(&frame(asks, number, (nobody, pod.addresses()[family])));
                        }
                    } else {
                        let _ = from.send(&frame(asks, number, (open.addresses()[family], nobody)));
                    }
                    if number % 2 == 1 {
                        answered([asks, answers], family, number, (&from, &back));
                    }
                }
                self.sent.fetch_add(1, Relaxed);
            }
            // One CPU for everybody else, also where there is but one.
            std::thread::yield_now();
        }
    }
}

/// A datagram, its answer, and another datagram.
fn answered(ends: [&Pod; 2], family: usize, number: u32, (from, back): (&PacketSocket, &PacketSocket)) {
    let [asks, answers] = ends;
    let [_, a, b, c] = number.to_be_bytes();
    let ports = [[a | 0x80, b], [c, 53]];
    let datagram = |sender: &Pod, ends: (IpAddr, IpAddr), [from, to]: [[u8; 2]; 2]| {
        from_wire(sender, ends, 17, &[from, to, [0, 8], [0, 0]].concat())
    };
    let [own, theirs] = ends.map(|pod| pod.addresses()[family]);
    let ask = datagram(asks, (own, theirs), ports);
    let reply = datagram(answers, (theirs, own), [ports[1], ports[0]]);
    let _ = from.send(&ask);
    let _ = back.send(&reply);
    let _ = from.send(&ask);
}

/// How full the tables of connections are, in percent.
fn fill(world: &mut World) -> Vec<(&'static str, u64)> {
    // They are counted when they are swept.
    world.datapath.sweep().expect("tables");
    let usage = world.datapath.usage().expect("tables").into_iter();
    let tables = usage.filter(|usage| usage.table.starts_with("FLOWS") || usage.table.starts_with("PENDING"));
    tables.map(|usage| (usage.table, 100 * usage.used / usage.capacity)).collect()
}

/// How full one pod can make a table, in percent. Of FLOWS it gets half of what others leave (`cellwall_abi::Share`); there is
/// more in it only on a machine that is so fast that connections of others which have ended are not swept yet.
fn filled(table: &str) -> u64 {
    if table.starts_with("FLOWS") { 50 } else { 75 }
}

#[test]
fn a_flood_takes_nothing_from_others() {
    takes_nothing(Direction::Egress);
}

#[test]
fn a_flood_from_outside_takes_nothing_from_other_pods() {
    takes_nothing(Direction::Ingress);
}

fn takes_nothing(direction: Direction) {
    place("flood", |place| {
        let tables = u64::from(place.settings.flows + place.settings.pending);
        let rounds = number("CELLWALL_FLOOD_ROUNDS", 1);
        let Scene { mut world, server, client, ends } = scene(place);
        let listeners = listen(&server);
        let mut held: Vec<Held> =
            (0..HELD).map(|n| open(&client, &listeners[n % 2]).expect("allowed")).collect();
        let flood = Flood::new(direction, &ends);
        // Of each family, whose tables are its own.
        let (mut opened, mut failed, mut broken) = (0_u64, [0_u64; 2], [0_u64; 2]);
        let mut full = fill(&mut world);
        let start = Instant::now();
        std::thread::scope(|scope| {
            let _stop = StopAtEnd(&flood.stop);
            scope.spawn(|| flood.run());
            let is_full = |full: &[(&str, u64)]| {
                full.len() == 4 && full.iter().all(|(table, percent)| *percent >= filled(table))
            };
            // Every connection is used before, while and after the tables are full.
            while flood.sent() < 3 * tables * rounds || opened < 250 * rounds || !is_full(&full) {
                assert!(start.elapsed() < 6 * PATIENCE || flood.sent() < 30 * tables, "no flood: {full:?}");
                for (family, listener) in listeners.iter().enumerate() {
                    let fresh = open(&client, listener).and_then(|mut held| held.exchange());
                    failed[family] += u64::from(fresh.is_err());
                    // Those of even numbers are of IPv4.
                    let nth = (2 * usize::try_from(opened).expect("small") + family) % held.len();
                    broken[family] += u64::from(held[nth].exchange().is_err());
                }
                opened += 1;
                if opened % 25 == 0 {
                    full = fill(&mut world);
                }
            }
        });
        for (nth, held) in held.iter_mut().enumerate() {
            broken[nth % 2] += u64::from(held.exchange().is_err());
        }
        for family in 0..2 {
            println!(
                "{direction:?}, IPv{}: {} packets of a flood on tables of {tables}: {} of {} held connections broken, {} of {opened} new ones failed",
                4 + 2 * family,
                flood.sent(),
                broken[family],
                HELD / 2,
                failed[family],
            );
        }
        println!("after {:.1} s they are full to {full:?} percent", start.elapsed().as_secs_f64());
        assert_eq!(broken, [0; 2]);
        assert!(failed.iter().all(|failed| failed * 1000 <= opened), "{failed:?} of {opened}");
        let denied = world.count(Reason::DefaultDeny, Direction::Ingress);
        // Of what comes in, the pod that lets nobody in gets as much as the other.
        let expected = if direction == Direction::Ingress { tables } else { 0 };
        assert!(denied >= expected, "{denied} of {expected}");
    });
}

/// The tests above can fail: where a pod may add more rows in a tick than the tables have, it takes those of others, and
/// their connections break.
#[test]
fn tables_that_are_too_small_lose_connections() {
    lose_connections(Direction::Egress);
}

#[test]
fn tables_that_are_too_small_lose_connections_to_a_flood_from_outside() {
    lose_connections(Direction::Ingress);
}

fn lose_connections(direction: Direction) {
    place("small", |place| {
        (place.settings.flows, place.settings.pending) = (SMALL, SMALL);
        let scene = scene(place);
        let listeners = listen(&scene.server);
        let flood = Flood::new(direction, &scene.ends);
        std::thread::scope(|scope| {
            let _stop = StopAtEnd(&flood.stop);
            scope.spawn(|| flood.run());
            for listener in &listeners {
                let deadline = Instant::now() + PATIENCE;
                loop {
                    // One that could not even be opened was lost, too.
                    let Ok(mut held) = open(&scene.client, listener) else { break };
                    let goal = flood.sent() + 4 * u64::from(SMALL);
                    while flood.sent() < goal {
                        std::thread::yield_now();
                    }
                    held.wait(SHORT);
                    if held.exchange().is_err() {
                        break;
                    }
                    assert!(Instant::now() < deadline, "nothing is lost");
                }
            }
        });
    });
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// A few ports, used again and again while the server's side of the last connection is still in TIME_WAIT, or the
/// client's was reset.
#[test]
fn a_port_is_used_again_at_once() {
    place("reuse", |place| {
        let scene = scene(place);
        scene.client.namespace.sysctl("ipv4/ip_local_port_range", "40000 40015").expect("a range");
        // The client's own kernel lets it.
        scene.client.namespace.sysctl("ipv4/tcp_tw_reuse", "1").expect("a setting");
        let count = number("CELLWALL_CONNECTIONS", 600);
        for (family, listener) in listen(&scene.server).into_iter().enumerate() {
            let before = scene.world.drops();
            for n in 0..count {
                let Held(client, server) = open(&scene.client, &listener).expect("allowed, every time");
                assert!(matches!(client.local_addr().map(|a| a.port()), Ok(40_000..=40_015)));
                // Who closes first keeps the connection in TIME_WAIT.
                if n % 2 == 0 {
                    drop(server);
                    let _ = (&client).read(&mut [0]);
                } else {
                    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).expect("a socket");
                }
            }
            let dropped = scene.world.drops() - before;
            println!("IPv{}: {count} connections from 16 ports, {dropped} packets dropped", 4 + 2 * family);
            assert_eq!(dropped, 0, "{:?}", scene.world.datapath.counters());
        }
    });
}
