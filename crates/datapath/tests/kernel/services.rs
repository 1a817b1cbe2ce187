//! Services on the real kernel: netfilter translates, and the pod that asked is judged on what it was translated to.
//!
//! Each test runs on a node that routes between the interfaces of its pods, and on two with a bridge. The client may
//! speak to the backend, at [`PORT`], and to whom a test names; nobody else is isolated.

mod ends;

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData};
use cellwall_abi::{
    Be16, Direction, Family, Reason, SERVICE_TOO_MANY, SERVICE_TRANSLATED, ServiceBackend, ServiceKey4,
    ServiceKey6, ServiceRecord, V4,
};
use cellwall_policy::flow::Protocol;
use cellwall_policy::model::Rule;
use cellwall_testkit::net::{BRIDGE, GATEWAY4, GATEWAY6, Net, Pod};
use zerocopy::IntoBytes;

use crate::hooks::show;
use crate::place::{Place, place};
use crate::sockets::until;
use crate::world::{World, allow, block, pods};

const SOON: Duration = Duration::from_secs(10);
/// A denied connection is given up after this; that it was denied, the counter says.
const SHORT: Duration = Duration::from_millis(300);

const PORT: u16 = 8080;
const OTHER_PORT: u16 = 8081;
/// The port of every Service.
const ASKED: u16 = 80;

/// How pods reach each other through the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Routed,
    /// By a bridge, whose frames netfilter sees, too: what is translated to a neighbour never leaves it.
    Filtered,
    /// By a bridge of which netfilter sees nothing. What comes back to a neighbour's own address is not translated back,
    /// so there a Service works only where the source is masqueraded.
    Bridged,
}

/// A node with a client that is isolated in both directions, and pods that are not.
struct Scene {
    world: World,
    way: Way,
    client: Pod,
    backend: Pod,
    stranger: Pod,
    outside: Pod,
    services: u32,
    /// Whether what is translated seems to come from the node: both, where both work.
    masquerading: &'static [bool],
}

/// Runs a test on every kind of node; does nothing, and says so, where `nft` is not there.
fn on_every_node(tag: &str, test: impl Fn(&mut Place, &mut Scene) + Sync) {
    for way in [Way::Routed, Way::Filtered, Way::Bridged] {
        place(tag, |place| {
            if let Err(error) = place.net.host.run(|| Command::new("nft").arg("--version").output()) {
                println!("skipped: no nft: {error}");
                return;
            }
            let knob = || Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists();
            if way == Way::Filtered && !place.net.host.run(knob) {
                println!("skipped: no br_netfilter, so no bridge that asks netfilter");
                return;
            }
            println!("{way:?}");
            let mut scene = scene(place, way);
            test(place, &mut scene);
        });
    }
}

fn scene(place: &mut Place, way: Way) -> Scene {
    let [client, backend, stranger] = [(); 3]
        .map(|()| if way == Way::Routed { place.net.pod() } else { place.net.bridged_pod() }.expect("a pod"));
    let outside = place.net.outside().expect("a host");
    let mut world = World::new(place);
    for (name, pod) in [("client", &client), ("backend", &backend), ("stranger", &stranger)] {
        world.pod(name, pod);
    }
    world.datapath.attach_node(outside.ifindex).expect("an interface");
    if way != Way::Routed {
        // Without br_netfilter there is no such setting, and netfilter sees nothing.
        for knob in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
            let value = if way == Way::Filtered { "1" } else { "0" };
            let _ = place.net.host.sysctl(&format!("bridge/{knob}"), value);
        }
        let bridge = place.net.host.ifindex(BRIDGE).expect("it was made");
        world.datapath.attach_node(bridge).expect("an interface");
    }
    world.policy("in", "client", Direction::Ingress, Vec::new());
    let masquerading = if way == Way::Bridged { &[true][..] } else { &[false, true] };
    let mut scene = Scene { world, way, client, backend, stranger, outside, services: 0, masquerading };
    scene.may(Vec::new());
    scene
}

impl Scene {
    /// The client may speak to the backend, and to these.
    fn may(&mut self, mut rules: Vec<Rule>) {
        let ports = [(Protocol::TCP, PORT), (Protocol::UDP, PORT)];
        rules.push(allow(vec![pods("backend")], &ports));
        self.world.policy("out", "client", Direction::Egress, rules);
        self.world.converge();
    }

    /// This node translates an address: the agent has heard of it.
    fn announce(&mut self, place: &Place, at: SocketAddr, flags: u32, backends: &[SocketAddr]) {
        let mut record = ServiceRecord {
            flags: SERVICE_TRANSLATED | flags,
            count: u32::try_from(backends.len()).expect("a few"),
            ..ServiceRecord::default()
        };
        for (row, backend) in record.backends.iter_mut().zip(backends) {
            let address = match backend.ip() {
                IpAddr::V4(v4) => V4::widen(v4.into()),
                IpAddr::V6(v6) => v6.into(),
            };
            *row = ServiceBackend { address, port: Be16::new(backend.port()), pad: [0; 2] };
        }
        let map = |name: &str| {
            let data = MapData::from_pin(place.pins("maps").join(name)).expect("a pin");
            Map::from_map_data(data).expect("a table")
        };
        let mut records: Array<_, [u8; size_of::<ServiceRecord>()]> =
            map("SERVICE_RECORDS").try_into().expect("an array");
        let bytes: [u8; _] = record.as_bytes().try_into().expect("its size");
        for bank in [0, 1] {
            records.set(2 * self.services + bank, bytes, 0).expect("a slot");
        }
        for protocol in [6, 17, 132] {
            let (port, pad) = (Be16::new(at.port()), 0);
            match at.ip() {
                IpAddr::V4(address) => {
                    let key = ServiceKey4 { address: address.into(), port, protocol, pad };
                    let mut table: HashMap<_, [u8; size_of::<ServiceKey4>()], u32> =
                        map("SERVICES4").try_into().expect("a hash");
                    let bytes: [u8; _] = key.as_bytes().try_into().expect("its size");
                    table.insert(bytes, self.services, 0)
                }
                IpAddr::V6(address) => {
                    let key = ServiceKey6 { address: address.into(), port, protocol, pad };
                    let mut table: HashMap<_, [u8; size_of::<ServiceKey6>()], u32> =
                        map("SERVICES6").try_into().expect("a hash");
                    let bytes: [u8; _] = key.as_bytes().try_into().expect("its size");
                    table.insert(bytes, self.services, 0)
                }
            }
            .expect("room");
        }
        self.services += 1;
    }

    /// What was dropped so far, and why.
    fn dropped(&self) -> Vec<(&'static str, Direction, u64)> {
        let all = self.world.datapath.counters().expect("counters").into_iter();
        let drops = all.filter(|(reason, _, counter)| reason.is_drop() && counter.packets > 0);
        drops.map(|(reason, direction, counter)| (reason.name(), direction, counter.packets)).collect()
    }

    fn egress_drops(&self) -> u64 {
        self.world.count(Reason::DefaultDeny, Direction::Egress)
            + self.world.count(Reason::Revoked, Direction::Egress)
    }

    /// The client speaks to whoever answers at an address.
    fn assert_reached(&self, to: SocketAddr) {
        let before = self.world.drops();
        let why = |error| -> Talk { panic!("{to}: {error}; {:?}", self.dropped()) };
        Talk::tcp(&self.client, to, SOON).unwrap_or_else(why).speak();
        Talk::udp(&self.client, to).speak();
        assert_eq!(self.world.drops(), before, "{to}: nothing was dropped on the way");
    }

    /// The client speaks to nobody there: its own egress policy says so.
    fn assert_denied(&self, to: SocketAddr) {
        let before = self.egress_drops();
        let refused = Talk::tcp(&self.client, to, SHORT).err().map(|error| error.kind());
        assert_eq!(refused, Some(ErrorKind::TimedOut), "{to}");
        assert!(self.egress_drops() > before, "{to}");
        let before = self.egress_drops();
        Talk::udp(&self.client, to).assert_silent(|| self.egress_drops() > before);
    }
}

/// A conversation with an echo server.
enum Talk {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Talk {
    fn tcp(from: &Pod, to: SocketAddr, within: Duration) -> io::Result<Self> {
        let stream = from.namespace.run(|| TcpStream::connect_timeout(&to, within))?;
        stream.set_read_timeout(Some(SOON))?;
        Ok(Self::Tcp(stream))
    }

    fn udp(from: &Pod, to: SocketAddr) -> Self {
        let own: IpAddr = if to.is_ipv4() { from.v4.into() } else { from.v6.into() };
        let socket = from.namespace.run(|| UdpSocket::bind((own, 0)).expect("a port"));
        socket.set_read_timeout(Some(SOON)).expect("a socket");
        socket.connect(to).expect("a route");
        Self::Udp(socket)
    }

    /// There and back, more often than a connection takes to be established.
    fn speak(&mut self) {
        for _ in 0..5 {
            match self {
                Self::Tcp(stream) => {
                    stream.write_all(b"hello").expect("open");
                    stream.read_exact(&mut [0; 5]).expect("an echo");
                }
                Self::Udp(socket) => {
                    socket.send(b"hello").expect("a route");
                    assert_eq!(socket.recv(&mut [0; 16]).expect("an echo"), 5);
                }
            }
        }
    }

    /// Says something, which is dropped, and hears nothing.
    fn assert_silent(&mut self, dropped: impl Fn() -> bool) {
        let kind = match self {
            Self::Tcp(stream) => {
                stream.write_all(b"hello").expect("room in the buffer");
                until("dropped", dropped);
                stream.set_read_timeout(Some(SHORT)).expect("a socket");
                stream.read(&mut [0; 5]).expect_err("nothing is heard").kind()
            }
            Self::Udp(socket) => {
                socket.send(b"hello").expect("a route");
                until("dropped", dropped);
                socket.set_read_timeout(Some(SHORT)).expect("a socket");
                socket.recv(&mut [0; 16]).expect_err("nothing is heard").kind()
            }
        };
        assert_eq!(kind, ErrorKind::WouldBlock);
    }
}

/// Echoes whatever comes to these ports of a namespace, until the process ends.
fn echo(namespace: &cellwall_testkit::net::Namespace, addresses: [IpAddr; 2], ports: &[u16]) {
    for at in addresses.into_iter().flat_map(|address| ports.iter().map(move |port| (address, *port))) {
        let (tcp, udp) =
            namespace.run(|| (TcpListener::bind(at).expect("a port"), UdpSocket::bind(at).expect("a port")));
        thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                thread::spawn(move || {
                    let mut back = stream.try_clone()?;
                    io::copy(&mut &stream, &mut back)
                });
            }
        });
        thread::spawn(move || {
            let mut buffer = [0; 9000];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(&buffer[..length], from);
            }
        });
    }
}

/// The node translates an address to another; `masquerade`: as if the node itself asked.
fn translate(net: &Net, at: SocketAddr, to: SocketAddr, masquerade: bool) {
    let family = if at.is_ipv4() { "ip" } else { "ip6" };
    let table = format!("{family} cellwall-proxy");
    let mut rules = format!(
        "add table {table}
        add chain {table} services {{ type nat hook prerouting priority -100; }}
        add chain {table} sources {{ type nat hook postrouting priority 100; }}
        add chain {table} ours {{ type nat hook output priority -100; }}
        add rule {table} services meta l4proto {{ tcp, udp, sctp }} {family} daddr {} th dport {} dnat to {to}\n",
        at.ip(),
        at.port()
    );
    if masquerade {
        let rule = format!("ct original {family} daddr {} ct status dnat masquerade", at.ip());
        let _ = writeln!(rules, "add rule {table} sources {rule}");
    }
    net.host.run(|| nft(&rules));
}

/// A Service that the agent has heard of.
fn announced(place: &Place, scene: &mut Scene, at: SocketAddr, to: SocketAddr, masquerade: bool) {
    translate(&place.net, at, to, masquerade);
    scene.announce(place, at, 0, &[]);
}

/// The `n`th virtual address, of the family of `other`.
fn virtual_address(n: u8, other: IpAddr) -> SocketAddr {
    let text = if other.is_ipv4() { format!("10.96.0.{n}") } else { format!("fd00:96::{n}") };
    SocketAddr::new(text.parse().expect("an address"), ASKED)
}

fn echo_everywhere(scene: &Scene) {
    for pod in [&scene.client, &scene.backend, &scene.stranger, &scene.outside] {
        echo(&pod.namespace, pod.addresses(), &[PORT, OTHER_PORT]);
    }
}

#[test]
fn whom_a_service_leads_to_is_judged_and_not_the_service() {
    on_every_node("svcip", |place, scene| {
        echo_everywhere(scene);
        for family in [0, 1] {
            let [backend, stranger, outside] =
                [&scene.backend, &scene.stranger, &scene.outside].map(|pod| pod.addresses()[family]);
            let wrong = [(backend, OTHER_PORT), (stranger, PORT), (outside, PORT)];
            for &masquerade in scene.masquerading {
                let n = if masquerade { 10 } else { 1 };
                let good = virtual_address(n, backend);
                translate(&place.net, good, (backend, PORT).into(), masquerade);
                scene.announce(place, good, 0, &[]);
                scene.assert_reached(good);
                for (n, to) in (n + 1..).zip(wrong) {
                    let bad = virtual_address(n, backend);
                    translate(&place.net, bad, to.into(), masquerade);
                    scene.announce(place, bad, 0, &[]);
                    scene.assert_denied(bad);
                }
            }
        }
        assert_eq!(scene.world.count(Reason::StampUnknown, Direction::Egress), 0);
    });
}

#[test]
fn a_translation_that_nobody_told_of_is_judged_where_it_leads() {
    on_every_node("svcnew", |place, scene| {
        echo_everywhere(scene);
        let everything = [block("10.96.0.0/16"), block("fd00:96::/64")];
        scene.may(vec![allow(everything.to_vec(), &[])]);
        for family in [0, 1] {
            let [backend, stranger, outside] =
                [&scene.backend, &scene.stranger, &scene.outside].map(|pod| pod.addresses()[family]);
            for &masquerade in scene.masquerading {
                let n = if masquerade { 10 } else { 1 };
                let good = virtual_address(n, backend);
                translate(&place.net, good, (backend, PORT).into(), masquerade);
                scene.assert_reached(good);
                for (n, to) in (n + 1..).zip([(backend, OTHER_PORT), (stranger, PORT), (outside, PORT)]) {
                    let bad = virtual_address(n, backend);
                    translate(&place.net, bad, to.into(), masquerade);
                    scene.assert_denied(bad);
                }
            }
        }
    });
}

#[test]
fn what_leaves_the_node_untranslated_is_as_it_was() {
    on_every_node("svcnone", |_, scene| {
        echo_everywhere(scene);
        let world = [block("192.0.2.0/24"), block("2001:db8::/32")];
        scene.may(vec![allow(world.to_vec(), &[(Protocol::TCP, PORT), (Protocol::UDP, PORT)])]);
        for family in [0, 1] {
            for pod in [&scene.backend, &scene.outside] {
                scene.assert_reached((pod.addresses()[family], PORT).into());
                scene.assert_denied((pod.addresses()[family], OTHER_PORT).into());
            }
            scene.assert_denied((scene.stranger.addresses()[family], PORT).into());
        }
    });
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    on_every_node("svcself", |place, scene| {
        echo_everywhere(scene);
        for own in scene.client.addresses() {
            let at = virtual_address(1, own);
            translate(&place.net, at, (own, PORT).into(), true);
            scene.announce(place, at, 0, &[]);
            scene.assert_reached(at);
        }
        // The same source, the node, without the pod behind it.
        for (own, stranger) in scene.client.addresses().into_iter().zip(scene.stranger.addresses()) {
            let at = virtual_address(2, own);
            translate(&place.net, at, (own, PORT).into(), true);
            let before = scene.world.count(Reason::DefaultDeny, Direction::Ingress);
            let refused = Talk::tcp(&scene.stranger, at, SHORT).err().map(|error| error.kind());
            assert_eq!(refused, Some(ErrorKind::TimedOut), "{stranger}");
            assert!(scene.world.count(Reason::DefaultDeny, Direction::Ingress) > before);
        }
    });
}

#[test]
fn what_the_node_itself_serves_is_decided_at_the_source() {
    on_every_node("svclocal", |place, scene| {
        let node: [IpAddr; 2] = [GATEWAY4.into(), GATEWAY6.into()];
        echo(&place.net.host, node, &[PORT, OTHER_PORT]);
        let blocks = [block("10.244.0.1/32"), block("fd00:244::1/128")];
        scene.may(vec![allow(blocks.to_vec(), &[(Protocol::TCP, PORT), (Protocol::UDP, PORT)])]);
        for address in node {
            let to = |port| SocketAddr::new(address, port);
            let cases = [
                (1, PORT, 0, vec![to(PORT)], true),
                (2, OTHER_PORT, 0, vec![to(OTHER_PORT)], false),
                (3, PORT, 0, vec![to(PORT), to(OTHER_PORT)], false),
                (4, PORT, SERVICE_TOO_MANY, vec![to(PORT)], false),
            ];
            for (n, port, flags, backends, is_allowed) in cases {
                let at = virtual_address(n, address);
                translate(&place.net, at, to(port), false);
                scene.announce(place, at, flags, &backends);
                if is_allowed { scene.assert_reached(at) } else { scene.assert_denied(at) }
            }
        }
    });
}

#[test]
fn a_port_of_the_node_is_a_service_like_any_other() {
    on_every_node("svcport", |place, scene| {
        echo_everywhere(scene);
        for (family, node) in [IpAddr::from(GATEWAY4), GATEWAY6.into()].into_iter().enumerate() {
            let [good, bad] = [30_080, 30_081].map(|port| SocketAddr::new(node, port));
            translate(&place.net, good, (scene.backend.addresses()[family], PORT).into(), true);
            translate(&place.net, bad, (scene.stranger.addresses()[family], PORT).into(), true);
            scene.announce(place, good, 0, &[]);
            scene.announce(place, bad, 0, &[]);
            scene.assert_reached(good);
            scene.assert_denied(bad);
        }
    });
}

#[test]
fn a_connection_to_a_service_ends_with_the_permission_of_its_backend_and_not_with_the_service() {
    on_every_node("svcrev", |place, scene| {
        echo_everywhere(scene);
        for family in [0, 1] {
            let backend = scene.backend.addresses()[family];
            let at = virtual_address(1, backend);
            translate(&place.net, at, (backend, PORT).into(), scene.masquerading[0]);
            scene.announce(place, at, 0, &[]);
            let mut talks =
                [Talk::tcp(&scene.client, at, SOON).expect("allowed"), Talk::udp(&scene.client, at)];
            talks.iter_mut().for_each(Talk::speak);
            // Another policy of the same pod: everything about it is judged again.
            scene.may(vec![allow(vec![block("198.51.100.0/24")], &[])]);
            talks.iter_mut().for_each(Talk::speak);
            scene.world.policy("out", "client", Direction::Egress, Vec::new());
            scene.world.converge();
            for talk in &mut talks {
                let before = scene.egress_drops();
                talk.assert_silent(|| scene.egress_drops() > before);
            }
            scene.may(Vec::new());
        }
    });
}

#[test]
fn large_datagrams_follow_their_first_behind_a_translation() {
    on_every_node("svcfrag", |place, scene| {
        echo_everywhere(scene);
        for family in [0, 1] {
            let [backend, stranger] = [&scene.backend, &scene.stranger].map(|pod| pod.addresses()[family]);
            let (good, bad) = (virtual_address(1, backend), virtual_address(2, backend));
            translate(&place.net, good, (backend, PORT).into(), scene.masquerading[0]);
            translate(&place.net, bad, (stranger, PORT).into(), scene.masquerading[0]);
            scene.announce(place, good, 0, &[]);
            scene.announce(place, bad, 0, &[]);
            let Talk::Udp(socket) = Talk::udp(&scene.client, good) else { unreachable!("it was made so") };
            for _ in 0..3 {
                socket.send(&[7; 8000]).expect("a route");
                assert_eq!(socket.recv(&mut [0; 9000]).expect("an echo"), 8000);
            }
            let Talk::Udp(socket) = Talk::udp(&scene.client, bad) else { unreachable!("it was made so") };
            let before = scene.world.drops();
            socket.send(&[7; 8000]).expect("a route");
            // Put together to be translated, and cut up again: the kernel sends no more after one that was dropped.
            until("dropped", || scene.world.drops() > before);
            socket.set_read_timeout(Some(SHORT)).expect("a socket");
            socket.recv(&mut [0; 9000]).expect_err("nothing is heard");
        }
    });
}

/// Others' filters at the pod's own interface, behind our program there, set `tc_index` to the minor number of a class: what it
/// said is lost.
fn without_tc_index(place: &Place, scene: &Scene) {
    let dev = ["dev", scene.client.interface.as_str()];
    if scene.world.datapath.features().tcx {
        show(place, &[&["qdisc", "add"], &dev[..], &["clsact"]].concat());
    }
    let all = ["protocol", "all", "priority", "2", "u32", "match", "u32", "0", "0", "classid", "1:0"];
    show(place, &[&["filter", "add"], &dev[..], &["ingress"], &all].concat());
}

/// Where the node routes, the interface that received a packet names its pod, and all is as it was. Behind a bridge that is the
/// bridge, and a stamp that names nobody is dropped: what is denied stays denied, and what is allowed does not get through.
#[test]
fn who_takes_tc_index_away_lets_nothing_through() {
    on_every_node("svcindex", |place, scene| {
        echo_everywhere(scene);
        let world = [block("192.0.2.0/24"), block("2001:db8::/32")];
        scene.may(vec![allow(world.to_vec(), &[(Protocol::TCP, PORT), (Protocol::UDP, PORT)])]);
        without_tc_index(place, scene);
        let refused = |scene: &Scene, to: SocketAddr| {
            let before = scene.world.drops();
            Talk::tcp(&scene.client, to, SHORT).err().expect("denied");
            Talk::udp(&scene.client, to).assert_silent(|| scene.world.drops() > before);
        };
        let unknown = |scene: &Scene| scene.world.count(Reason::StampUnknown, Direction::Egress);
        for family in [0, 1] {
            let [backend, stranger, outside] =
                [&scene.backend, &scene.stranger, &scene.outside].map(|pod| pod.addresses()[family]);
            for &masquerade in scene.masquerading {
                let n = if masquerade { 10 } else { 1 };
                for (n, to) in (n + 1..).zip([(backend, OTHER_PORT), (stranger, PORT), (outside, OTHER_PORT)])
                {
                    let bad = virtual_address(n, backend);
                    translate(&place.net, bad, to.into(), masquerade);
                    scene.announce(place, bad, 0, &[]);
                    refused(scene, bad);
                }
                let good = virtual_address(n, backend);
                translate(&place.net, good, (backend, PORT).into(), masquerade);
                scene.announce(place, good, 0, &[]);
                if scene.way == Way::Bridged { refused(scene, good) } else { scene.assert_reached(good) }
            }
            // The same of what no Service leads to.
            scene.assert_reached((backend, PORT).into());
            let before = unknown(scene);
            let out: SocketAddr = (outside, PORT).into();
            if scene.way == Way::Routed {
                scene.assert_reached(out);
            } else {
                refused(scene, out);
            }
            assert_eq!(unknown(scene) > before, scene.way != Way::Routed, "for want of a name alone");
        }
        assert_eq!(unknown(scene) == 0, scene.way == Way::Routed);
    });
}

/// Rules of the node's own that wipe the mark between our hooks take with it that something is still to be judged: what a
/// Service leads to is then the affair of the backend's own policies, as ARCHITECTURE.md says. Nothing else is.
#[test]
fn who_wipes_the_mark_opens_services_and_nothing_else() {
    on_every_node("svcmark", |place, scene| {
        echo_everywhere(scene);
        let rules = "add table inet cellwall-wipe
            add chain inet cellwall-wipe wipe { type filter hook prerouting priority -150; }
            add rule inet cellwall-wipe wipe meta mark set 0";
        for family in [0, 1] {
            let [backend, stranger] = [&scene.backend, &scene.stranger].map(|pod| pod.addresses()[family]);
            for &masquerade in scene.masquerading {
                let bad = virtual_address(if masquerade { 10 } else { 1 }, backend);
                translate(&place.net, bad, (stranger, PORT).into(), masquerade);
                scene.announce(place, bad, 0, &[]);
                scene.assert_denied(bad);
                place.net.host.run(|| nft(rules));
                Talk::tcp(&scene.client, bad, SOON).expect("nobody knows that it is to be judged");
                // The backend's own policies are asked all the same.
                scene.world.policy("deaf", "stranger", Direction::Ingress, Vec::new());
                scene.world.converge();
                let before = scene.world.count(Reason::DefaultDeny, Direction::Ingress);
                let heard = Talk::tcp(&scene.client, bad, SHORT).is_ok();
                let dropped = scene.world.count(Reason::DefaultDeny, Direction::Ingress) > before;
                assert_eq!((heard, dropped), (false, true), "masqueraded: {masquerade}");
                scene.world.forget_policy("deaf");
                scene.world.converge();
                // And what no Service leads to is judged at its source.
                scene.assert_reached((backend, PORT).into());
                scene.assert_denied((stranger, PORT).into());
                place.net.host.run(|| nft("delete table inet cellwall-wipe"));
            }
        }
    });
}

fn nft(rules: &str) {
    let output = Command::new("nft").arg(rules).output().expect("it was there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
