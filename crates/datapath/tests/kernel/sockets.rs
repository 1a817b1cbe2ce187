//! Real sockets through the programs: each protocol, each family, allowed and not.
//!
//! What is not allowed is waited for at the counter of drops: no test takes silence for a verdict.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use cellwall_abi::{Direction, Reason};
use cellwall_datapath::Attach;
use cellwall_policy::flow::Protocol;
use cellwall_testkit::net::Pod;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::place::{Place, place};
use crate::raw::{self, Raw};
use crate::world::{World, allow, block, pods};

const SOON: Duration = Duration::from_secs(10);
/// A denied connection is given up after this; that it was denied, the counter says.
const SHORT: Duration = Duration::from_millis(300);

/// Waits until `done`.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < deadline, "not {what} in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A server that is isolated, a client it allows some ports, and one it allows nothing.
struct Scene {
    world: World,
    server: Pod,
    friend: Pod,
    stranger: Pod,
}

const PORT: u16 = 8080;
const OTHER_PORT: u16 = 8081;

fn scene(place: &mut Place) -> Scene {
    let [server, friend, stranger] = [(); 3].map(|()| place.net.pod().expect("a pod"));
    let mut world = World::new(place);
    world.pod("server", &server);
    world.pod("friend", &friend);
    world.pod("stranger", &stranger);
    let ports = [(Protocol::TCP, PORT), (Protocol::UDP, PORT), (Protocol::SCTP, PORT)];
    world.policy("p", "server", Direction::Ingress, vec![allow(vec![pods("friend")], &ports)]);
    world.converge();
    world.assert_no_drift();
    Scene { world, server, friend, stranger }
}

impl Scene {
    /// Runs `attempt` and waits until one more packet has been dropped for `reason` at the server's ingress.
    fn dropped<T>(&self, reason: Reason, attempt: impl FnOnce() -> T) -> T {
        let before = self.world.count(reason, Direction::Ingress);
        let result = attempt();
        until("dropped", || self.world.count(reason, Direction::Ingress) > before);
        result
    }
}

fn connect(from: &Pod, to: SocketAddr, within: Duration) -> io::Result<TcpStream> {
    from.namespace.run(|| TcpStream::connect_timeout(&to, within))
}

#[test]
fn tcp() {
    place("tcp", |place| {
        let scene = scene(place);
        for address in scene.server.addresses() {
            let [open, closed] = [PORT, OTHER_PORT].map(|port| {
                scene.server.namespace.run(|| TcpListener::bind((address, port)).expect("a port"))
            });
            let (open, closed) =
                (open.local_addr().expect("bound"), (closed.local_addr().expect("bound"), closed));
            connect(&scene.friend, open, SOON).expect("allowed");
            let refused = scene.dropped(Reason::DefaultDeny, || connect(&scene.friend, closed.0, SHORT));
            assert_eq!(refused.expect_err("denied").kind(), ErrorKind::TimedOut);
            let refused = scene.dropped(Reason::DefaultDeny, || connect(&scene.stranger, open, SHORT));
            assert_eq!(refused.expect_err("denied").kind(), ErrorKind::TimedOut);
        }
        // What the server opens is answered, whoever answers.
        for address in scene.stranger.addresses() {
            let listener =
                scene.stranger.namespace.run(|| TcpListener::bind((address, PORT)).expect("a port"));
            connect(&scene.server, listener.local_addr().expect("bound"), SOON).expect("egress is open");
        }
    });
}

/// S63: what stays within the pod passes no hook.
#[test]
fn a_pod_that_is_denied_everything_reaches_itself() {
    place("itself", |place| {
        let mut scene = scene(place);
        scene.world.policy("out", "server", Direction::Egress, Vec::new());
        scene.world.converge();
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), std::net::Ipv6Addr::LOCALHOST.into()];
        let drops = scene.world.drops();
        for address in scene.server.addresses().into_iter().chain(loopback) {
            let listener = scene.server.namespace.run(|| TcpListener::bind((address, PORT)).expect("a port"));
            connect(&scene.server, listener.local_addr().expect("bound"), SOON).expect("its own");
        }
        assert_eq!(scene.world.drops(), drops);
        // From elsewhere the same port is closed, and elsewhere is closed to it.
        for address in scene.server.addresses() {
            let listener = scene.server.namespace.run(|| TcpListener::bind((address, PORT)).expect("a port"));
            let open = listener.local_addr().expect("bound");
            let refused = scene.dropped(Reason::DefaultDeny, || connect(&scene.stranger, open, SHORT));
            assert_eq!(refused.expect_err("denied").kind(), ErrorKind::TimedOut);
        }
        for address in scene.stranger.addresses() {
            connect(&scene.server, (address, PORT).into(), SHORT).expect_err("denied");
        }
        assert!(scene.world.count(Reason::DefaultDeny, Direction::Egress) > 0);
    });
}

pub(crate) fn bind(pod: &Pod, address: IpAddr, port: u16) -> UdpSocket {
    let socket = pod.namespace.run(|| UdpSocket::bind((address, port)).expect("a port"));
    socket.set_read_timeout(Some(SOON)).expect("a socket");
    socket
}

/// Address of `pod` of the family of `other`.
fn same_family(pod: &Pod, other: IpAddr) -> IpAddr {
    if other.is_ipv4() { pod.v4.into() } else { pod.v6.into() }
}

pub(crate) fn is_silent(socket: &UdpSocket) -> bool {
    socket.set_nonblocking(true).expect("a socket");
    let silent = socket.recv(&mut [0; 16]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    socket.set_nonblocking(false).expect("a socket");
    silent
}

#[test]
fn udp_and_fragments() {
    place("udp", |place| {
        let scene = scene(place);
        for address in scene.server.addresses() {
            let (open, closed) =
                (bind(&scene.server, address, PORT), bind(&scene.server, address, OTHER_PORT));
            let friend = bind(&scene.friend, same_family(&scene.friend, address), 0);
            let stranger = bind(&scene.stranger, same_family(&scene.stranger, address), 0);
            let to = |socket: &UdpSocket| socket.local_addr().expect("bound");

            friend.send_to(b"ask", to(&open)).expect("a route");
            let (length, from) = open.recv_from(&mut [0; 16]).expect("allowed");
            assert_eq!((length, from), (3, to(&friend)));
            open.send_to(b"answer", from).expect("a route");
            assert_eq!(friend.recv(&mut [0; 16]).expect("an answer to what it asked"), 6);
            scene.dropped(Reason::DefaultDeny, || friend.send_to(b"ask", to(&closed)).expect("a route"));
            scene.dropped(Reason::DefaultDeny, || stranger.send_to(b"ask", to(&open)).expect("a route"));
            assert!(is_silent(&closed) && is_silent(&open));

            // In six fragments, of which one carries the ports.
            let large = vec![7; 8000];
            friend.send_to(&large, to(&open)).expect("a route");
            assert_eq!(open.recv(&mut [0; 9000]).expect("allowed, whole"), 8000);
            let before = scene.world.drops();
            scene.dropped(Reason::FragmentDenied, || friend.send_to(&large, to(&closed)).expect("a route"));
            scene.dropped(Reason::FragmentDenied, || stranger.send_to(&large, to(&open)).expect("a route"));
            until("all fragments", || scene.world.drops() >= before + 12);
            assert!(is_silent(&closed) && is_silent(&open));
        }
    });
}

#[test]
fn echo_belongs_to_rules_without_ports() {
    place("icmp", |place| {
        let mut scene = scene(place);
        for family in 0..2 {
            let (server, friend) = (scene.server.addresses()[family], scene.friend.addresses()[family]);
            let at_server = Raw::icmp(&scene.server, server);
            let at_friend = Raw::icmp(&scene.friend, friend);
            scene.dropped(Reason::DefaultDeny, || at_friend.send(server, &raw::echo(server, true, 1)));
            assert!(at_server.is_silent(), "a rule with ports allows no echo");
            // The server may ask, and is answered; the same identifier the other way is no answer.
            at_server.send(friend, &raw::echo(friend, true, 2));
            until("the request at the friend", || at_friend.received(|m| raw::is_request(m, 2)));
            until("the kernel's answer at the server", || at_server.received(|m| raw::is_reply(m, 2)));
            scene.dropped(Reason::DefaultDeny, || at_friend.send(server, &raw::echo(server, true, 2)));
            assert!(at_server.is_silent());
        }
        scene.world.policy("q", "server", Direction::Ingress, vec![allow(vec![pods("friend")], &[])]);
        scene.world.converge();
        for family in 0..2 {
            let (server, friend) = (scene.server.addresses()[family], scene.friend.addresses()[family]);
            let at_friend = Raw::icmp(&scene.friend, friend);
            at_friend.send(server, &raw::echo(server, true, 3));
            until("answered", || at_friend.received(|m| raw::is_reply(m, 3)));
        }
    });
}

#[test]
fn sctp_and_protocols_without_ports() {
    place("sctp", |place| {
        let scene = scene(place);
        for family in 0..2 {
            let (server, friend) = (scene.server.addresses()[family], scene.friend.addresses()[family]);
            let at_server = Raw::new(&scene.server, server, 132);
            let at_friend = Raw::new(&scene.friend, friend, 132);
            let at_stranger = Raw::new(&scene.stranger, scene.stranger.addresses()[family], 132);
            at_friend.send(server, &raw::sctp_init(PORT, 1));
            until("allowed", || at_server.received(|m| *m == raw::sctp_init(PORT, 1)));
            scene.dropped(Reason::DefaultDeny, || at_friend.send(server, &raw::sctp_init(OTHER_PORT, 2)));
            scene.dropped(Reason::DefaultDeny, || at_stranger.send(server, &raw::sctp_init(PORT, 3)));
            assert!(at_server.is_silent());
            // An experimental protocol (RFC 3692): only rules without ports could allow it.
            let (sender, receiver) =
                (Raw::new(&scene.friend, friend, 253), Raw::new(&scene.server, server, 253));
            scene.dropped(Reason::DefaultDeny, || sender.send(server, b"experiment"));
            assert!(receiver.is_silent());
        }
    });
}

/// A one-to-one SCTP socket (RFC 6458, 4); `None` where the kernel has no SCTP. A connection is given up after `within`.
fn sctp(pod: &Pod, family_of: IpAddr, within: Duration) -> Option<OwnedFd> {
    let family = if family_of.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let open =
        || socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(rustix::net::ipproto::SCTP));
    let socket = pod.namespace.run(open).ok()?;
    set_socket_timeout(&socket, Timeout::Send, Some(within)).expect("a socket");
    set_socket_timeout(&socket, Timeout::Recv, Some(SOON)).expect("a socket");
    Some(socket)
}

/// Whole associations. Debian's kernels have SCTP as a module, so virtual machines show this where the own kernel does not.
#[test]
fn sctp_associations() {
    place("sctpassoc", |place| {
        let scene = scene(place);
        for address in scene.server.addresses() {
            let Some(servers) =
                [PORT, OTHER_PORT].map(|_| sctp(&scene.server, address, SOON)).into_iter().collect()
            else {
                println!("skipped: this kernel has no SCTP");
                return;
            };
            let servers: Vec<OwnedFd> = servers;
            for (socket, port) in servers.iter().zip([PORT, OTHER_PORT]) {
                rustix::net::bind(socket, &SocketAddr::new(address, port)).expect("a port");
                rustix::net::listen(socket, 4).expect("a bound socket");
            }
            let open = |from: &Pod, port: u16, within: Duration| {
                let socket = sctp(from, address, within).expect("SCTP, as the server has");
                let connected =
                    from.namespace.run(|| rustix::net::connect(&socket, &SocketAddr::new(address, port)));
                connected.map(|()| TcpStream::from(socket))
            };
            let mut asks = open(&scene.friend, PORT, SOON).expect("allowed");
            let mut answers = TcpStream::from(rustix::net::accept(&servers[0]).expect("an association"));
            for _ in 0..5 {
                asks.write_all(b"hello").expect("open");
                answers.read_exact(&mut [0; 5]).expect("what was said");
                answers.write_all(b"hello").expect("open");
                asks.read_exact(&mut [0; 5]).expect("an answer");
            }
            let denied = |from: &Pod, port| {
                scene.dropped(Reason::DefaultDeny, || open(from, port, SHORT)).expect_err("denied")
            };
            denied(&scene.friend, OTHER_PORT);
            denied(&scene.stranger, PORT);
        }
    });
}

#[test]
fn the_own_node_reaches_its_pods() {
    place("node", |place| {
        let scene = scene(place);
        for address in scene.server.addresses() {
            let listener =
                scene.server.namespace.run(|| TcpListener::bind((address, OTHER_PORT)).expect("a port"));
            let to = listener.local_addr().expect("bound");
            place.net.host.run(|| TcpStream::connect_timeout(&to, SOON)).expect("the node itself is allowed");
        }
        assert!(scene.world.count(Reason::OwnNode, Direction::Ingress) >= 2);
    });
}

#[test]
fn a_source_that_is_not_the_pods_goes_nowhere() {
    place("spoof", |place| {
        let scene = scene(place);
        let Scene { world, server, friend, stranger } = &scene;
        // The node itself must not be what keeps them apart.
        for at in ["all", stranger.interface.as_str()] {
            place.net.host.sysctl(&format!("ipv4/conf/{at}/rp_filter"), "0").expect("a setting");
        }
        let heard = |from: &Pod, name: IpAddr, receiver: &UdpSocket, to: IpAddr| {
            bind(from, name, 0).send_to(b"x", (to, PORT)).expect("a route");
            assert_eq!(receiver.recv_from(&mut [0; 16]).expect("it arrives").1.ip(), name);
        };
        for family in 0..2 {
            let (target, theirs) = (server.addresses()[family], friend.addresses()[family]);
            let bits = if theirs.is_ipv4() { 32 } else { 128 };
            let add = format!("address add {theirs}/{bits} dev lo");
            stranger.namespace.ip(&[&add]).expect("a loopback");
            let receiver = bind(server, target, PORT);
            heard(friend, theirs, &receiver, target);
            let sender = bind(stranger, theirs, 0);
            let before = world.count(Reason::Spoofed, Direction::Egress);
            sender.send_to(b"x", (target, PORT)).expect("a route");
            until("dropped", || world.count(Reason::Spoofed, Direction::Egress) > before);
            assert!(is_silent(&receiver), "the friend's address in a stranger's packet is not the friend");
            drop(receiver);
        }
        // At an interface without programs nobody asks: that is what they are for.
        world.datapath.detach(stranger.ifindex).expect("it was attached");
        for family in 0..2 {
            let (target, theirs) = (server.addresses()[family], friend.addresses()[family]);
            heard(stranger, theirs, &bind(server, target, PORT), target);
        }
    });
}

#[test]
fn egress_to_blocks() {
    place("egress", |place| {
        let outside = place.net.outside().expect("a host");
        let mut scene = scene(place);
        let rules = vec![
            allow(vec![block("192.0.2.0/24")], &[(Protocol::TCP, PORT)]),
            allow(vec![block("2001:db8::/32")], &[(Protocol::TCP, PORT)]),
        ];
        scene.world.policy("e", "stranger", Direction::Egress, rules);
        scene.world.converge();
        for address in outside.addresses() {
            let listeners = [PORT, OTHER_PORT]
                .map(|port| outside.namespace.run(|| TcpListener::bind((address, port)).expect("a port")));
            let [open, closed] = listeners.each_ref().map(|listener| listener.local_addr().expect("bound"));
            connect(&scene.stranger, open, SOON).expect("allowed");
            let before = scene.world.count(Reason::DefaultDeny, Direction::Egress);
            connect(&scene.stranger, closed, SHORT).expect_err("denied");
            assert!(scene.world.count(Reason::DefaultDeny, Direction::Egress) > before);
        }
    });
}

#[test]
fn a_connection_ends_with_its_permission_and_lives_through_other_changes() {
    use std::io::{Read, Write};
    place("revoke", |place| {
        let mut scene = scene(place);
        let address = scene.server.addresses()[0];
        let listener = scene.server.namespace.run(|| TcpListener::bind((address, PORT)).expect("a port"));
        let mut client =
            connect(&scene.friend, listener.local_addr().expect("bound"), SOON).expect("allowed");
        let (mut served, _) = listener.accept().expect("a connection");
        let mut exchange = |what: &str| {
            client.write_all(b"x").expect(what);
            served.read_exact(&mut [0]).expect(what);
            served.write_all(b"y").expect(what);
            client.read_exact(&mut [0]).expect(what);
        };
        exchange("allowed");
        for n in 0..20_u8 {
            scene.world.far_pod(&format!("far{n}"), &[Ipv4Addr::new(10, 245, 0, n).into()]);
            scene.world.converge();
            exchange("another pod is no news to this connection");
        }
        // Whichever packet comes first is the one that is revoked: a late acknowledgement of either side, or the byte.
        let revoked =
            |world: &World| Direction::ALL.into_iter().map(|d| world.count(Reason::Revoked, d)).sum::<u64>();
        let before = revoked(&scene.world);
        let ports = [(Protocol::UDP, PORT)];
        scene.world.policy("p", "server", Direction::Ingress, vec![allow(vec![pods("friend")], &ports)]);
        scene.world.converge();
        client.write_all(b"x").expect("room in the buffer");
        until("revoked", || revoked(&scene.world) > before);
        served.set_nonblocking(true).expect("a socket");
        assert_eq!(served.read(&mut [0]).expect_err("nothing arrives").kind(), ErrorKind::WouldBlock);
        scene.world.assert_no_drift();
    });
}

#[test]
fn a_filter_enforces_as_a_link_does() {
    place("clsact", |place| {
        place.settings.attach = Attach::Clsact;
        let scene = scene(place);
        let hooks = scene.world.datapath.attached().expect("filters");
        assert!(hooks.values().all(|hook| hook.kind == "clsact" && hook.first), "{hooks:?}");
        let address = scene.server.addresses()[0];
        let open = bind(&scene.server, address, PORT);
        let friend = bind(&scene.friend, scene.friend.addresses()[0], 0);
        let stranger = bind(&scene.stranger, scene.stranger.addresses()[0], 0);
        scene.dropped(Reason::DefaultDeny, || stranger.send_to(b"x", (address, PORT)).expect("a route"));
        friend.send_to(b"ask", (address, PORT)).expect("a route");
        assert_eq!(open.recv_from(&mut [0; 16]).expect("allowed").1, friend.local_addr().expect("bound"));
    });
}

#[test]
fn tables_that_were_lost_are_not_live_before_they_are_written() {
    place("lost", |place| {
        let Scene { world, server, friend, stranger } = scene(place);
        drop(world);
        std::fs::remove_file(place.pins("maps/POLICY")).expect("a pin");
        // Opened again, and nothing planned yet: the programs that run still have what they had.
        let mut world = World::new(place);
        assert!(world.datapath.attached().expect("links").is_empty(), "other programs run than ours");
        let address = server.addresses()[0];
        let open = bind(&server, address, PORT);
        let exchange = |world: &World, what: &str| {
            // Other ports each time: policy is asked.
            let [from, denied] = [&friend, &stranger].map(|pod| bind(pod, pod.addresses()[0], 0));
            from.send_to(b"ask", (address, PORT)).expect("a route");
            assert_eq!(open.recv_from(&mut [0; 16]).expect(what).1, from.local_addr().expect("bound"));
            let before = world.drops();
            denied.send_to(b"ask", (address, PORT)).expect("a route");
            until(what, || world.drops() > before);
            assert!(is_silent(&open), "{what}");
        };
        exchange(&world, "before the plan");
        for (name, pod) in [("server", &server), ("friend", &friend), ("stranger", &stranger)] {
            world.pod(name, pod);
        }
        let rules = vec![allow(vec![pods("friend")], &[(Protocol::UDP, PORT)])];
        world.policy("p", "server", Direction::Ingress, rules);
        world.converge();
        assert_eq!(world.datapath.attached().expect("links").len(), 3);
        exchange(&world, "after the plan");
    });
}
