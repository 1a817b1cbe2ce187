//! Rows A10 and A11 of docs/robustness.md on the wire: what routers and receivers say of a pod's packets reaches it, and no
//! tunnel leads from a pod into its node.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::time::Duration;

use cellwall_abi::{Direction, Reason};
use cellwall_policy::flow::Protocol;
use cellwall_policy::model::Change;
use cellwall_testkit::net::{GATEWAY4, Namespace, Net, PacketSocket};

use crate::place::place;
use crate::sockets::{bind, until};
use crate::world::{World, allow, block, pods};

const SOON: Duration = Duration::from_secs(20);
const PORT: u16 = 8080;
/// What the kernel of Linux takes unless told; IANA's is 4789.
const VXLAN: u16 = 8472;

/// A router behind the node, and behind it a host whose link takes less than those before it; the host's addresses.
fn behind_a_narrow_link(net: &mut Net) -> ([Namespace; 2], [IpAddr; 2]) {
    let router = net.outside().expect("a host");
    let far = Namespace::new().expect("root");
    for knob in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        router.namespace.sysctl(knob, "1").expect("a setting");
    }
    let link = format!("link add far type veth peer name eth0 netns {}", far.path());
    let narrow = [
        link.as_str(),
        "address add 198.51.100.1/24 dev far",
        "address add 2001:db8:1::1/64 dev far nodad",
        "link set far mtu 1280 up",
    ];
    router.namespace.ip(&narrow).expect("a link");
    let own = [
        "link set lo up",
        "address add 198.51.100.2/24 dev eth0",
        "address add 2001:db8:1::2/64 dev eth0 nodad",
        "link set eth0 up",
        "route add default via 198.51.100.1",
        "route add default via 2001:db8:1::1",
    ];
    far.ip(&own).expect("a host");
    let to = [
        format!("route add 198.51.100.0/24 via {} dev {}", router.v4, router.interface),
        format!("route add 2001:db8:1::/64 via {} dev {}", router.v6, router.interface),
    ];
    net.host.ip(&to.each_ref().map(String::as_str)).expect("routes");
    (
        [router.namespace, far],
        [Ipv4Addr::new(198, 51, 100, 2).into(), Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2).into()],
    )
}

/// A pod that nobody may ask, and that may ask hosts out there: a router says that its packets are too big.
#[test]
fn a_router_says_what_is_too_big() {
    place("narrow", |place| {
        let client = place.net.pod().expect("a pod");
        let ([_router, far], addresses) = behind_a_narrow_link(&mut place.net);
        let mut world = World::new(place);
        world.pod("client", &client);
        let there = ["198.51.100.0/24", "2001:db8:1::/64"].map(block).to_vec();
        world.policy("out", "client", Direction::Egress, vec![allow(there, &[(Protocol::TCP, PORT)])]);
        world.policy("in", "client", Direction::Ingress, Vec::new());
        world.converge();
        for address in addresses {
            let related = world.count(Reason::Related, Direction::Ingress);
            let listener = far.run(|| TcpListener::bind((address, PORT)).expect("a free port"));
            let mut sender = client
                .namespace
                .run(|| TcpStream::connect_timeout(&(address, PORT).into(), SOON))
                .expect("allowed");
            let (mut receiver, _) = listener.accept().expect("a connection");
            receiver.set_read_timeout(Some(SOON)).expect("a socket");
            let sent = vec![7; 1 << 18];
            let mut got = vec![0; sent.len()];
            std::thread::scope(|scope| {
                scope.spawn(|| sender.write_all(&sent).expect("it is taken"));
                receiver.read_exact(&mut got).expect("what is too big is sent again, smaller");
            });
            assert_eq!(got, sent);
            assert!(world.count(Reason::Related, Direction::Ingress) > related, "the router has said so");
        }
    });
}

/// Two pods; one may send the other datagrams and gets nothing but answers: "nobody is at this port" is one.
#[test]
fn a_receiver_says_that_nobody_is_there() {
    place("nobody", |place| {
        let (client, server) = (place.net.pod().expect("a pod"), place.net.pod().expect("a pod"));
        let mut world = World::new(place);
        world.pod("client", &client);
        world.pod("server", &server);
        let ask = allow(vec![pods("server")], &[(Protocol::UDP, PORT)]);
        world.policy("out", "client", Direction::Egress, vec![ask]);
        world.policy("in", "client", Direction::Ingress, Vec::new());
        let answer = allow(vec![pods("client")], &[(Protocol::UDP, PORT)]);
        world.policy("asked", "server", Direction::Ingress, vec![answer]);
        world.policy("answers", "server", Direction::Egress, Vec::new());
        world.converge();
        for (own, address) in client.addresses().into_iter().zip(server.addresses()) {
            let socket = bind(&client, own, 0);
            socket.connect((address, PORT)).expect("a route");
            socket.send(b"x").expect("a route");
            let refused = socket.recv(&mut [0]).expect_err("nobody is there");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
        }
        let [told, kept] = [Reason::Related, Reason::Unrelated].map(|r| world.count(r, Direction::Ingress));
        assert_eq!((told, kept), (2, 0));
    });
}

/// A frame in a tunnel to the node, which takes it out: whoever it is for, it has passed no hook of ours.
#[test]
fn a_node_takes_nothing_out_of_a_pods_tunnel() {
    place("tunnel", |place| {
        let pod = place.net.pod().expect("a pod");
        let tunnel = format!("link add name tunnel type vxlan id 1 dstport {VXLAN}");
        if let Err(error) = place.net.host.ip(&[&tunnel, "link set tunnel up"]) {
            println!("skipped: this kernel has no vxlan: {error}");
            return;
        }
        let taken_out = PacketSocket::open(&place.net.host, "tunnel").expect("a packet socket");
        let socket = bind(&pod, pod.v4.into(), 0);
        let inner = [&[0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x88, 0xb5][..], b"cellwall"].concat();
        let outer = [&[8, 0, 0, 0, 0, 0, 1, 0][..], &inner].concat();
        let arrived = || {
            let mut buffer = [0; 2048];
            std::iter::from_fn(|| taken_out.receive(&mut buffer).map(<[u8]>::to_vec))
                .any(|frame| frame == inner)
        };
        let send = || socket.send_to(&outer, (GATEWAY4, VXLAN)).expect("a route");
        // As a node is without us: this is what the rest of the test would miss.
        until("taken out", || {
            send();
            arrived()
        });
        // Nothing isolates this pod.
        let mut world = World::new(place);
        world.pod("pod", &pod);
        world.tell(Change::NodeAddresses(vec![GATEWAY4.into()]));
        world.converge();
        let _ = arrived();
        for n in 1..=100 {
            send();
            until("dropped", || world.count(Reason::Tunnel, Direction::Egress) >= n);
        }
        assert!(!arrived(), "nothing of it is taken out");
    });
}
