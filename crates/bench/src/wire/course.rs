//! A way to a pod: client namespace, node namespace that forwards, pod namespace; and one filter on it.
//!
//! Whatever happens to a frame on the way (two veths, forwarding, the filter, and being dropped in the pod) happens on
//! the thread that sent it, so that thread's clock has all of it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use aya::programs::TcAttachType;
use aya::{Ebpf, EbpfLoader};
use cellwall_abi::{Bucket, Mac, tables};
use cellwall_datapath::Settings;
use cellwall_testkit::net::{Net, Pod};
use etherparse::PacketBuilder;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketType, connect, socket};

use crate::driver::{FloorFlow, OBJECT, map, program};
use crate::objects::{self, NODE, Peers, peer4};
use crate::rows::{self, Rows};
use crate::world::World;

use super::filters::Filter;
use super::packet_socket::PacketSocket;

/// The port that is open.
pub(crate) const PORT: u16 = 80;

/// A client, a node and a pod.
pub(crate) struct Course {
    pub(crate) filter: Filter,
    pub(crate) rules: u32,
    client: Pod,
    pod: Pod,
    to_pod: PacketSocket,
    from_pod: PacketSocket,
    listener: TcpListener,
    world: Option<World>,
    /// What is attached ends with its object.
    _attached: Vec<Ebpf>,
    _net: Net,
}

/// Where a series of frames differs from another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Series {
    pub(crate) flows: u32,
    pub(crate) first_port: u16,
    pub(crate) first_peer: u32,
    /// Where among the peers the first flow comes from.
    pub(crate) offset: u32,
}

/// The series of what is established.
pub(crate) const KNOWN: Series = Series { flows: 1000, first_port: 1000, first_peer: 0, offset: 0 };

impl Series {
    /// Where a flow comes from, of so many peers: from all over them, or a filter that walks its list would meet the front
    /// of it alone.
    fn peer(&self, flow: u32, peers: u32) -> [u8; 4] {
        let stride = (peers / self.flows).max(1);
        peer4(self.first_peer + (flow * stride + self.offset) % peers).octets()
    }

    fn port(&self, flow: u32) -> u16 {
        self.first_port.wrapping_add(u16::try_from(flow).expect("flows are few"))
    }
}

impl Course {
    /// Makes the namespaces and sets the filter up. Moves this thread into the node's namespace.
    pub(crate) fn new(filter: Filter, rules: u32, settings: &Settings) -> Result<Self> {
        let mut net = Net::new("bench")?;
        for knob in ["all", "default"] {
            net.host.sysctl(&format!("ipv4/conf/{knob}/rp_filter"), "0")?;
        }
        let (client, pod) = (net.outside()?, net.pod()?);
        net.host.ip(&[&format!("route add 10.0.0.0/8 via {} dev {} onlink", client.v4, client.interface)])?;
        pod.namespace.enter()?;
        let mut attached = vec![attach("sink", "eth0", &[TcAttachType::Ingress])?];
        net.host.enter()?;
        // A new interface solicits routers and reports its groups for some seconds, and `received` counts every frame.
        for namespace in [&net.host, &client.namespace, &pod.namespace] {
            namespace.sysctl("ipv6/conf/all/disable_ipv6", "1")?;
        }
        if filter == Filter::EmptyTcx {
            attached.push(attach("empty", &pod.interface, &[TcAttachType::Ingress, TcAttachType::Egress])?);
        }
        if filter == Filter::LeanEst {
            let mut object = attach("lean_est", &pod.interface, &[TcAttachType::Egress])?;
            let mut flows: Rows<20, 8> = map(&mut object, "FLOWS")?.try_into()?;
            for flow in 0..KNOWN.flows {
                let key = FloorFlow {
                    source: u32::from_ne_bytes(KNOWN.peer(flow, rules)),
                    destination: u32::from_ne_bytes(pod.v4.octets()),
                    ports: u32::from(KNOWN.port(flow).to_be()) << 16 | u32::from(PORT.to_be()),
                    ifindex: pod.ifindex,
                    protocol: 17,
                };
                flows.insert(key.bytes(), [0; 8], 0)?;
            }
            attached.push(object);
        }
        // The client itself in the middle, where a list is half as long as it is.
        let mut peers: Vec<Ipv4Addr> = (0..rules).map(peer4).collect();
        peers.insert(peers.len() / 2, client.v4);
        filter.set_up(&net.host, pod.v4, &peers, PORT)?;
        let mut course = Self {
            filter,
            rules,
            to_pod: PacketSocket::open(&client.namespace, "eth0")?,
            from_pod: PacketSocket::open(&pod.namespace, "eth0")?,
            listener: pod.namespace.run(|| TcpListener::bind((pod.v4, PORT)))?,
            world: None,
            _attached: attached,
            client,
            pod,
            _net: net,
        };
        if filter == Filter::Cellwall {
            course.enforce(settings)?;
        }
        Ok(course)
    }

    fn enforce(&mut self, settings: &Settings) -> Result<()> {
        let pin_name = format!("{}-{}", settings.pin_name, self.rules);
        let mut world = World::open(Settings { pin_name, ..settings.clone() })?;
        world.tell(objects::namespace())?;
        world.tell(objects::pod("isolated", "isolated", NODE, &self.pod.addresses()))?;
        world.link(self.pod.ifindex, &self.pod.addresses(), Mac::from_octets(self.pod.mac));
        let own = format!("{}/32", self.client.v4);
        world.tell(objects::one_port("measured", "isolated", Peers::Blocks4(self.rules), &own, PORT))?;
        world.converge()?;
        world.datapath.attach(self.pod.ifindex)?;
        self.world = Some(world);
        Ok(())
    }

    /// As if the pod had added no connection for a while.
    pub(crate) fn refill(&self) -> Result<()> {
        let Some(world) = &self.world else { return Ok(()) };
        let map = rows::open(&world.settings.folder().join("maps").join(tables::BUCKETS.name))?;
        let mut buckets: aya::maps::Array<_, [u8; size_of::<Bucket>()]> = map.try_into()?;
        let bucket: [u8; size_of::<Bucket>()] =
            zerocopy::transmute!(Bucket::full(cellwall_datapath::now_tick()));
        Ok(buckets.set(world.slot(self.pod.ifindex)?, bucket, 0)?)
    }

    /// Takes the events, as the agent does when it polls.
    pub(crate) fn drain(&mut self) {
        if let Some(world) = &mut self.world {
            while world.datapath.events(|_| {}) > 0 {}
        }
    }

    /// The frames of a series, 60 bytes each, to the pod or as it would answer.
    pub(crate) fn frames(&self, series: &Series, to_pod: bool) -> Vec<Vec<u8>> {
        let frame = |flow: u32| {
            let (peer, port) = (series.peer(flow, self.rules), series.port(flow));
            let from = if to_pod { &self.client } else { &self.pod };
            let ends = if to_pod { (peer, self.pod.v4.octets()) } else { (self.pod.v4.octets(), peer) };
            let ports = if to_pod { (port, PORT) } else { (PORT, port) };
            let mut bytes = Vec::with_capacity(60);
            PacketBuilder::ethernet2(from.mac, from.host_mac)
                .ipv4(ends.0, ends.1, 64)
                .udp(ports.0, ports.1)
                .write(&mut bytes, &[0; 18])
                .expect("writing to memory");
            bytes
        };
        (0..series.flows).map(frame).collect()
    }

    pub(crate) fn send(&self, frames: &[Vec<u8>], to_pod: bool) -> Result<()> {
        let socket = if to_pod { &self.to_pod } else { &self.from_pod };
        frames.iter().try_for_each(|frame| socket.send(frame))
    }

    /// Frames that reached the pod, whatever they carry.
    pub(crate) fn received(&self) -> Result<u64> {
        let text = self.pod.namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
        let packets = line.and_then(|line| line.split_whitespace().nth(1)).context("eth0 has no counters")?;
        Ok(packets.parse()?)
    }

    /// Sockets of the client, to be connected by this thread, whose clock counts.
    pub(crate) fn sockets(&self, count: u32) -> Result<Vec<OwnedFd>> {
        let sockets = self.client.namespace.run(|| {
            (0..count)
                .map(|_| socket(AddressFamily::INET, SocketType::STREAM, None))
                .collect::<Result<_, _>>()
        });
        Ok(sockets?)
    }

    /// Connects a socket of the client with the pod; both ends.
    pub(crate) fn connect(&self, socket: OwnedFd) -> Result<(TcpStream, TcpStream)> {
        connect(&socket, &SocketAddr::from((self.pod.v4, PORT)))?;
        let (near, far) = (TcpStream::from(socket), self.listener.accept()?.0);
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        Ok((near, far))
    }
}

/// Loads the floors' object once more and puts a program of it on an interface of this thread's namespace, by tcx.
fn attach(name: &str, interface: &str, at: &[TcAttachType]) -> Result<Ebpf> {
    let mut object = EbpfLoader::new().load(OBJECT)?;
    let program = program(&mut object, name)?;
    program.load()?;
    for at in at {
        program.attach(interface, *at)?;
    }
    Ok(object)
}

/// One byte there and back.
pub(crate) fn ping_pong((near, far): &mut (TcpStream, TcpStream)) -> Result<()> {
    let mut byte = [0];
    near.write_all(&[1])?;
    far.read_exact(&mut byte)?;
    far.write_all(&byte)?;
    near.read_exact(&mut byte)?;
    Ok(())
}

/// Ends a connection by a reset: no port waits for its time to pass.
pub(crate) fn reset((near, far): (TcpStream, TcpStream)) -> Result<()> {
    set_socket_linger(&near, Some(std::time::Duration::ZERO))?;
    drop(near);
    drop(far);
    Ok(())
}
