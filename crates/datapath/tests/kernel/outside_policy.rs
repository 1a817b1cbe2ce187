//! Rows A7 and A9 of docs/robustness.md on the wire: the family that a cluster does not have, and a pod that says it is a
//! router to a node that listens to routers.

use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::process::Command;

use cellwall_abi::{Direction, Reason};
use cellwall_testkit::net::{Namespace, Pod};
use rustix::net::sockopt::set_ipv6_multicast_hops;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with};

use crate::place::place;
use crate::sockets::{bind, is_silent, until};
use crate::world::{World, allow, pods};

const PORT: u16 = 8080;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Sends a datagram between addresses of this family; the socket where it would arrive.
fn send(client: &Pod, server: &Pod, family: usize) -> UdpSocket {
    let [from, to] = [client, server].map(|pod| pod.addresses()[family]);
    let receiver = bind(server, to, PORT);
    bind(client, from, 0).send_to(b"x", (to, PORT)).expect("a route");
    receiver
}

/// Each pod has an address of the cluster's one family, and one of the other that nobody gave it: by hand here, by a
/// router or of the link elsewhere.
#[test]
fn a_family_that_a_pod_gave_itself_leads_nowhere() {
    for family in 0..2 {
        place("single", |place| {
            let (client, server) = (place.net.pod().expect("a pod"), place.net.pod().expect("a pod"));
            // As it is without us.
            send(&client, &server, 1 - family).recv(&mut [0]).expect("nothing is in the way");
            let mut world = World::new(place);
            for (name, pod) in [("client", &client), ("server", &server)] {
                world.pod_with(name, pod, &[pod.addresses()[family]]);
            }
            for isolated in [false, true] {
                if isolated {
                    let friends = vec![allow(vec![pods("client")], &[])];
                    world.policy("in", "server", Direction::Ingress, friends);
                }
                world.converge();
                let spoofed = || world.count(Reason::Spoofed, Direction::Egress);
                let before = spoofed();
                let receiver = send(&client, &server, 1 - family);
                until("dropped where it leaves", || spoofed() > before);
                assert!(is_silent(&receiver));
                send(&client, &server, family).recv(&mut [0]).expect("of the family that they have");
            }
            // Of somebody who may: the server does not have that address either.
            let stranger = place.net.outside().expect("a host");
            let strange = || world.count(Reason::NotAddressed, Direction::Ingress);
            let before = strange();
            let receiver = send(&stranger, &server, 1 - family);
            until("dropped where it arrives", || strange() > before);
            assert!(is_silent(&receiver));
        });
    }
}

/// A router advertisement, from the pod's address on its link.
fn advertise(pod: &Pod) {
    let message = [&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1][..], &pod.mac].concat();
    let ifindex = pod.namespace.ifindex("eth0").expect("its interface");
    let protocol = Some(ipproto::ICMPV6);
    let socket = pod
        .namespace
        .run(|| socket_with(AddressFamily::INET6, SocketType::RAW, SocketFlags::CLOEXEC, protocol));
    let socket = socket.expect("a raw socket");
    set_ipv6_multicast_hops(&socket, 255).expect("a socket");
    let to = SocketAddrV6::new(ALL_NODES, 0, 0, ifindex);
    sendto(&socket, &message, SendFlags::empty(), &to).expect("a route");
}

/// What `ip -6 route` says.
fn routes(host: &Namespace, arguments: &[&str]) -> String {
    let output = host.run(|| Command::new("ip").args(["-6", "route"]).args(arguments).output());
    let output = output.expect("iproute2");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn has_a_router(host: &Namespace) -> bool {
    routes(host, &["show", "default"]).contains("proto ra")
}

#[test]
fn a_node_that_listens_to_routers_does_not_hear_a_pod() {
    place("router", |place| {
        let pod = place.net.pod().expect("a pod");
        // Also though it forwards, as hosts of clouds are set up.
        for knob in ["accept_ra", "accept_ra_defrtr"] {
            place.net.host.sysctl(&format!("ipv6/conf/{}/{knob}", pod.interface), "2").expect("IPv6");
        }
        until("taken as a router", || {
            advertise(&pod);
            has_a_router(&place.net.host)
        });
        routes(&place.net.host, &["flush", "proto", "ra"]);
        assert!(!has_a_router(&place.net.host));
        // Nothing isolates this pod.
        let mut world = World::new(place);
        world.pod("pod", &pod);
        world.converge();
        for n in 1..=100 {
            advertise(&pod);
            until("dropped", || world.count(Reason::NeighbourForged, Direction::Egress) >= n);
        }
        assert!(!has_a_router(&place.net.host));
    });
}
