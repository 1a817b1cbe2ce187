//! `cellwall check` against the judge: both ends of a flow, each as its own node sees it.

use std::net::IpAddr;
use std::sync::Mutex;

use cellwall_check::{End, Item, Outcome, Question, Side, Transport, check};
use cellwall_kube::convert::{Decoded, decode};
use cellwall_oracle::api::Pod;
use cellwall_oracle::{Flow, Objects, decide, subject};
use cellwall_policy::flow::{Decision, Direction, Protocol};
use cellwall_policy::model::{Cluster, Touched};
use cellwall_testkit::objects::{describe, failed_seeds, flows, generate};

use crate::report::{Report, for_each_seed};

/// The objects as a folder has them: nothing is said of a node that is not in its Node object.
fn cluster(objects: &Objects) -> Cluster {
    let mut cluster = Cluster { pod_cidrs: objects.pod_cidrs.clone(), ..Cluster::default() };
    for value in objects.values() {
        match decode(value) {
            Decoded::Object(_, told) => {
                for change in told {
                    cluster.apply(change, &mut Touched::default());
                }
            }
            other => panic!("no object of ours: {other:?}"),
        }
    }
    cluster
}

fn node(pod: &Pod) -> Option<&String> {
    pod.spec.as_ref()?.node_name.as_ref()
}

fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> + '_ {
    let status = pod.status.iter();
    let texts = status.flat_map(|s| s.pod_ip.iter().chain(s.pod_ips.iter().flatten().map(|ip| &ip.ip)));
    texts.filter_map(|text| text.parse().ok())
}

/// What the node of this name sees: its own addresses are those of its object.
fn seen_from(objects: &Objects, name: &str) -> Objects {
    Objects { node_name: name.to_owned(), node_addresses: of_node(objects, name), ..objects.clone() }
}

fn of_node(objects: &Objects, name: &str) -> Vec<IpAddr> {
    let nodes = objects.nodes.iter().filter(|node| node.metadata.name.as_deref() == Some(name));
    let statuses = nodes.filter_map(|node| node.status.as_ref());
    let listed = statuses.flat_map(|status| status.addresses.iter().flatten());
    listed.filter_map(|address| address.address.parse().ok()).collect()
}

fn is_live(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

fn is_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

/// Pods with a network of their own at an address.
fn claimants(objects: &Objects, address: IpAddr) -> Vec<&Pod> {
    let own = objects.pods.iter().filter(|pod| is_live(pod) && !is_host_network(pod));
    own.filter(|pod| addresses(pod).any(|a| a == address)).collect()
}

/// True when an address is that of the node, or of pods that use its network.
fn is_of_node(objects: &Objects, address: IpAddr, name: &str) -> bool {
    let mut host = objects.pods.iter().filter(|pod| is_live(pod) && is_host_network(pod));
    claimants(objects, address).is_empty()
        && (of_node(objects, name).contains(&address)
            || host.any(|pod| {
                node(pod).is_some_and(|node| node == name) && addresses(pod).any(|a| a == address)
            }))
}

/// How the owner of an address is asked about, and the owner. The error is why it cannot be.
fn end(objects: &Objects, address: IpAddr) -> Result<(End, Option<&Pod>), &'static str> {
    let martian = match address {
        IpAddr::V4(remote) => matches!(remote.octets()[0], 0 | 127),
        IpAddr::V6(remote) => matches!(remote.segments(), [0, 0, 0, 0, 0, 0 | 0xffff, ..]),
    };
    match claimants(objects, address)[..] {
        _ if martian => Err("an address that no packet on a wire may come from, or go to"),
        [] => Ok((End::Ip(address.to_string()), None)),
        [pod, ..] => {
            let first = addresses(pod).find(|a| a.is_ipv4() == address.is_ipv4());
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            match first {
                Some(first) if first == address => Ok((End::Pod(format!("{namespace}/{name}")), Some(pod))),
                _ => Err("a pod's second address of one family, which Kubernetes does not have"),
            }
        }
    }
}

/// A flow between two addresses, and what has to be said about it: per direction, and nothing where the pod at that
/// end has no address of its own.
struct Asked {
    question: Question,
    expected: [Option<Decision>; 2],
}

fn asked(objects: &Objects, flow: &Flow, report: &mut Report) -> Result<Asked, &'static str> {
    let (from, to) = match flow.direction {
        Direction::Egress => (flow.local, flow.remote),
        Direction::Ingress => (flow.remote, flow.local),
    };
    let protocol = match flow.protocol {
        Protocol::TCP => Transport::Tcp,
        Protocol::UDP => Transport::Udp,
        Protocol::SCTP => Transport::Sctp,
        Protocol::ICMP | Protocol::ICMPV6 => Transport::Icmp,
        _ => return Err("a protocol that cannot be asked about"),
    };
    if from.is_multicast() || from == IpAddr::V4(std::net::Ipv4Addr::BROADCAST) {
        return Err("a group as the source");
    }
    let ((src, source), (dst, destination)) = (end(objects, from)?, end(objects, to)?);
    // Of two pods that have two families each, IPv4 is meant.
    let both = |pod: Option<&Pod>| pod.is_some_and(|pod| addresses(pod).any(|a| a.is_ipv4()));
    if !from.is_ipv4() && both(source) && both(destination) {
        return Err("IPv6 between pods that have IPv4 too");
    }
    let port = flow.protocol.has_ports().then(|| i64::from(flow.port));
    let question = Question { src, dst, protocol, port };
    let mut side = |direction, local, remote, pod: Option<&Pod>| {
        let Some(pod) = pod else { return Some(Decision::Allow) };
        let node = node(pod)?;
        let seen = seen_from(objects, node);
        let owner = subject(&seen, local);
        let is_tied = owner.is_none();
        if owner.is_some_and(|owner| owner != pod) {
            return None;
        }
        let from_own_node = direction == Direction::Ingress && is_of_node(objects, remote, node);
        if is_tied {
            // Nobody can tell whose interface it is: it is closed, but for what no policy can forbid.
            let exempt = from_own_node || local == remote;
            return Some(if exempt { Decision::Allow } else { Decision::Deny });
        }
        let ruling = decide(&seen, &Flow { local, direction, remote, from_own_node, ..*flow });
        report.judged(&ruling);
        Some(ruling.decision)
    };
    let egress = side(Direction::Egress, from, to, source);
    let ingress = side(Direction::Ingress, to, from, destination);
    Ok(Asked { question, expected: [egress, ingress] })
}

/// True when the answer is the expected one.
fn agrees(item: &Item, expected: [Option<Decision>; 2]) -> bool {
    let outcome = |decision| if decision == Decision::Allow { Outcome::Allow } else { Outcome::Deny };
    match (item, expected) {
        (Item::Answer(answer), [Some(egress), Some(ingress)]) => {
            let sides = [(&answer.egress, egress), (&answer.ingress, ingress)];
            let all = egress == Decision::Allow && ingress == Decision::Allow;
            sides.iter().all(|(side, decision)| says(side, outcome(*decision)))
                && (answer.verdict == Outcome::Allow) == all
        }
        (Item::Error { error }, [None, _] | [_, None]) => error.contains("has the address of"),
        _ => false,
    }
}

fn says(side: &Side, outcome: Outcome) -> bool {
    side.verdict == outcome && !side.reason.is_empty()
}

fn difference(objects: &Objects, report: &mut Report) -> Option<String> {
    let mut all = Vec::new();
    for flow in ["here", "there"].iter().flat_map(|node| flows(&seen_from(objects, node))) {
        match asked(objects, &flow, report) {
            Ok(asked) => all.push(asked),
            Err(reason) => report.skip(reason),
        }
    }
    let questions: Vec<Question> = all.iter().map(|asked| asked.question.clone()).collect();
    let items = check(cluster(objects), &questions).items;
    assert_eq!(items.len(), questions.len());
    let differs = all.iter().zip(&items).find(|(asked, item)| !agrees(item, asked.expected));
    differs.map(|(asked, item)| {
        format!("{:?}: {:?} is expected, and it is {item:?}", asked.question, asked.expected)
    })
}

#[test]
fn both_ends_are_judged_as_the_judge_does() {
    let total = Mutex::new(Report::default());
    for_each_seed(300, &failed_seeds(), |seed| {
        let objects = generate(seed);
        let mut report = Report::default();
        let found = difference(&objects, &mut report);
        total.lock().expect("no panic while it is held").add(report);
        found.map(|found| format!("seed {seed}: {found}\n\n{}", describe(&objects)))
    });
    let total = total.into_inner().expect("no panic while it is held");
    println!("{total}");
    // Not every flow can be asked about with both its ends.
    total.check(300);
}
