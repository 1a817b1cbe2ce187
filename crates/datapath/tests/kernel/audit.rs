//! Audit: what policy denies is told and passes, for those who are audited and for as long.

use std::net::UdpSocket;

use cellwall_abi::{Direction, EVENT_AUDIT, Reason};
use cellwall_datapath::At;
use cellwall_testkit::net::Pod;

use crate::flows::udp_frame;
use crate::place::{Place, place};
use crate::sockets::{bind, is_silent, until};
use crate::world::World;

const PORT: u16 = 8080;
const UDP: u8 = 17;

/// What the programs have told since it was asked: of UDP the reason, the interface, and whether the packet passed.
fn told(world: &mut World) -> Vec<(Reason, u32, bool)> {
    let mut told = Vec::new();
    while world.datapath.events(|event| {
        if event.protocol == UDP {
            let reason = Reason::from_number(event.reason).expect("a reason");
            told.push((reason, event.ifindex, event.flags & EVENT_AUDIT != 0));
        }
    }) > 0
    {}
    told
}

/// Two pods that are isolated in both directions.
struct Scene {
    world: World,
    pods: [Pod; 2],
}

fn scene(place: &mut Place) -> Scene {
    let pods = [(); 2].map(|()| place.net.pod().expect("a pod"));
    let mut world = World::new(place);
    for (name, pod) in ["one", "other"].into_iter().zip(&pods) {
        world.pod(name, pod);
        world.policy(name, name, Direction::Ingress, Vec::new());
    }
    world.converge();
    told(&mut world);
    Scene { world, pods }
}

impl Scene {
    fn count(&self, reason: Reason) -> u64 {
        self.world.count(reason, Direction::Ingress)
    }

    /// A datagram arrives, and is told as audited; it is counted with its reason.
    fn passes_and_is_told(&mut self, sender: &UdpSocket, receiver: &UdpSocket, at: u32) {
        let before = self.count(Reason::DefaultDeny);
        sender.send_to(b"audit", receiver.local_addr().expect("bound")).expect("a route");
        let from = receiver.recv_from(&mut [0; 8]).expect("what is audited arrives").1;
        assert_eq!(from, sender.local_addr().expect("bound"));
        assert_eq!(self.count(Reason::DefaultDeny), before + 1);
        assert_eq!(told(&mut self.world), [(Reason::DefaultDeny, at, true)]);
    }

    /// A datagram is dropped, counted with its reason, and told as dropped.
    fn is_dropped(&mut self, sender: &UdpSocket, receiver: &UdpSocket, at: u32, reason: Reason) {
        let before = self.count(reason);
        sender.send_to(b"audit", receiver.local_addr().expect("bound")).expect("a route");
        until("dropped", || self.count(reason) > before);
        assert!(is_silent(receiver), "what was dropped does not arrive");
        assert_eq!(told(&mut self.world), [(reason, at, false)]);
    }
}

#[test]
fn what_is_denied_to_an_audited_pod_passes_and_is_told_until_it_is_enforced() {
    place("audit", |place| {
        let mut scene = scene(place);
        for family in 0..2 {
            let [one, other] = scene.pods.each_ref().map(|pod| (pod.ifindex, pod.addresses()[family]));
            let [at_one, at_other] =
                [0, 1].map(|pod| bind(&scene.pods[pod], scene.pods[pod].addresses()[family], PORT));
            let new =
                |pod: usize, scene: &Scene| bind(&scene.pods[pod], scene.pods[pod].addresses()[family], 0);
            let (from_other, from_one) = (new(1, &scene), new(0, &scene));
            scene.is_dropped(&new(1, &scene), &at_one, one.0, Reason::DefaultDeny);

            scene.world.audited("one", &scene.pods[0]);
            scene.world.converge();
            scene.passes_and_is_told(&from_other, &at_one, one.0);
            scene.is_dropped(&from_one, &at_other, other.0, Reason::DefaultDeny);

            scene.world.pod("one", &scene.pods[0]);
            scene.world.converge();
            // The connection that only audit let in ends, and no other begins.
            scene.is_dropped(&from_other, &at_one, one.0, Reason::Revoked);
            scene.is_dropped(&new(1, &scene), &at_one, one.0, Reason::DefaultDeny);
        }
        scene.world.assert_no_drift();
    });
}

/// Audit lifts policies: what keeps a pod from speaking for another stands, and so does what is no known pod's.
#[test]
fn an_audited_node_drops_what_no_policy_decides() {
    place("audit", |place| {
        let Scene { mut world, pods: [one, other] } = scene(place);
        let [inside, lo] = [one.ifindex, 1];
        let from_one = |source: [u8; 4], port| {
            udp_frame((one.mac, one.host_mac), (source, other.v4.octets()), (4000, port))
        };
        let spoofed = from_one(other.v4.octets(), PORT);
        let forged = |world: &World, frame: &[u8]| {
            let at = At { ifindex: inside, ingress_ifindex: inside, mark: 0 };
            world.datapath.test_run(Direction::Egress, frame, at).expect("a test run")
        };
        let stamped = |world: &World| {
            let at = At { ifindex: lo, ingress_ifindex: lo, mark: place.settings.mark };
            world.datapath.test_run_node(&from_one(one.v4.octets(), PORT), at).expect("a test run")
        };
        for audit in [true, false] {
            world.audit_all(audit);
            world.converge();
            told(&mut world);
            let before = [Reason::Spoofed, Reason::StampUnknown].map(|r| world.count(r, Direction::Egress));
            assert_eq!((forged(&world, &spoofed), stamped(&world)), (false, false), "audited: {audit}");
            let after = [Reason::Spoofed, Reason::StampUnknown].map(|r| world.count(r, Direction::Egress));
            assert_eq!(after, before.map(|count| count + 1));
            assert_eq!(
                told(&mut world),
                [(Reason::Spoofed, inside, false), (Reason::StampUnknown, lo, false)]
            );
        }
    });
}
