//! A bridge with two ports: the pod behind one of them, everybody else behind the other.
//!
//! ```text
//!  pod namespace            node                      the world
//!  eth0 ── veth ── cwpod ─ bridge ─ cwworld ── veth ── eth0
//!                  └ programs
//! ```
//!
//! Frames cross a bridge as they are, so nobody between an attacker and the programs corrects anything. The bridge
//! learns nothing and floods, so that forged senders move nobody.

use std::time::{Duration, Instant};

use cellwall_datapath::Datapath;
use cellwall_policy::flow::Direction;
use cellwall_testkit::fuzz::Place;
use cellwall_testkit::net::{Namespace, PacketSocket};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::programs::{datapath, settings};
use super::scene::{REMOTES, cluster_at, place};
use super::sockets::Sockets;

/// Longer than any queue needs; only a hang reaches it.
const SOON: Duration = Duration::from_secs(20);

/// One end of the wire.
pub(crate) struct End {
    pub(crate) tap: PacketSocket,
    pub(crate) sockets: Sockets,
    pub(crate) mac: [u8; 6],
    /// Holds the namespace.
    namespace: Namespace,
}

/// The pod, the world, and what is between.
pub(crate) struct Rig {
    pub(crate) pod: End,
    pub(crate) world: End,
    pub(crate) place: Place,
    pub(crate) datapath: Datapath,
    /// Index of the host side of the pod's interface.
    pub(crate) ifindex: u32,
    batches: u32,
    _node: Namespace,
}

impl Rig {
    /// Moves this thread onto the node. Without policies nothing isolates the pod.
    pub(crate) fn new(with_policies: bool) -> Self {
        // What one CPU sends, it delivers: in order, and before it goes on.
        let mut one = CpuSet::new();
        one.set(rustix::thread::sched_getcpu());
        sched_setaffinity(None, &one).expect("a CPU of this machine");
        let node = Namespace::new().expect("root");
        node.sysctl("ipv6/conf/default/disable_ipv6", "1").expect("a kernel with IPv6");
        // Where bridges ask netfilter, it trims, defragments and drops before the programs see a frame.
        for family in ["iptables", "ip6tables", "arptables"] {
            let _ = node.sysctl(&format!("bridge/bridge-nf-call-{family}"), "0");
        }
        node.ip(&["link add cwbridge type bridge mcast_snooping 0", "link set cwbridge up"])
            .expect("a bridge");
        let own = [["10.244.0.11", "fd00:244::11"].map(str::to_owned).to_vec()].concat();
        let pod = end(&node, "cwpod", &own);
        let world =
            end(&node, "cwworld", &REMOTES.concat().into_iter().map(str::to_owned).collect::<Vec<_>>());
        let ifindex = node.ifindex("cwpod").expect("it is there");
        node.enter().expect("it is alive");
        let datapath = datapath(&cluster_at(ifindex, pod.mac, with_policies), &settings("veth"));
        datapath.attach(ifindex).expect("an interface");
        let place = place(pod.mac, world.mac);
        let mut rig = Self { pod, world, place, datapath, ifindex, batches: 0, _node: node };
        // What arrived before the programs were there is nobody's affair.
        for direction in Direction::ALL {
            rig.send(direction, &[]);
            drop(rig.ends(direction).1.sockets.delivered());
        }
        rig
    }

    fn ends(&self, direction: Direction) -> (&End, &End) {
        match direction {
            Direction::Ingress => (&self.world, &self.pod),
            Direction::Egress => (&self.pod, &self.world),
        }
    }

    /// Sends frames through the hook of a direction and returns those that arrived, in order.
    pub(crate) fn send(&mut self, direction: Direction, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.batches += 1;
        let last = self.last(direction);
        let (from, to) = self.ends(direction);
        for frame in frames.iter().chain([&last]) {
            from.tap.send(frame).expect("room in the queue");
        }
        let mut arrived = Vec::new();
        let mut buffer = [0; 2048];
        let start = Instant::now();
        loop {
            match to.tap.receive(&mut buffer) {
                Some(frame) if frame == last => return arrived,
                Some(frame) => arrived.push(frame.to_vec()),
                None => assert!(start.elapsed() < SOON, "the last frame has not arrived"),
            }
        }
    }

    /// ARP of the sender about itself, which always passes, with the number of the batch as its target.
    fn last(&self, direction: Direction) -> Vec<u8> {
        let mac = self.ends(direction).0.mac;
        let mut bytes = [[0xff; 6], mac].concat();
        bytes.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
        bytes.extend(mac);
        bytes.extend(if direction == Direction::Egress { [10, 244, 0, 11] } else { [198, 51, 100, 7] });
        bytes.extend([0x77; 6]);
        bytes.extend(self.batches.to_be_bytes());
        bytes
    }
}

fn end(node: &Namespace, port: &str, addresses: &[String]) -> End {
    let namespace = Namespace::new().expect("root");
    namespace.sysctl("ipv6/conf/default/accept_dad", "0").expect("a kernel with IPv6");
    // What it is told about routes and routers is none of its business.
    namespace.sysctl("ipv6/conf/default/accept_ra", "0").expect("a kernel with IPv6");
    // Of a denied datagram whose fragments come in reverse it keeps what it can never put together, and takes no other once
    // that is too much.
    for (name, value) in [
        ("ipv4/ipfrag_high_thresh", "1000000000"),
        ("ipv6/ip6frag_high_thresh", "1000000000"),
        ("ipv4/ipfrag_time", "3"),
        ("ipv6/ip6frag_time", "3"),
    ] {
        namespace.sysctl(name, value).expect("root sets it");
    }
    node.ip(&[
        &format!("link add {port} type veth peer name eth0 netns {}", namespace.path()),
        &format!("link set {port} master cwbridge"),
        &format!("link set {port} type bridge_slave learning off"),
        &format!("link set {port} up"),
    ])
    .expect("a port");
    let mut commands = vec!["link set lo up".to_owned()];
    for address in addresses {
        let (bits, more) = if address.contains(':') { (128, " nodad") } else { (32, "") };
        commands.push(format!("address add {address}/{bits} dev eth0{more}"));
    }
    commands.extend(
        ["link set eth0 up", "route add default dev eth0", "route add ::/0 dev eth0"].map(str::to_owned),
    );
    namespace.ip(&commands.iter().map(String::as_str).collect::<Vec<_>>()).expect("addresses");
    let mac = namespace.mac("eth0").expect("an interface");
    let tap = PacketSocket::open(&namespace, "eth0").expect("a packet socket");
    let sockets = Sockets::open(&namespace, addresses);
    End { tap, sockets, mac, namespace }
}

impl End {
    /// The namespace of this end.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}
