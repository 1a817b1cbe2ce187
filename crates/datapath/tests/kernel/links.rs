//! The watch on interfaces, in namespaces of its own.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::thread::JoinHandle;
use std::time::Duration;

use cellwall_abi::Mac;
use cellwall_datapath::links::{LinkEvent, Look, watch};
use cellwall_policy::model::{Change, Link};
use cellwall_testkit::net::{Namespace, Net};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::skipped;

const SOON: Duration = Duration::from_secs(20);

/// A watch in the host namespace of a node, and what it sends.
struct Watching {
    runtime: Runtime,
    received: mpsc::Receiver<LinkEvent>,
    looks: mpsc::Sender<Look>,
    worker: Option<JoinHandle<()>>,
}

impl Watching {
    /// `room`: how many events may wait.
    fn start(net: &Net, room: usize) -> Self {
        let (send, received) = mpsc::channel(room);
        let (looks, asked) = mpsc::channel(8);
        let path = net.host.path();
        let worker = std::thread::spawn(move || {
            // Sockets belong to the namespace of the thread that opens them.
            let host = File::open(path).expect("the namespace is alive");
            move_into_link_name_space(host.as_fd(), Some(LinkNameSpaceType::Network)).expect("root");
            runtime().block_on(watch(send, asked)).expect("a closed receiver is no error");
        });
        Self { runtime: runtime(), received, looks, worker: Some(worker) }
    }

    /// With everything that is there at first behind it.
    fn listed(net: &Net) -> Self {
        let mut watching = Self::start(net, 64);
        while watching.next() != LinkEvent::Listed {}
        watching
    }

    fn next(&mut self) -> LinkEvent {
        let Self { runtime, received, .. } = self;
        runtime.block_on(async {
            tokio::time::timeout(SOON, received.recv()).await.expect("in time").expect("the watch goes on")
        })
    }

    /// The next link that `wanted` takes; others on the way are let go.
    fn link(&mut self, what: &str, wanted: impl Fn(&Link) -> bool) -> Link {
        let mut others = Vec::new();
        loop {
            match self.next() {
                LinkEvent::Change(Change::Link(link)) if wanted(&link) => return link,
                other => others.push(other),
            }
            assert!(others.len() < 64, "not {what}: {others:?}");
        }
    }

    fn gone(&mut self, ifindex: u32) {
        loop {
            match self.next() {
                LinkEvent::Change(Change::LinkGone(gone)) => return assert_eq!(gone, ifindex),
                LinkEvent::Change(Change::Link(link)) if link.ifindex == ifindex => {}
                LinkEvent::Change(Change::NodeAddresses(_)) | LinkEvent::Interfaces(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.received.close();
        if let Some(worker) = self.worker.take() {
            let ended = worker.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the watch ends without an error");
        }
    }
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn ip(namespace: &Namespace, command: &str) {
    namespace.ip(&[command]).expect(command);
}

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|address| address.parse().expect("an address")).collect()
}

#[test]
fn what_is_there_at_first_is_listed() {
    if skipped() {
        return;
    }
    let mut net = Net::new("links").expect("a node");
    let pod = net.pod().expect("a pod");
    ip(&net.host, "link add here type veth peer name there");
    let mut watching = Watching::start(&net, 64);
    let mut links = Vec::new();
    let (mut own, mut interfaces) = (Vec::new(), BTreeSet::new());
    loop {
        match watching.next() {
            LinkEvent::Change(Change::Link(link)) => links.push(link),
            LinkEvent::Change(Change::NodeAddresses(addresses)) => own = addresses,
            LinkEvent::Change(other) => panic!("{other:?}"),
            LinkEvent::Interfaces(all) => interfaces = all,
            LinkEvent::Listed => break,
        }
    }
    let wanted = Link {
        ifindex: pod.ifindex,
        name: pod.interface.clone(),
        addresses: pod.addresses().to_vec(),
        mac: Mac::from_octets(pod.mac),
        preexisting: true,
    };
    let all = ["here", "there", &pod.interface].map(|name| net.host.ifindex(name).expect("it is there"));
    assert_eq!(interfaces, BTreeSet::from(all), "all but the loopback");
    assert_eq!(links, [wanted], "a veth between two ends of this namespace is not reported");
    for address in ["10.244.0.1", "fd00:244::1"] {
        assert!(own.contains(&address.parse().expect("an address")), "{own:?}");
    }
}

#[test]
fn a_link_that_comes_changes_and_goes_is_followed() {
    if skipped() {
        return;
    }
    let mut net = Net::new("links").expect("a node");
    let mut watching = Watching::listed(&net);

    let pod = net.pod().expect("a pod");
    let link = watching.link("both addresses", |link| link.addresses == pod.addresses());
    assert_eq!((link.ifindex, link.preexisting), (pod.ifindex, false));

    // Before 6.2 only an interface that is down can be renamed.
    let rename = ["link set cw1 down", "link set cw1 name cw1renamed", "link set cw1renamed up"];
    net.host.ip(&rename).expect("it is there");
    watching.link("renamed", |link| link.name == "cw1renamed" && link.ifindex == pod.ifindex);
    ip(&pod.namespace, "address delete 10.244.0.11/32 dev eth0");
    watching.link("one address less", |link| link.addresses == addresses(&["fd00:244::11"]));
    ip(&pod.namespace, "address add 10.244.9.9/32 dev eth0");
    let link =
        watching.link("renumbered", |link| link.addresses == addresses(&["10.244.9.9", "fd00:244::11"]));
    assert!(!link.preexisting);

    // The other end moves on.
    let other = Namespace::new().expect("a namespace");
    ip(&pod.namespace, &format!("link set eth0 netns {}", other.path()));
    watching.link("moved", |link| link.addresses.is_empty());
    ip(&other, "link set eth0 up");
    ip(&other, "address add 10.244.7.7/32 dev eth0");
    watching.link("addresses there", |link| link.addresses == addresses(&["10.244.7.7"]));

    // Deleted and made again with the same index.
    let index = pod.ifindex;
    net.host
        .ip(&[
            "link delete cw1renamed",
            &format!("link add cw2 index {index} type veth peer name eth0 netns {}", pod.namespace.path()),
            "link set cw2 up",
        ])
        .expect("a link");
    watching.gone(index);
    ip(&pod.namespace, "address add 10.244.8.8/32 dev eth0");
    let link = watching.link("the new one", |link| link.addresses == addresses(&["10.244.8.8"]));
    assert_eq!((link.ifindex, link.name.as_str(), link.preexisting), (index, "cw2", false));

    // Its namespace ends, and with it the pair.
    drop(other);
    ip(&net.host, "link delete cw2");
    watching.gone(index);
}

/// What the CNI plugin says of a pod counts with the Ethernet address that is there then, which another plugin may just have set.
#[test]
fn what_is_said_of_an_interface_comes_after_what_is_there() {
    if skipped() {
        return;
    }
    let mut net = Net::new("links").expect("a node");
    let mut watching = Watching::listed(&net);
    let pod = net.pod().expect("a pod");
    watching.link("both addresses", |link| link.addresses == pod.addresses());

    // Nobody tells the node of this.
    ip(&pod.namespace, "link set eth0 address 02:00:00:00:99:01");
    let said = Change::NodeAddresses(Vec::new());
    let look = Look { interfaces: vec![1, pod.ifindex], then: said.clone() };
    watching.looks.blocking_send(look).expect("the watch goes on");
    let mut mac = Mac::UNKNOWN;
    loop {
        match watching.next() {
            LinkEvent::Change(change) if change == said => break,
            LinkEvent::Change(Change::Link(link)) if link.ifindex == pod.ifindex => mac = link.mac,
            _ => {}
        }
    }
    assert_eq!(mac, Mac::from_octets([2, 0, 0, 0, 0x99, 1]));
}

#[test]
fn interfaces_are_told_of_as_they_come_and_go() {
    if skipped() {
        return;
    }
    let net = Net::new("links").expect("a node");
    let mut watching = Watching::listed(&net);
    let mut told = |wanted: &[u32]| {
        let wanted: BTreeSet<u32> = wanted.iter().copied().collect();
        while watching.next() != LinkEvent::Interfaces(wanted.clone()) {}
    };
    ip(&net.host, "link add br0 type bridge");
    let bridge = net.host.ifindex("br0").expect("it is there");
    told(&[bridge]);
    ip(&net.host, "link add br1 type bridge");
    let dummy = net.host.ifindex("br1").expect("it is there");
    told(&[bridge, dummy]);
    ip(&net.host, "link delete br0");
    told(&[dummy]);
}

#[test]
fn ports_of_a_bridge_stay_links() {
    if skipped() {
        return;
    }
    let mut net = Net::new("links").expect("a node");
    let mut watching = Watching::listed(&net);
    let pod = net.pod().expect("a pod");
    watching.link("both addresses", |link| link.addresses == pod.addresses());
    net.host
        .ip(&["link add br0 type bridge", "link set cw1 master br0", "link set cw1 nomaster"])
        .expect("a bridge");
    ip(&pod.namespace, "address add 10.244.9.9/32 dev eth0");
    // Leaving a bridge is announced as a deletion, of another family.
    loop {
        match watching.next() {
            LinkEvent::Change(Change::Link(link)) if link.addresses.len() == 3 => break,
            LinkEvent::Change(Change::LinkGone(gone)) => panic!("{gone} is not gone"),
            _ => {}
        }
    }
}

#[test]
fn more_than_the_socket_holds_is_listed_again() {
    if skipped() {
        return;
    }
    let net = Net::new("links").expect("a node");
    let other = Namespace::new().expect("a namespace");
    let mut watching = Watching::start(&net, 1);
    // The receiver is slow: the watch waits for room, and the kernel drops what it cannot queue.
    let mut commands = Vec::new();
    for round in 0..40 {
        for n in 0..20 {
            commands.push(format!("link add v{n} type veth peer name p{round}x{n} netns {}", other.path()));
            commands.push(format!("link set v{n} mtu {}", 1400 + round));
        }
        for n in 0..20 {
            if round < 39 {
                commands.push(format!("link delete v{n}"));
            }
        }
    }
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    net.host.ip(&commands).expect("links");
    let mut wanted: Vec<u32> =
        (0..20).map(|n| net.host.ifindex(&format!("v{n}")).expect("it is there")).collect();
    wanted.sort_unstable();
    let mut known = BTreeSet::new();
    while !known.iter().eq(&wanted) {
        match watching.next() {
            LinkEvent::Change(Change::Link(link)) => {
                known.insert(link.ifindex);
            }
            LinkEvent::Change(Change::LinkGone(ifindex)) => {
                known.remove(&ifindex);
            }
            _ => {}
        }
    }
}
