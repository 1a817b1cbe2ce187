//! Row B4 of docs/robustness.md: what one pod may take of the tables that all share, as the programs count it. Frames
//! through `BPF_PROG_TEST_RUN`, since a bound of a tick needs thousands of them in one.

use cellwall_abi::{Bucket, Direction};
use cellwall_datapath::At;
use cellwall_policy::flow::Protocol;
use cellwall_testkit::net::Pod;

use crate::flows::udp_frame;
use crate::place::{Place, place};
use crate::world::{World, allow, pods};

/// A server that may ask nobody, and who may ask it; each behind an interface of its own.
struct Scene {
    world: World,
    server: Pod,
    client: Pod,
}

fn scene(place: &mut Place) -> Scene {
    let [server, client] = [(); 2].map(|()| place.net.pod().expect("a pod"));
    let mut world = World::new(place);
    world.pod("server", &server);
    world.pod("client", &client);
    let rules = vec![allow(vec![pods("client")], &[(Protocol::UDP, 53)])];
    world.policy("in", "server", Direction::Ingress, rules);
    world.policy("out", "server", Direction::Egress, Vec::new());
    world.converge();
    Scene { world, server, client }
}

impl Scene {
    /// A question arrives; true when it passes.
    fn ask(&self, port: u16) -> bool {
        let Self { world, server, client } = self;
        let ends = (client.v4.octets(), server.v4.octets());
        let frame = udp_frame((server.host_mac, server.mac), ends, (port, 53));
        let at = At { ifindex: server.ifindex, ingress_ifindex: client.ifindex, mark: 0 };
        world.datapath.test_run(Direction::Ingress, &frame, at).expect("a test run")
    }

    /// Its answer leaves; true when it passes.
    fn answer(&self, port: u16) -> bool {
        let Self { world, server, client } = self;
        let ends = (server.v4.octets(), client.v4.octets());
        let frame = udp_frame((server.mac, server.host_mac), ends, (53, port));
        let at = At { ifindex: server.ifindex, ingress_ifindex: server.ifindex, mark: 0 };
        world.datapath.test_run(Direction::Egress, &frame, at).expect("a test run")
    }

    /// A conversation: its second question makes it one that lasts.
    fn talk(&self, port: u16) {
        assert!(self.ask(port));
        assert!(self.answer(port), "port {port}");
        assert!(self.ask(port));
    }

    /// Answered connections of IPv4, as of this sweep.
    fn flows(&mut self) -> u64 {
        self.world.datapath.sweep().expect("tables");
        let usage = self.world.datapath.usage().expect("tables");
        usage.iter().find(|usage| usage.table == "FLOWS4").expect("it is counted").used
    }
}

fn ports(first: u16, count: u32) -> std::ops::Range<u16> {
    first..first + u16::try_from(count).expect("a port")
}

#[test]
fn questions_that_are_answered_are_no_flood() {
    place("answers", |place| {
        let scene = scene(place);
        assert!(!scene.answer(9), "nobody asked");
        for port in ports(1, 2 * Bucket::UNANSWERED) {
            assert!(scene.ask(port));
            assert!(scene.answer(port), "question {port}");
        }
        // Not answered they are: more than a tick has room for, and more than three of them on a machine that is slow.
        let asked = ports(10_000, 12 * Bucket::UNANSWERED);
        for port in asked.clone() {
            assert!(scene.ask(port), "by policy");
        }
        let lost = asked.filter(|port| !scene.answer(*port)).count();
        assert!(lost > 0, "a flood has no end");
        println!("{lost} of {} that came at once left no entry", 12 * Bucket::UNANSWERED);
    });
}

#[test]
fn nobody_holds_more_answered_connections_than_are_free() {
    const ROWS: u32 = 1024;
    place("shares", |place| {
        place.settings.flows = ROWS;
        let mut scene = scene(place);
        // Nobody has counted yet: there is nothing that keeps it from more than a half.
        for port in ports(1, 600) {
            scene.talk(port);
        }
        assert_eq!(scene.flows(), 600);
        for port in ports(1_000, 100) {
            scene.talk(port);
        }
        assert_eq!(scene.flows(), 600, "it has counted, and there are no more for this pod");
        // The other end of all this has its own.
        let Scene { world, server, client } = &scene;
        let at = At { ifindex: client.ifindex, ingress_ifindex: client.ifindex, mark: 0 };
        let to = At { ifindex: client.ifindex, ingress_ifindex: server.ifindex, mark: 0 };
        let (own, theirs) = (client.v4.octets(), server.v4.octets());
        for port in ports(1, 300) {
            let out = udp_frame((client.mac, client.host_mac), (own, theirs), (port, 53));
            let back = udp_frame((client.host_mac, client.mac), (theirs, own), (53, port));
            for (frame, direction, at) in [
                (&out, Direction::Egress, at),
                (&back, Direction::Ingress, to),
                (&out, Direction::Egress, at),
            ] {
                assert!(world.datapath.test_run(direction, frame, at).expect("a test run"));
            }
        }
        let both = scene.flows();
        // An eighth of the 424 that were free.
        assert_eq!(both, 600 + 53, "the client's own share");
    });
}
