//! Connections from before the programs, taken over from nf_conntrack. The pods are isolated in both directions, and
//! their interfaces are new to the model, so that nothing but what was taken over lets an answer through.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use cellwall_abi::{Direction, Reason};
use cellwall_policy::flow::Protocol;
use cellwall_testkit::net::{Net, Pod};

use crate::place::{Place, place};
use crate::sockets::until;
use crate::world::{World, allow, pods};

const SOON: Duration = Duration::from_secs(10);
pub(crate) const PORT: u16 = 8080;
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// Makes the node track connections, and translate those to [`SERVICE`] as kube-proxy does: to the pod's port, and as
/// if they came from the node. False, and said so, where `nft` is not there.
pub(crate) fn tracking(net: &Net, service: Option<Ipv4Addr>) -> bool {
    let track = "add table inet cellwall-track
        add chain inet cellwall-track forward { type filter hook forward priority 0; }
        add rule inet cellwall-track forward ct state new accept";
    let nat = service.map_or_else(String::new, |to| {
        format!(
            "add table ip cellwall-nat
            add chain ip cellwall-nat services {{ type nat hook prerouting priority -100; }}
            add rule ip cellwall-nat services ip daddr {SERVICE} tcp dport 80 dnat to {to}:{PORT}
            add chain ip cellwall-nat sources {{ type nat hook postrouting priority 100; }}
            add rule ip cellwall-nat sources ct status dnat masquerade"
        )
    });
    let rules = format!("{track}\n{nat}");
    let output = net.host.run(|| Command::new("nft").arg(rules).output());
    match output {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            true
        }
        Err(error) => {
            println!("skipped: no nft: {error}");
            false
        }
    }
}

/// A conversation between two pods that was answered.
pub(crate) enum Talk {
    Udp(UdpSocket, UdpSocket),
    Tcp(TcpStream, TcpStream),
}

impl Talk {
    fn udp(from: &Pod, to: &Pod, family: usize) -> Self {
        let bind = |pod: &Pod, port| {
            let address = pod.addresses()[family];
            let socket = pod.namespace.run(|| UdpSocket::bind((address, port)).expect("a port"));
            socket.set_read_timeout(Some(SOON)).expect("a socket");
            socket
        };
        let (from, to) = (bind(from, 0), bind(to, PORT));
        from.connect(to.local_addr().expect("bound")).expect("a route");
        to.connect(from.local_addr().expect("bound")).expect("a route");
        Self::Udp(from, to).answered()
    }

    pub(crate) fn tcp(from: &Pod, to: &Pod, address: IpAddr, at: SocketAddr) -> Self {
        let listener = to.namespace.run(|| TcpListener::bind((address, PORT)).expect("a port"));
        let client = from.namespace.run(|| TcpStream::connect_timeout(&at, SOON).expect("a route"));
        let (server, _) = listener.accept().expect("a connection");
        client.set_read_timeout(Some(SOON)).expect("a socket");
        server.set_read_timeout(Some(SOON)).expect("a socket");
        Self::Tcp(client, server).answered()
    }

    fn answered(mut self) -> Self {
        self.ask();
        self.answer();
        self
    }

    /// From the opener; it arrives.
    pub(crate) fn ask(&mut self) {
        match self {
            Self::Udp(from, to) => {
                from.send(b"x").expect("a route");
                to.recv(&mut [0]).expect("it passes");
            }
            Self::Tcp(from, to) => {
                from.write_all(b"x").expect("open");
                to.read_exact(&mut [0]).expect("it passes");
            }
        }
    }

    /// To the opener; it arrives.
    pub(crate) fn answer(&mut self) {
        match self {
            Self::Udp(from, to) => {
                to.send(b"y").expect("a route");
                from.recv(&mut [0]).expect("it passes");
            }
            Self::Tcp(from, to) => {
                to.write_all(b"y").expect("open");
                from.read_exact(&mut [0]).expect("it passes");
            }
        }
    }

    /// Either side sends, and nothing arrives at the other.
    pub(crate) fn assert_cut(&mut self, world: &World) {
        let before = world.drops();
        match self {
            Self::Udp(from, to) => {
                to.send(b"y").expect("a route");
                until("dropped", || world.drops() > before);
                from.send(b"x").expect("a route");
                until("dropped, too", || world.drops() > before + 1);
                for socket in [from, to] {
                    socket.set_nonblocking(true).expect("a socket");
                    let nothing = socket.recv(&mut [0]).expect_err("nothing arrives");
                    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
                }
            }
            Self::Tcp(from, to) => {
                to.write_all(b"y").expect("room in the buffer");
                until("dropped", || world.drops() > before);
                from.set_nonblocking(true).expect("a socket");
                let nothing = from.read(&mut [0]).expect_err("nothing arrives");
                assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
            }
        }
    }
}

/// Allows the friend this port of the server, and nobody anything else.
fn isolate(world: &mut World, protocol: Protocol) {
    let rules = vec![allow(vec![pods("friend")], &[(protocol, PORT)])];
    world.policy("in", "server", Direction::Ingress, rules);
    world.policy("out", "server", Direction::Egress, Vec::new());
}

pub(crate) fn addresses(pod: &Pod) -> BTreeMap<IpAddr, u32> {
    pod.addresses().map(|address| (address, pod.ifindex)).into()
}

/// Takes over a server's conversations, over both families, and enforces: `allowed` go on, `denied` are cut.
fn enforce(mut world: World, server: &Pod, mut allowed: [Talk; 2], mut denied: [Talk; 2]) {
    let taken = world.datapath.import(&addresses(server)).expect("nf_conntrack answers");
    assert_eq!(taken, 4);
    assert_eq!(world.datapath.import(&addresses(server)).expect("again"), 0, "each once");
    world.converge();
    for talk in &mut allowed {
        talk.answer();
        talk.ask();
        talk.answer();
    }
    for talk in &mut denied {
        talk.assert_cut(&world);
    }
    let revoked = Direction::ALL.map(|direction| world.count(Reason::Revoked, direction));
    assert_eq!(revoked.iter().sum::<u64>(), 2, "nf_conntrack's word is no permission: {revoked:?}");
    world.assert_no_drift();
}

pub(crate) fn server_world(place: &mut Place, protocol: Protocol) -> (World, [Pod; 3]) {
    let all = [(); 3].map(|()| place.net.pod().expect("a pod"));
    (world_of(place, protocol, &all), all)
}

/// A data path that is told of a server, its friend and a stranger.
pub(crate) fn world_of(place: &Place, protocol: Protocol, all: &[Pod; 3]) -> World {
    let mut world = World::new(place);
    for (name, pod) in ["server", "friend", "stranger"].iter().zip(all) {
        world.pod(name, pod);
    }
    isolate(&mut world, protocol);
    world
}

#[test]
fn running_udp_is_taken_over_and_judged() {
    place("ctudp", |place| {
        if !tracking(&place.net, None) {
            return;
        }
        let (world, [server, friend, stranger]) = server_world(place, Protocol::UDP);
        let allowed = [0, 1].map(|family| Talk::udp(&friend, &server, family));
        let denied = [0, 1].map(|family| Talk::udp(&server, &stranger, family));
        enforce(world, &server, allowed, denied);
    });
}

#[test]
fn running_tcp_is_taken_over_and_judged() {
    place("cttcp", |place| {
        if !tracking(&place.net, None) {
            return;
        }
        let (world, [server, friend, stranger]) = server_world(place, Protocol::TCP);
        let talk = |from: &Pod, at: IpAddr| Talk::tcp(from, &server, at, (at, PORT).into());
        let allowed = server.addresses().map(|at| talk(&friend, at));
        let denied = server.addresses().map(|at| talk(&stranger, at));
        enforce(world, &server, allowed, denied);
    });
}

#[test]
fn the_client_of_a_service_sees_the_service_and_the_backend_sees_the_node() {
    place("ctnat", |place| {
        let (server, client) = (place.net.pod().expect("a pod"), place.net.pod().expect("a pod"));
        if !tracking(&place.net, Some(server.v4)) {
            return;
        }
        let mut talk = Talk::tcp(&client, &server, server.v4.into(), (SERVICE, 80).into());
        let Talk::Tcp(_, served) = &talk else { unreachable!("it was made so") };
        assert_eq!(served.peer_addr().expect("open").ip(), IpAddr::from(cellwall_testkit::net::GATEWAY4));
        let mut world = World::new(place);
        world.pod("server", &server);
        world.pod("client", &client);
        // What either pod sees of it is allowed, and nothing the other way.
        let node = allow(vec![crate::world::block("10.244.0.1/32")], &[(Protocol::TCP, PORT)]);
        world.policy("in", "server", Direction::Ingress, vec![node]);
        world.policy("out", "server", Direction::Egress, Vec::new());
        let service = allow(vec![crate::world::block("10.96.0.0/16")], &[(Protocol::TCP, 80)]);
        // Nobody has told of the Service, so both are judged: the address that is asked, and the backend behind it.
        let backend = allow(vec![pods("server")], &[(Protocol::TCP, PORT)]);
        world.policy("from", "client", Direction::Egress, vec![service, backend]);
        world.policy("to", "client", Direction::Ingress, Vec::new());
        let both = addresses(&server).into_iter().chain(addresses(&client)).collect();
        assert_eq!(world.datapath.import(&both).expect("nf_conntrack answers"), 2, "one at each end");
        world.converge();
        talk.answer();
        talk.ask();
        talk.answer();
        assert_eq!(world.drops(), 0);
    });
}

#[test]
fn a_node_that_tracks_nothing_has_nothing_to_take_over() {
    place("ctnone", |place| {
        let (server, friend) = (place.net.pod().expect("a pod"), place.net.pod().expect("a pod"));
        let mut talk = Talk::udp(&friend, &server, 0);
        let mut world = World::new(place);
        world.pod("server", &server);
        world.pod("friend", &friend);
        isolate(&mut world, Protocol::UDP);
        assert_eq!(world.datapath.import(&addresses(&server)).expect("an empty list"), 0);
        world.converge();
        let Talk::Udp(_, to) = &talk else { unreachable!("it was made so") };
        to.send(b"y").expect("a route");
        until("dropped", || world.drops() == 1);
        talk.ask();
        talk.answer();
        assert_eq!(world.drops(), 1, "what the friend opens again goes on");
    });
}
