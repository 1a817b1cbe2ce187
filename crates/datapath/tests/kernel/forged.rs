//! Rows B1 and B5 of docs/robustness.md on the wire: what looks like a part of another's connection, and what a pod says
//! in the name of another.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData};
use cellwall_abi::{CONN_CLOSING, CONN_ESTABLISHED, Conn, Direction, FlowKey4, FlowKey6, Reason};
use cellwall_policy::flow::Protocol;
use cellwall_testkit::frame::packet;
use cellwall_testkit::net::{PacketSocket, Pod};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::place::{Place, place};
use crate::sockets::{bind, is_silent, until};
use crate::world::{World, allow, pods};

const SOON: Duration = Duration::from_secs(10);
const PORT: u16 = 8080;
const SYN: u8 = 2;
const ACK: u8 = 16;
/// Longer ago than anything is remembered that is not refreshed.
const LONG_AGO: u32 = 1000;

/// A TCP segment that `sender` puts on its wire, in whoever's name.
fn segment(sender: &Pod, ends: (IpAddr, IpAddr), ports: (u16, u16), flags: u8) -> Vec<u8> {
    let mut payload = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    payload.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xfa, 0, 0, 0, 0, 0]);
    from_wire(sender, ends, 6, &payload)
}

fn datagram(sender: &Pod, ends: (IpAddr, IpAddr), ports: (u16, u16)) -> Vec<u8> {
    let payload = [ports.0.to_be_bytes(), ports.1.to_be_bytes(), [0, 8], [0, 0]].concat();
    from_wire(sender, ends, 17, &payload)
}

fn from_wire(sender: &Pod, ends: (IpAddr, IpAddr), protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = packet(Direction::Egress, ends, protocol, payload);
    frame[..12].copy_from_slice(&[sender.host_mac, sender.mac].concat());
    frame
}

/// True when a segment with these ports and flags has arrived.
fn arrived(tap: &PacketSocket, family: usize, ports: (u16, u16), flags: u8) -> bool {
    let at = [34, 54][family];
    let wanted = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    let mut buffer = [0; 2048];
    while let Some(frame) = tap.receive(&mut buffer) {
        if frame.get(at..at + 4) == Some(&wanted[..]) && frame.get(at + 13) == Some(&flags) {
            return true;
        }
    }
    false
}

/// Every connection of a family, rewritten by `change`; what they were before.
fn connections(place: &Place, family: usize, change: impl Fn(&mut Conn)) -> Vec<Conn> {
    fn of<const KEY: usize>(place: &Place, name: &str, change: impl Fn(&mut Conn)) -> Vec<Conn> {
        let data = MapData::from_pin(place.pins("maps").join(name)).expect("a pin");
        let map = Map::from_map_data(data).expect("a table");
        let mut table: HashMap<_, [u8; KEY], [u8; size_of::<Conn>()]> = map.try_into().expect("a hash");
        let rows: Vec<_> = table.iter().map(|row| row.expect("a row")).collect();
        let mut before = Vec::new();
        for (key, bytes) in rows {
            let mut conn = Conn::read_from_bytes(&bytes).expect("its size");
            before.push(conn);
            change(&mut conn);
            let bytes: [u8; _] = conn.as_bytes().try_into().expect("its size");
            table.insert(key, bytes, 0).expect("it was there");
        }
        before
    }
    if family == 0 {
        let mut all = of::<{ size_of::<FlowKey4>() }>(place, "FLOWS4", &change);
        all.extend(of::<{ size_of::<FlowKey4>() }>(place, "PENDING4", &change));
        all
    } else {
        let mut all = of::<{ size_of::<FlowKey6>() }>(place, "FLOWS6", &change);
        all.extend(of::<{ size_of::<FlowKey6>() }>(place, "PENDING6", &change));
        all
    }
}

/// A client that may ask a server, and is asked by nobody.
struct Scene {
    world: World,
    server: Pod,
    client: Pod,
}

fn scene(place: &mut Place) -> Scene {
    let (server, client) = (place.net.pod().expect("a pod"), place.net.pod().expect("a pod"));
    let mut world = World::new(place);
    world.pod("server", &server);
    world.pod("client", &client);
    let scene = Scene { world, server, client };
    // The node itself must not be what keeps them apart.
    for at in ["all", scene.server.interface.as_str(), scene.client.interface.as_str()] {
        place.net.host.sysctl(&format!("ipv4/conf/{at}/rp_filter"), "0").expect("a setting");
    }
    scene
}

impl Scene {
    fn only_the_client_asks(&mut self) {
        self.world.policy("in", "client", Direction::Ingress, Vec::new());
        let rules = vec![allow(vec![pods("server")], &[(Protocol::TCP, PORT), (Protocol::UDP, PORT)])];
        self.world.policy("out", "client", Direction::Egress, rules);
        self.world.converge();
    }

    /// Sends a frame, and waits until one more packet is dropped at the client's ingress.
    fn denied(&self, what: &str, tap: &PacketSocket, frame: &[u8]) {
        let count = || self.world.count(Reason::DefaultDeny, Direction::Ingress);
        let before = count();
        tap.send(frame).expect("room in the queue");
        until(what, || count() > before);
    }
}

fn exchange(asking: &mut TcpStream, answering: &mut TcpStream) {
    asking.write_all(b"x").expect("open");
    answering.read_exact(&mut [0]).expect("what was said");
    answering.write_all(b"y").expect("open");
    asking.read_exact(&mut [0]).expect("an answer");
}

/// The server sends a SYN from the very port that the client speaks to, to the one that it speaks from.
#[test]
fn a_syn_on_the_reversed_tuple_is_judged() {
    place("reversed", |place| {
        let mut scene = scene(place);
        for family in 0..2 {
            scene.only_the_client_asks();
            let (server, client) = (scene.server.addresses()[family], scene.client.addresses()[family]);
            let at_server = PacketSocket::open(&scene.server.namespace, "eth0").expect("a packet socket");
            let at_client = PacketSocket::open(&scene.client.namespace, "eth0").expect("a packet socket");
            let listener =
                scene.server.namespace.run(|| TcpListener::bind((server, PORT)).expect("a free port"));
            let mut asking = scene
                .client
                .namespace
                .run(|| TcpStream::connect_timeout(&(server, PORT).into(), SOON))
                .expect("allowed");
            let (mut answering, from) = listener.accept().expect("a connection");
            exchange(&mut asking, &mut answering);
            let ports = (PORT, from.port());
            let syn = segment(&scene.server, (server, client), ports, SYN);
            let is_closing = |conn: &Conn| conn.state & CONN_CLOSING != 0;
            let rows = connections(place, family, |_| ());
            assert!(rows.iter().any(|c| c.state & CONN_ESTABLISHED != 0 && !is_closing(c)), "{rows:?}");
            scene.denied("denied while it lives", &at_server, &syn);
            exchange(&mut asking, &mut answering);
            drop(asking);
            drop(answering);
            // The SYN has left a row of its own where it left the server, which nothing isolates.
            let is_established = |conn: &&Conn| conn.state & CONN_ESTABLISHED != 0;
            let is_over = || connections(place, family, |_| ()).iter().filter(is_established).all(is_closing);
            until("closed", is_over);
            scene.denied("denied when it is closed", &at_server, &syn);
            connections(place, family, |conn| conn.seen = conn.seen.wrapping_sub(LONG_AGO));
            scene.denied("denied when it is long over", &at_server, &syn);
            let late = segment(&scene.server, (server, client), ports, ACK);
            scene.denied("and so is what would be the connection's own", &at_server, &late);
            assert!(!arrived(&at_client, family, ports, SYN), "none of them arrives");
            // Where policy allows what was sent, the same frame arrives.
            let rules = vec![allow(vec![pods("server")], &[(Protocol::TCP, from.port())])];
            scene.world.policy("in", "client", Direction::Ingress, rules);
            scene.world.converge();
            at_server.send(&syn).expect("room in the queue");
            until("there", || arrived(&at_client, family, ports, SYN));
        }
    });
}

/// The server says in the client's name that the client asks it something, and answers that.
#[test]
fn what_one_pod_forges_opens_nothing_for_another() {
    place("forged", |place| {
        let mut scene = scene(place);
        scene.only_the_client_asks();
        for family in 0..2 {
            let (server, client) = (scene.server.addresses()[family], scene.client.addresses()[family]);
            let at_server = PacketSocket::open(&scene.server.namespace, "eth0").expect("a packet socket");
            let at_client = PacketSocket::open(&scene.client.namespace, "eth0").expect("a packet socket");
            let (asking, answering) =
                (bind(&scene.client, client, 40_000), bind(&scene.server, server, PORT));
            let spoofed = || scene.world.count(Reason::Spoofed, Direction::Egress);
            let asked = [
                datagram(&scene.server, (client, server), (40_000, PORT)),
                segment(&scene.server, (client, server), (40_000, PORT), SYN),
                segment(&scene.server, (client, server), (40_000, PORT), ACK),
            ];
            for frame in asked {
                // With its own Ethernet address, and with the client's.
                let mut as_client = frame.clone();
                as_client[6..12].copy_from_slice(&scene.client.mac);
                for frame in [frame, as_client] {
                    let before = spoofed();
                    at_server.send(&frame).expect("room in the queue");
                    until("dropped as forged", || spoofed() > before);
                }
            }
            assert_eq!(connections(place, family, |_| ()), Vec::new(), "nothing of it is remembered");
            let before = scene.world.count(Reason::DefaultDeny, Direction::Ingress);
            answering.send_to(b"answer", (client, 40_000)).expect("a route");
            until("denied", || scene.world.count(Reason::DefaultDeny, Direction::Ingress) > before);
            for flags in [SYN | ACK, ACK, SYN] {
                let frame = segment(&scene.server, (server, client), (PORT, 40_000), flags);
                scene.denied("what answers it is denied", &at_server, &frame);
                assert!(!arrived(&at_client, family, (PORT, 40_000), flags));
            }
            assert!(is_silent(&asking));
            // The same from the client itself opens the way back.
            asking.send_to(b"ask", (server, PORT)).expect("a route");
            assert_eq!(answering.recv_from(&mut [0; 8]).expect("allowed").1.ip(), client);
            answering.send_to(b"answer", (client, 40_000)).expect("a route");
            assert_eq!(asking.recv(&mut [0; 8]).expect("an answer to what it asked"), 6);
            let syn = segment(&scene.client, (client, server), (40_000, PORT), SYN);
            at_client.send(&syn).expect("room in the queue");
            until("opened", || connections(place, family, |_| ()).len() >= 2);
            let answer = segment(&scene.server, (server, client), (PORT, 40_000), SYN | ACK);
            at_server.send(&answer).expect("room in the queue");
            until("answered", || arrived(&at_client, family, (PORT, 40_000), SYN | ACK));
        }
    });
}
