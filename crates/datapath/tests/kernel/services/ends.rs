//! Both ends of what a Service leads to, what another node translates, and SCTP.

use std::io::ErrorKind;
use std::net::SocketAddr;

use cellwall_abi::{Direction, Reason};
use cellwall_policy::flow::Protocol;
use cellwall_testkit::net::Pod;

use super::{
    ASKED, OTHER_PORT, PORT, SHORT, Scene, Talk, announced, echo_everywhere, nft, on_every_node, until,
    virtual_address,
};
use crate::raw::{self, Raw};
use crate::world::{allow, block, pods};

const PORTS: [(Protocol, u16); 2] = [(Protocol::TCP, PORT), (Protocol::UDP, PORT)];
const SCTP: u32 = 132;

impl Scene {
    /// Whoever asks is kept out by policy of this direction.
    fn assert_refused(&self, from: &Pod, to: SocketAddr, direction: Direction) {
        let count = || {
            [Reason::DefaultDeny, Reason::Revoked]
                .map(|reason| self.world.count(reason, direction))
                .iter()
                .sum()
        };
        let before: u64 = count();
        let refused = Talk::tcp(from, to, SHORT).err().map(|error| error.kind());
        assert_eq!(refused, Some(ErrorKind::TimedOut), "{to}");
        assert!(count() > before, "{to}: {direction:?}");
        let before = count();
        Talk::udp(from, to).assert_silent(|| count() > before);
    }

    /// The backend lets in whom a policy names, and nobody else.
    fn backend_admits(&mut self, name: &str) {
        let rules = vec![allow(vec![pods(name)], &PORTS)];
        self.world.policy("admits", "backend", Direction::Ingress, rules);
        self.world.converge();
    }
}

/// The client is judged on the backend, and the backend's own policy on the client, by name; the source is the node's own where
/// it is masqueraded, and then the name is lost, as it is for whoever enforces at the backend.
#[test]
fn behind_a_service_each_end_is_judged_on_the_other() {
    on_every_node("svcends", |place, scene| {
        echo_everywhere(scene);
        for family in [0, 1] {
            let backend = scene.backend.addresses()[family];
            for &masquerade in scene.masquerading {
                let at = virtual_address(if masquerade { 10 } else { 1 }, backend);
                announced(place, scene, at, (backend, PORT).into(), masquerade);
                scene.backend_admits("client");
                if masquerade {
                    scene.assert_refused(&scene.client, at, Direction::Ingress);
                    continue;
                }
                scene.assert_reached(at);
                scene.assert_refused(&scene.stranger, at, Direction::Ingress);
                // Neither end lets in for the other.
                scene.backend_admits("stranger");
                scene.assert_refused(&scene.client, at, Direction::Ingress);
                scene.backend_admits("client");
                scene.world.policy("out", "client", Direction::Egress, Vec::new());
                scene.world.converge();
                scene.assert_denied(at);
                scene.may(Vec::new());
                scene.assert_reached(at);
            }
        }
    });
}

/// Another node leads two of its ports to who listens there at a third. What a pod sends to one of them is judged on that node's
/// address and on that port; what this node leads there, on where it leads.
#[test]
fn what_another_node_translates_is_judged_on_the_address_that_was_asked() {
    const ALLOWED: u16 = 30_080;
    const DENIED: u16 = 30_081;
    on_every_node("svcfar", |place, scene| {
        echo_everywhere(scene);
        let nodes = [block("192.0.2.1/32"), block("2001:db8::1/128")];
        scene.may(vec![allow(nodes.to_vec(), &[(Protocol::TCP, ALLOWED), (Protocol::UDP, ALLOWED)])]);
        for (family, far) in scene.outside.addresses().into_iter().enumerate() {
            let table = ["ip", "ip6"][family];
            let ports = format!(
                "add table {table} cellwall-far
                add chain {table} cellwall-far ports {{ type nat hook prerouting priority -100; }}
                add rule {table} cellwall-far ports meta l4proto {{ tcp, udp }} th dport {{ {ALLOWED}, {DENIED} }} redirect to :{PORT}"
            );
            scene.outside.namespace.run(|| nft(&ports));
            scene.assert_reached((far, ALLOWED).into());
            for port in [DENIED, PORT] {
                scene.assert_denied((far, port).into());
            }
            for &masquerade in scene.masquerading {
                let n = if masquerade { 10 } else { 1 };
                let at = virtual_address(n, far);
                announced(place, scene, at, (far, ALLOWED).into(), masquerade);
                scene.assert_reached(at);
                let at = virtual_address(n + 1, far);
                announced(place, scene, at, (far, PORT).into(), masquerade);
                scene.assert_denied(at);
            }
        }
    });
}

/// What answers an INIT with this tag.
fn init_ack(from: u16, tag: u8) -> Vec<u8> {
    let mut packet = raw::sctp_init(40_000, 9);
    packet[..2].copy_from_slice(&from.to_be_bytes());
    packet[7] = tag;
    packet[12] = 2;
    packet
}

/// Ports and kind of chunk of an SCTP packet, whose checksum the node has made anew.
fn is_sctp(packet: &[u8], ports: [u16; 2], chunk: u8) -> bool {
    packet.get(..4) == Some(&ports.map(u16::to_be_bytes).concat()[..]) && packet.get(12) == Some(&chunk)
}

/// The first two packets of an association, by raw sockets: few kernels have SCTP, and all that translate know it.
#[test]
fn an_association_to_a_service_is_judged_on_its_backend() {
    on_every_node("svcsctp", |place, scene| {
        scene.may(vec![allow(vec![pods("backend")], &[(Protocol::SCTP, PORT)])]);
        for family in [0, 1] {
            let raw = |pod: &Pod| Raw::new(pod, pod.addresses()[family], SCTP);
            let at = [&scene.client, &scene.backend, &scene.stranger].map(raw);
            let [at_client, at_backend, at_stranger] = at;
            let [own, backend, stranger] =
                [&scene.client, &scene.backend, &scene.stranger].map(|pod| pod.addresses()[family]);
            for &masquerade in scene.masquerading {
                let n = if masquerade { 10 } else { 1 };
                let good = virtual_address(n, backend);
                announced(place, scene, good, (backend, PORT).into(), masquerade);
                // Else what raw sockets send is not tracked, for its checksum.
                place.net.host.sysctl("netfilter/nf_conntrack_checksum", "0").expect("a setting");
                let before = scene.world.drops();
                at_client.send(good.ip(), &raw::sctp_init(ASKED, n));
                until("there", || at_backend.received(|packet| is_sctp(packet, [40_000, PORT], 1)));
                // Masqueraded, it is the node that asked.
                let asked: std::net::IpAddr = match (masquerade, family) {
                    (false, _) => own,
                    (true, 0) => cellwall_testkit::net::GATEWAY4.into(),
                    (true, _) => cellwall_testkit::net::GATEWAY6.into(),
                };
                at_backend.send(asked, &init_ack(PORT, n));
                until("answered", || at_client.received(|packet| is_sctp(packet, [ASKED, 40_000], 2)));
                assert_eq!(scene.world.drops(), before, "{:?}", scene.dropped());
                for (n, to) in (n + 1..).zip([(backend, OTHER_PORT), (stranger, PORT)]) {
                    let bad = virtual_address(n, backend);
                    announced(place, scene, bad, to.into(), masquerade);
                    let before = scene.egress_drops();
                    at_client.send(bad.ip(), &raw::sctp_init(ASKED, n));
                    until("dropped", || scene.egress_drops() > before);
                }
                assert!(at_backend.is_silent() && at_stranger.is_silent());
            }
        }
    });
}
