//! One pod, isolated in both directions, and what it may do.
//!
//! | who            | into the pod         | out of the pod  |
//! |----------------|----------------------|-----------------|
//! | the friend     | TCP 80-90, UDP 53    | TCP 443, UDP 53 |
//! | everybody else | nothing              | nothing         |

use std::net::IpAddr;

use cellwall_abi::{
    ACTION_ALLOW, ACTION_DENY, CLASS_NODE, ClassPair, Conn, ENDPOINT_IDENTIFIED, EndpointRecord, Family,
    Interval, Live, PolicyEntry, PolicyKey, Reason, V4, V6,
};
use cellwall_policy::flow::{Direction, Flow, Protocol};
use cellwall_policy::wanted::Observed;
use cellwall_testkit::frame::{Frame, UPLINK, answer, pod_mac, segment};
use cellwall_testkit::memory::{Lookup, Memory};
use cellwall_verdict::{Verdict, process};

pub(crate) const POD: u32 = 7;
pub(crate) const SLOT: u32 = 3;
const FRIEND: u32 = 17;
/// Image per direction.
pub(crate) const IMAGES: [u32; 2] = [101, 102];
/// Rule behind what the friend may do, per direction.
pub(crate) const RULES: [u32; 2] = [201, 202];

/// The two families' addresses of the pod, its friend, and a stranger.
pub(crate) const FAMILIES: [[&str; 3]; 2] =
    [["10.0.0.2", "10.0.0.3", "192.0.2.9"], ["fd00::2", "fd00::3", "2001:db8::9"]];

/// The two families' addresses of a node.
pub(crate) const NODES: [&str; 2] = ["10.9.0.1", "fd09::1"];

/// The pod's tables and connections.
pub(crate) struct World {
    pub(crate) memory: Memory,
    pub(crate) addresses: [IpAddr; 3],
}

impl World {
    pub(crate) fn new(addresses: [&str; 3]) -> Self {
        let addresses = addresses.map(|text| text.parse().expect("an address"));
        let mut tables = Observed { live: Live(4), ..Observed::default() };
        tables.endpoints.insert(POD, SLOT);
        tables.addresses.insert(addresses[1], 5);
        tables.classes.insert(5, ClassPair::new([FRIEND, FRIEND]));
        let node = NODES[usize::from(addresses[0].is_ipv6())].parse().expect("an address");
        tables.addresses.insert(node, 6);
        tables.classes.insert(6, ClassPair::new([CLASS_NODE, CLASS_NODE]));
        let mut record = EndpointRecord {
            since: 4,
            flags: ENDPOINT_IDENTIFIED,
            image: IMAGES,
            ifindex: POD,
            mac: pod_mac(),
            default: [PolicyEntry::only_rest(ACTION_DENY, 0); 2],
            ..EndpointRecord::default()
        };
        match addresses[0] {
            IpAddr::V4(own) => record.address4 = own.into(),
            IpAddr::V6(own) => record.address6 = own.into(),
        }
        for bank in [0, 1] {
            tables.records.insert((SLOT, bank), record);
        }
        let allowed = [[(6, 80, 90), (17, 53, 53)], [(6, 443, 443), (17, 53, 53)]];
        for direction in Direction::ALL {
            let number = direction as usize;
            let key = PolicyKey { image: IMAGES[number], class: FRIEND };
            tables.policy.insert(key, entry(RULES[number], &allowed[number]));
        }
        Self { memory: Memory::new(tables), addresses }
    }

    /// Both families.
    pub(crate) fn both() -> [Self; 2] {
        FAMILIES.map(Self::new)
    }

    /// Changes the tables; connections stay.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Observed)) {
        let mut tables = self.memory.lookup.tables.clone();
        change(&mut tables);
        self.memory.lookup = Lookup::new(tables);
    }

    /// Changes the pod's record in both banks.
    pub(crate) fn record(&mut self, change: impl Fn(&mut EndpointRecord)) {
        self.change(|tables| tables.records.values_mut().for_each(change));
    }

    pub(crate) fn is_v4(&self) -> bool {
        self.addresses[0].is_ipv4()
    }

    /// Nothing isolates the pod any more.
    pub(crate) fn open_up(&mut self) {
        self.record(|record| record.image = [0; 2]);
    }

    /// Everybody may do everything, which is still asked of policy.
    pub(crate) fn allow_all(&mut self) {
        let all = PolicyEntry { some: 15, ..PolicyEntry::only_rest(ACTION_ALLOW, RULES[0]) };
        self.change(|tables| tables.policy.clear());
        self.record(|record| record.default = [all; 2]);
    }

    /// An address of a node.
    pub(crate) fn node(&self) -> IpAddr {
        NODES[usize::from(!self.is_v4())].parse().expect("an address")
    }

    fn flow(&self, remote: usize, direction: Direction, protocol: Protocol, port: u16) -> Flow {
        let [local, ..] = self.addresses;
        Flow { local, direction, remote: self.addresses[remote], from_own_node: false, protocol, port }
    }

    /// Between the pod and its friend.
    pub(crate) fn friend(&self, direction: Direction, protocol: Protocol, port: u16) -> Flow {
        self.flow(1, direction, protocol, port)
    }

    /// Between the pod and a stranger.
    pub(crate) fn stranger(&self, direction: Direction, protocol: Protocol, port: u16) -> Flow {
        self.flow(2, direction, protocol, port)
    }

    /// What the friend may do by TCP.
    pub(crate) fn allowed(&self, direction: Direction) -> Flow {
        self.friend(direction, Protocol::TCP, if direction == Direction::Ingress { 80 } else { 443 })
    }

    /// ICMP of this family.
    pub(crate) fn icmp(&self) -> Protocol {
        if self.is_v4() { Protocol::ICMP } else { Protocol::ICMPV6 }
    }

    /// The first packet of a flow.
    pub(crate) fn open(&self, flow: &Flow) -> Verdict {
        self.judge(&Frame::opening(flow, POD), flow.direction)
    }

    /// The answer to it.
    pub(crate) fn answer(&self, flow: &Flow) -> Verdict {
        self.packet(&answer(flow), other(flow.direction))
    }

    /// A TCP segment of it.
    pub(crate) fn segment(&self, flow: &Flow, from_opener: bool, flags: u8) -> Verdict {
        let direction = if from_opener { flow.direction } else { other(flow.direction) };
        self.packet(&segment(flow, from_opener, flags), direction)
    }

    pub(crate) fn packet(&self, bytes: &[u8], direction: Direction) -> Verdict {
        self.judge(&frame(bytes, direction), direction)
    }

    /// The verdict on a frame. It is the same, and leaves the same rows, whatever part of the headers is linear.
    pub(crate) fn judge(&self, frame: &Frame, direction: Direction) -> Verdict {
        // Ethernet alone, and with IPv4 or IPv6.
        let split = [14, 34, 54].map(|linear| {
            let mut split = frame.clone();
            split.linear = linear;
            let memory = self.memory.clone();
            (process(&split, &memory, direction), rows(&memory), split.stamp)
        });
        let verdict = process(frame, &self.memory, direction);
        for (found, left, stamp) in split {
            let (whole, parts) = (verdict.passes().then_some(verdict), found.passes().then_some(found));
            assert_eq!(whole, parts, "with headers outside the linear part");
            assert_eq!((rows(&self.memory), &frame.stamp), (left, &stamp), "{verdict:?}");
        }
        verdict
    }

    /// A whole TCP handshake.
    pub(crate) fn connect(&self, flow: &Flow) {
        use cellwall_verdict::header::ACK;
        assert!(self.open(flow).passes());
        assert_eq!(self.answer(flow).reason, Reason::Established);
        assert_eq!(self.segment(flow, true, ACK).reason, Reason::Established);
    }

    /// Connections, answered ones and others.
    pub(crate) fn connections(&self) -> (usize, usize) {
        let memory = &self.memory;
        (
            memory.four.flows().len() + memory.six.flows().len(),
            memory.four.pendings().len() + memory.six.pendings().len(),
        )
    }
}

/// A frame that came from elsewhere, or from the pod.
pub(crate) fn frame(bytes: &[u8], direction: Direction) -> Frame {
    let mut frame = Frame::new(bytes, POD);
    frame.ingress_ifindex = if direction == Direction::Egress { POD } else { UPLINK };
    frame
}

/// Every row of a connection, answered ones and others.
type Rows<F> = [Vec<(<F as Family>::FlowKey, Conn)>; 2];

fn rows(memory: &Memory) -> (Rows<V4>, Rows<V6>) {
    let Memory { four, six, .. } = memory;
    ([four.flows(), four.pendings()], [six.flows(), six.pendings()])
}

pub(crate) const fn other(direction: Direction) -> Direction {
    match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    }
}

/// An entry that allows (protocol, low, high) and denies the rest.
pub(crate) fn entry(rule: u32, allowed: &[(u8, u16, u16)]) -> PolicyEntry {
    let mut entry = PolicyEntry::only_rest(ACTION_DENY, 0);
    for (interval, (protocol, low, high)) in entry.intervals.iter_mut().zip(allowed) {
        *interval =
            Interval { low: *low, high: *high, rule, protocol: *protocol, action: ACTION_ALLOW, pad: [0; 2] };
        entry.some |= PolicyEntry::protocol_bit(*protocol);
    }
    entry.count = u8::try_from(allowed.len()).expect("three at most");
    entry
}
