//! What programs leave behind: events, counters, connections.

use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use aya::maps::MapData;
use cellwall_abi::{Direction, EVENT_V6, Event, Reason};
use cellwall_datapath::At;
use cellwall_policy::flow::Protocol;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::links::runtime;
use crate::place::place;
use crate::world::{World, allow, pods};

const SOON: Duration = Duration::from_secs(10);

/// An Ethernet frame with an IPv4 UDP datagram.
pub(crate) fn udp_frame(macs: ([u8; 6], [u8; 6]), ends: ([u8; 4], [u8; 4]), ports: (u16, u16)) -> Vec<u8> {
    let mut frame = [&macs.1[..], &macs.0, &[8, 0]].concat();
    let mut header = vec![0x45, 0, 0, 36, 0, 1, 0, 0, 64, 17, 0, 0];
    header.extend(ends.0);
    header.extend(ends.1);
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).expect("one carry is enough here");
    header[10..12].copy_from_slice(&(!folded).to_be_bytes());
    frame.extend(header);
    frame.extend([ports.0.to_be_bytes(), ports.1.to_be_bytes(), [0, 16], [0, 0]].concat());
    frame.extend(*b"datagram");
    frame
}

#[test]
fn a_test_run_judges_counts_and_reports() {
    place("events", |place| {
        let (server, friend) = (place.net.pod().expect("a pod"), place.net.pod().expect("a pod"));
        let mut world = World::new(place);
        world.pod("server", &server);
        world.pod("friend", &friend);
        let rules = vec![allow(vec![pods("friend")], &[(Protocol::UDP, 53)])];
        world.policy("p", "server", Direction::Ingress, rules);
        world.converge();
        while world.datapath.events(|_| ()) > 0 {}

        let at = At { ifindex: server.ifindex, ingress_ifindex: friend.ifindex, mark: 0 };
        let ends = (friend.v4.octets(), server.v4.octets());
        let run = |world: &World, port| {
            let frame = udp_frame((server.host_mac, server.mac), ends, (4000, port));
            world.datapath.test_run(Direction::Ingress, &frame, at).expect("a test run")
        };
        let counts = |world: &World| {
            [Reason::Allowed, Reason::DefaultDeny].map(|reason| world.count(reason, Direction::Ingress))
        };
        let before = counts(&world);
        assert!(run(&world, 53));
        assert!(!run(&world, 54));
        assert!(!run(&world, 55));
        assert_eq!(counts(&world), [before[0] + 1, before[1] + 2]);

        let mut events: Vec<Event> = Vec::new();
        world.datapath.events(|event| events.push(*event));
        let ours: Vec<&Event> = events.iter().filter(|event| event.source_port.get() == 4000).collect();
        assert_eq!(ours.len(), 2, "{events:?}");
        for (event, port) in ours.iter().zip([54, 55]) {
            assert_eq!(Reason::from_number(event.reason), Some(Reason::DefaultDeny));
            assert_eq!((event.direction, event.ifindex), (Direction::Ingress as u8, server.ifindex));
            assert_eq!((event.protocol, event.destination_port.get(), event.flags & EVENT_V6), (17, port, 0));
            assert_eq!(event.source.octets()[..4], friend.v4.octets());
            assert_eq!(event.destination.octets()[..4], server.v4.octets());
        }
        assert_eq!(world.datapath.events(|_| ()), 0, "each is handed over once");
    });
}

#[test]
fn a_flood_of_drops_does_not_hold_up_its_reader() {
    place("events", |place| {
        let (server, stranger) = (place.net.pod().expect("a pod"), place.net.pod().expect("a pod"));
        let mut world = World::new(place);
        world.pod("server", &server);
        world.policy("p", "server", Direction::Ingress, Vec::new());
        world.converge();
        let at = At { ifindex: server.ifindex, ingress_ifindex: stranger.ifindex, mark: 0 };
        let ends = (stranger.v4.octets(), server.v4.octets());
        let frame = udp_frame((server.host_mac, server.mac), ends, (4000, 53));
        // More than the ring has room for.
        for _ in 0..2_000 {
            assert!(!world.datapath.test_run(Direction::Ingress, &frame, at).expect("a test run"));
        }
        let count = world.datapath.events(|_| ());
        assert!((100..2_000).contains(&count), "{count}");
        assert!(!world.datapath.test_run(Direction::Ingress, &frame, at).expect("a test run"));
        assert_eq!(
            world.datapath.events(|event| assert_eq!(event.source_port.get(), 4000)),
            1,
            "there is room again"
        );
    });
}

/// A drop is written down and wakes nobody: who reads looks when it wants to, and a flood of denied packets does not make it
/// run. What waits for the ring is told when it begins to wait, and afterwards when it is woken.
#[test]
fn drops_do_not_wake_a_reader() {
    place("ring", |place| {
        let (server, stranger) = (place.net.pod().expect("a pod"), place.net.pod().expect("a pod"));
        let mut world = World::new(place);
        world.pod("server", &server);
        world.policy("p", "server", Direction::Ingress, Vec::new());
        world.converge();
        let address = server.v4;
        let socket = stranger.namespace.run(|| UdpSocket::bind((stranger.v4, 4000)).expect("a port"));
        let ring = MapData::from_pin(place.pins("maps").join("EVENTS")).expect("a pin");
        let ring = || -> OwnedFd { ring.fd().as_fd().try_clone_to_owned().expect("a descriptor") };
        while world.datapath.events(|_| ()) > 0 {}
        // JUSTIFICATION: tokio has no safe way to wait for a descriptor that it did not open.
        // SAFETY: the descriptor is owned by the value that is returned, and nothing changes it.
        #[expect(unsafe_code, reason = "registers a descriptor with the runtime")]
        let register = |ring| unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let waiting = || register(ring()).expect("a ring can be waited for");
        let is_told = async |at: &AsyncFd<OwnedFd>| {
            tokio::time::timeout(Duration::from_millis(300), at.readable()).await.is_ok()
        };
        runtime().block_on(async {
            let reader = waiting();
            assert!(!is_told(&reader).await, "there is nothing");
            let before = world.count(Reason::DefaultDeny, Direction::Ingress);
            for _ in 0..100 {
                socket.send_to(b"denied", (address, 53)).expect("a route");
            }
            let dropped = || world.count(Reason::DefaultDeny, Direction::Ingress) - before;
            crate::sockets::until("dropped", || dropped() >= 100);
            assert!(!is_told(&reader).await, "drops wake who waits");
            assert!(is_told(&waiting()).await, "who begins to wait is told of them at once");
        });
        let mut ours = 0;
        world.datapath.events(|event| ours += u64::from(event.source_port.get() == 4000));
        assert_eq!(ours, 100, "all of them are there");
    });
}

#[test]
fn connections_of_an_interface_that_is_gone_are_swept() {
    place("sweep", |place| {
        let (server, friend) = (place.net.pod().expect("a pod"), place.net.pod().expect("a pod"));
        let mut world = World::new(place);
        world.pod("server", &server);
        world.pod("friend", &friend);
        world.converge();
        for family in 0..2 {
            let (at, from) = (server.addresses()[family], friend.addresses()[family]);
            // The opener's second packet after an answer makes it last.
            let bind = |pod: &cellwall_testkit::net::Pod, address: IpAddr| {
                let socket = pod.namespace.run(|| UdpSocket::bind((address, 0)).expect("a port"));
                socket.set_read_timeout(Some(SOON)).expect("a socket");
                socket
            };
            let (asked, asking) = (bind(&server, at), bind(&friend, from));
            for _ in 0..2 {
                asking.send_to(b"ask", asked.local_addr().expect("bound")).expect("a route");
                let (_, who) = asked.recv_from(&mut [0; 8]).expect("allowed");
                asked.send_to(b"answer", who).expect("a route");
                asking.recv(&mut [0; 8]).expect("an answer");
            }
        }
        let flows = |world: &mut World| {
            let all = world.datapath.usage().expect("tables");
            ["FLOWS4", "FLOWS6"]
                .map(|name| all.iter().find(|usage| usage.table == name).map(|usage| usage.used))
        };
        assert_eq!(world.datapath.sweep().expect("tables"), 0, "live connections stay");
        assert_eq!(flows(&mut world), [Some(2), Some(2)], "each connection once at either pod");
        place.net.remove(friend).expect("it was there");
        // The kernel takes an interface down before it is gone.
        let deadline = Instant::now() + SOON;
        let mut swept = 0;
        while swept < 2 && Instant::now() < deadline {
            swept += world.datapath.sweep().expect("tables");
        }
        assert_eq!((swept, flows(&mut world)), (2, [Some(1), Some(1)]));
    });
}
