//! A node with two pods, one that policies isolate and one that none does, and everything that packets are sent
//! through.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use cellwall_abi::{Bucket, Conn, Event, Mac, tables};
use cellwall_datapath::{Settings, now_tick};
use cellwall_policy::flow::{Direction, Flow, Protocol};
use cellwall_testkit::frame::{POD_MAC, segment};
use cellwall_testkit::net::Namespace;

use crate::driver::{Driver, Template};
use crate::executed::Machine;
use crate::objects::{self, NODE, Peers, peer4, peer6};
use crate::rows::{self, Rows, clear};
use crate::world::{Took, World};

/// Interface through which peers come.
pub(crate) const UPLINK: u32 = 100;
/// The first port that policies allow.
pub(crate) const FIRST_PORT: u16 = 1000;

/// A pod of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// By policies, in both directions.
    Isolated,
    /// By none.
    Open,
    /// By policies that change.
    Other,
}

impl Target {
    pub(crate) const fn ifindex(self) -> u32 {
        UPLINK + 1 + self as u32
    }

    /// Name of the pod, and its label.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::Open => "open",
            Self::Other => "other",
        }
    }

    pub(crate) fn addresses(self) -> [IpAddr; 2] {
        let n = self.ifindex();
        let last = u8::try_from(n).expect("interfaces are few");
        let v6 = Ipv6Addr::from(0xfd00_0000_u128 << 96 | u128::from(n));
        [Ipv4Addr::new(172, 16, 0, last).into(), v6.into()]
    }
}

/// Everything that packets are sent through.
pub(crate) struct Rig {
    pub(crate) world: World,
    pub(crate) driver: Driver,
    pub(crate) machine: Machine,
    peer_pods: u32,
    buckets: aya::maps::Array<aya::maps::MapData, [u8; size_of::<Bucket>()]>,
    pending: [Connections; 2],
    flows: [Connections; 2],
}

/// Connections of a family.
enum Connections {
    V4(Rows<20, { size_of::<Conn>() }>),
    V6(Rows<44, { size_of::<Conn>() }>),
}

impl Connections {
    fn clear(&mut self) -> Result<usize> {
        match self {
            Self::V4(rows) => clear(rows),
            Self::V6(rows) => clear(rows),
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::V4(rows) => rows.keys().flatten().count(),
            Self::V6(rows) => rows.keys().flatten().count(),
        }
    }
}

/// The interfaces of the node.
pub(crate) fn namespace() -> Result<Namespace> {
    let namespace = Namespace::new()?;
    let commands: Vec<String> =
        (UPLINK..UPLINK + 4).map(|n| format!("link add cw{n} index {n} type bridge")).collect();
    namespace.ip(&commands.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(namespace)
}

impl Rig {
    /// Opens a data path of default sizes in `settings`, and tells it of the pods.
    pub(crate) fn open(settings: Settings) -> Result<Self> {
        let pins = settings.folder();
        let mut world = World::open(settings)?;
        world.tell(objects::namespace())?;
        for target in [Target::Isolated, Target::Open, Target::Other] {
            let name = target.name();
            world.tell(objects::pod(name, name, NODE, &target.addresses()))?;
            world.link(target.ifindex(), &target.addresses(), Mac::from_octets(POD_MAC));
        }
        let table = |name: &str| rows::open(&pins.join("maps").join(name));
        Ok(Self {
            driver: Driver::load(&pins)?,
            machine: Machine::open(&pins)?,
            peer_pods: 0,
            buckets: table(tables::BUCKETS.name)?.try_into()?,
            pending: [
                Connections::V4(table(tables::PENDING4.name)?.try_into()?),
                Connections::V6(table(tables::PENDING6.name)?.try_into()?),
            ],
            flows: [
                Connections::V4(table(tables::FLOWS4.name)?.try_into()?),
                Connections::V6(table(tables::FLOWS6.name)?.try_into()?),
            ],
            world,
        })
    }

    /// Makes these the only peers of the isolated pod, here and in the floors' table.
    pub(crate) fn enforce(&mut self, peers: Peers, ports: u16) -> Result<Took> {
        if let Peers::Pods(count) = peers {
            for number in self.peer_pods..count {
                self.world.tell(objects::peer_pod(number))?;
            }
            self.peer_pods = self.peer_pods.max(count);
        }
        self.world.tell(objects::policy("measured", "isolated", peers, FIRST_PORT, ports))?;
        let took = self.world.converge()?;
        self.driver.list(peers.count())?;
        Ok(took)
    }

    /// A segment between the pod and a peer, in the form that the driver completes.
    pub(crate) fn template(target: Target, to_pod: bool, is_v6: bool) -> Template {
        let local = target.addresses()[usize::from(is_v6)];
        let remote = if is_v6 { peer6(0).into() } else { peer4(0).into() };
        let flow = Flow {
            direction: if to_pod { Direction::Ingress } else { Direction::Egress },
            local,
            remote,
            protocol: Protocol::TCP,
            port: FIRST_PORT,
            from_own_node: false,
        };
        let ingress_ifindex = if to_pod { UPLINK } else { target.ifindex() };
        Template { bytes: segment(&flow, true, 2), is_v6, ifindex: target.ifindex(), ingress_ifindex }
    }

    /// As if the pod had added no connection for a while.
    pub(crate) fn refill(&mut self, target: Target) -> Result<()> {
        let slot = self.world.slot(target.ifindex())?;
        let bucket: [u8; size_of::<Bucket>()] = zerocopy::transmute!(Bucket::full(now_tick()));
        Ok(self.buckets.set(slot, bucket, 0)?)
    }

    /// Forgets unanswered connections.
    pub(crate) fn forget_pending(&mut self, is_v6: bool) -> Result<usize> {
        self.pending[usize::from(is_v6)].clear()
    }

    /// Forgets all connections of a family.
    pub(crate) fn forget_all(&mut self, is_v6: bool) -> Result<()> {
        self.pending[usize::from(is_v6)].clear()?;
        self.flows[usize::from(is_v6)].clear()?;
        Ok(())
    }

    /// Answered connections of a family.
    pub(crate) fn established(&self, is_v6: bool) -> usize {
        self.flows[usize::from(is_v6)].count()
    }

    /// Takes the events, as the agent does when it polls.
    pub(crate) fn drain(&mut self) -> usize {
        let mut count = 0;
        loop {
            match self.world.datapath.events(|_: &Event| {}) {
                0 => return count,
                more => count += more,
            }
        }
    }
}
