//! `cellwall check` against the judge: both ends of a flow, each as its own node sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Mutex;

use cellwall_check::{Answer, Backend, BackendEnd, End, Item, Outcome, Question, Side, Transport, check};
use cellwall_kube::convert::{Decoded, decode, service_selector};
use cellwall_oracle::api::{ObjectMeta, Pod, Service};
use cellwall_oracle::{Flow, Frontend, Objects, Ruling, decide, frontends, subject};
use cellwall_policy::flow::{Decision, Direction, Protocol};
use cellwall_policy::model::{Cluster, ObjectKey, Touched};
use cellwall_testkit::objects::{describe, failed_seeds, flows, generate};

use crate::report::{Outcome as Drawn, Report, for_each_seed};

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

fn full_name(metadata: &ObjectMeta) -> String {
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    format!("{namespace}/{}", metadata.name.as_deref().unwrap_or_default())
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
            match first {
                Some(first) if first == address => Ok((End::Pod(full_name(&pod.metadata)), Some(pod))),
                _ => Err("a pod's second address of one family, which Kubernetes does not have"),
            }
        }
    }
}

/// What has to be said about one side of a flow.
#[derive(Clone, Debug)]
struct Ruled {
    decision: Decision,
    /// `namespace/name` of the policies that isolate the pod.
    isolated_by: BTreeSet<String>,
    /// Policy and rule that are named.
    decided_by: Option<(String, u32)>,
    /// No policy says anything here: there is no pod, or nobody can tell whose interface it is.
    is_nobodys: bool,
}

impl Ruled {
    /// What is said without asking policies.
    const fn nobodys(decision: Decision) -> Self {
        Self { decision, isolated_by: BTreeSet::new(), decided_by: None, is_nobodys: true }
    }

    fn new(ruling: &Ruling<'_>) -> Self {
        let name = |(namespace, name): (&str, &str)| format!("{namespace}/{name}");
        let decided_by = ruling.decided_by.map(|(namespace, policy, index)| {
            (name((namespace, policy)), u32::try_from(index).expect("a short list"))
        });
        let isolated_by = ruling.isolated_by.iter().copied().map(name).collect();
        Self { decision: ruling.decision, isolated_by, decided_by, is_nobodys: false }
    }
}

/// Per direction, and nothing where the pod at that end has not got the address.
type Expected = [Option<Ruled>; 2];

/// A question, and what has to be said about it.
struct Asked {
    question: Question,
    expected: Expected,
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
    if matches!(dst, End::Ip(_)) && virtual_addresses(objects).contains(&to) {
        return Err("an address that a node translates");
    }
    if matches!(dst, End::Ip(_)) && leads_elsewhere(objects, flow) {
        return Err("a port of nodes that leads elsewhere");
    }
    let port = flow.protocol.has_ports().then(|| i64::from(flow.port));
    let question = Question { src, dst, protocol, port };
    let expected = judged(objects, (from, to), [source, destination], (flow.protocol, flow.port), report);
    Ok(Asked { question, expected })
}

/// True for a port that some Service or pod has at nodes: at their addresses it is another question.
fn leads_elsewhere(objects: &Objects, flow: &Flow) -> bool {
    let is_it = |number: Option<i32>| number == Some(i32::from(flow.port));
    let ports = objects.services.iter().filter_map(|service| service.spec.as_ref()?.ports.as_ref()).flatten();
    let containers = objects.pods.iter().filter_map(|pod| pod.spec.as_ref()).flat_map(|spec| {
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
            .flat_map(|c| c.ports.iter().flatten())
    });
    ports.map(|port| port.node_port).chain(containers.map(|port| port.host_port)).any(is_it)
}

/// What the judge says at both ends.
fn judged(
    objects: &Objects,
    (from, to): (IpAddr, IpAddr),
    [source, destination]: [Option<&Pod>; 2],
    (protocol, port): (Protocol, u16),
    report: &mut Report,
) -> Expected {
    let mut side = |direction, local, remote, pod: Option<&Pod>| {
        let Some(pod) = pod else { return Some(Ruled::nobodys(Decision::Allow)) };
        let node = node(pod)?;
        let seen = seen_from(objects, node);
        let owner = subject(&seen, local);
        if owner.is_some_and(|owner| owner != pod) {
            return None;
        }
        let from_own_node = direction == Direction::Ingress && is_of_node(objects, remote, node);
        if owner.is_none() {
            // Nobody can tell whose interface it is: it is closed, but for what no policy can forbid.
            let exempt = from_own_node || local == remote;
            return Some(Ruled::nobodys(if exempt { Decision::Allow } else { Decision::Deny }));
        }
        let ruling = decide(&seen, &Flow { local, direction, remote, from_own_node, protocol, port });
        report.judged(&ruling);
        Some(Ruled::new(&ruling))
    };
    [side(Direction::Egress, from, to, source), side(Direction::Ingress, to, from, destination)]
}

/// True when the answer is the expected one.
fn agrees(item: &Item, expected: &Expected) -> bool {
    match (item, expected) {
        (Item::Answer(answer), _) => answer_agrees(answer, expected),
        (Item::Error { error }, [None, _] | [_, None]) => error.contains("has the address of"),
        _ => false,
    }
}

fn answer_agrees(answer: &Answer, expected: &Expected) -> bool {
    let [Some(egress), Some(ingress)] = expected else { return false };
    let all = egress.decision == Decision::Allow && ingress.decision == Decision::Allow;
    says(&answer.egress, egress, "egress")
        && says(&answer.ingress, ingress, "ingress")
        && (answer.verdict == Outcome::Allow) == all
}

/// The verdict, and who is said to have decided.
fn says(side: &Side, ruled: &Ruled, direction: &str) -> bool {
    let isolated_by: BTreeSet<String> = side.isolated_by.iter().cloned().collect();
    let is_right = match &ruled.decided_by {
        Some((policy, rule)) => {
            side.reason == format!("allowed by NetworkPolicy {policy}: spec.{direction}[{rule}]")
        }
        None if ruled.is_nobodys => !side.reason.is_empty(),
        None if ruled.decision == Decision::Deny => side.reason.ends_with(", no rule matched"),
        None if isolated_by.is_empty() => side.reason == "not isolated" || side.reason.ends_with(NO_POLICY),
        None => side.reason.ends_with(NO_POLICY),
    };
    (side.verdict == Outcome::Allow) == (ruled.decision == Decision::Allow)
        && is_right
        && isolated_by == ruled.isolated_by
        && side.policy.clone().zip(side.rule) == ruled.decided_by
        && side.policy.is_some() == side.rule.is_some()
}

/// How the reason ends where it is not policies that decide.
const NO_POLICY: &str = "which no policy can forbid";

fn virtual_addresses(objects: &Objects) -> BTreeSet<IpAddr> {
    let alone = |service| Objects { services: vec![service], ..Objects::default() };
    objects
        .services
        .iter()
        .flat_map(|service| frontends(&alone(service.clone())))
        .map(|f| f.address)
        .collect()
}

/// Address and port of a backend, and what has to be said about the way there.
type ExpectedBackend = ((IpAddr, u16), Expected);

/// What has to be said about the way from a pod to a port of a Service: for each backend, in the order of addresses. The
/// error is why it cannot be asked.
fn of_service(
    objects: &Objects,
    source: &Pod,
    service: &Service,
    port: (Protocol, u16),
    report: &mut Report,
) -> Result<Vec<ExpectedBackend>, &'static str> {
    let spec = service.spec.as_ref().expect("made with a spec");
    let given: Vec<IpAddr> = spec
        .cluster_ip
        .iter()
        .chain(spec.cluster_ips.iter().flatten())
        .filter_map(|text| text.parse().ok())
        .collect();
    let alone =
        Objects { services: vec![service.clone()], slices: objects.slices.clone(), ..Objects::default() };
    let is_its = |f: &&Frontend| given.contains(&f.address) && (f.protocol, f.port) == port;
    let first = |ipv4: bool| addresses(source).find(|a| a.is_ipv4() == ipv4);
    let all = frontends(&alone);
    let mut of_family = [true, false].into_iter().filter_map(|ipv4| {
        let from = first(ipv4)?;
        let frontend = all.iter().filter(is_its).find(|f| f.address.is_ipv4() == ipv4)?;
        (!frontend.backends.is_empty()).then_some((from, &frontend.backends))
    });
    let Some((from, backends)) = of_family.next() else { return Ok(Vec::new()) };
    let mut expected = Vec::new();
    for (to, number) in backends {
        if claimants(objects, *to).len() > 1 {
            return Err("a backend that is an address of two pods");
        }
        let (_, destination) = end(objects, *to)?;
        let both = judged(objects, (from, *to), [Some(source), destination], (port.0, *number), report);
        expected.push(((*to, *number), both));
    }
    Ok(expected)
}

fn service_agrees(item: &Item, expected: &[ExpectedBackend]) -> bool {
    let is_lost = expected.iter().flat_map(|(_, both)| both).any(Option::is_none);
    let answer = match item {
        Item::Error { error } if is_lost => return error.contains("has the address of"),
        // There are backends, and none in a family of the source and the Service.
        Item::Error { error } => return expected.is_empty() && error.contains("no address of a family"),
        Item::Answer(answer) => answer,
    };
    let backends = answer.backends.as_deref().unwrap_or_default();
    let arrive = backends.iter().filter(|backend| backend.answer.verdict == Outcome::Allow).count();
    let verdict = match arrive {
        0 => Outcome::Deny,
        count if count == backends.len() => Outcome::Allow,
        _ => Outcome::Partial,
    };
    answer.verdict == verdict
        && backends.len() == expected.len()
        && backends.iter().zip(expected).all(|(backend, expected)| backend_agrees(backend, expected))
}

fn backend_agrees(backend: &Backend, ((address, port), expected): &ExpectedBackend) -> bool {
    let is_it = match &backend.end {
        BackendEnd::Pod(_) => true,
        BackendEnd::Ip(ip) => ip == address,
    };
    is_it && backend.port == Some(*port) && answer_agrees(&backend.answer, expected)
}

/// Every pod's way to every port of every Service that has an address.
fn service_difference(objects: &Objects, report: &mut Report) -> Option<String> {
    let mut all: Vec<(Question, Vec<ExpectedBackend>)> = Vec::new();
    for pod in objects.pods.iter().filter(|pod| is_live(pod) && !is_host_network(pod)) {
        let Some(Ok((src, Some(source)))) = addresses(pod).next().map(|address| end(objects, address)) else {
            continue;
        };
        for service in &objects.services {
            let spec = service.spec.as_ref().expect("made with a spec");
            let is_translated = spec.cluster_ip.as_deref().is_some_and(|text| text != "None");
            for port in spec.ports.iter().flatten().filter(|_| is_translated) {
                let (protocol, transport) = match port.protocol.as_deref() {
                    Some("UDP") => (Protocol::UDP, Transport::Udp),
                    _ => (Protocol::TCP, Transport::Tcp),
                };
                let number = u16::try_from(port.port).expect("a port");
                match of_service(objects, source, service, (protocol, number), report) {
                    Ok(expected) => {
                        let dst = End::Service(full_name(&service.metadata));
                        let port = Some(i64::from(number));
                        all.push((Question { src: src.clone(), dst, protocol: transport, port }, expected));
                    }
                    Err(reason) => report.skip(reason),
                }
            }
        }
    }
    let questions: Vec<Question> = all.iter().map(|(question, _)| question.clone()).collect();
    let selectors: Vec<_> = objects.services.iter().map(service_selector).collect();
    let items = check(cluster(objects), &selectors, &questions).items;
    let differs = all.iter().zip(&items).find(|((_, expected), item)| !service_agrees(item, expected));
    differs.map(|((question, expected), item)| {
        format!("{question:?}: {expected:?} is expected, and it is {item:?}")
    })
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
    let items = check(cluster(objects), &[], &questions).items;
    assert_eq!(items.len(), questions.len());
    let differs = all.iter().zip(&items).find(|(asked, item)| !agrees(item, &asked.expected));
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
        let outcome =
            report.outcome(found.map(|found| format!("seed {seed}: {found}\n\n{}", describe(&objects))));
        total.lock().expect("no panic while it is held").add(report);
        outcome
    });
    let total = total.into_inner().expect("no panic while it is held");
    println!("{total}");
    // Not every flow can be asked about with both its ends.
    total.check(300);
}

#[test]
fn every_backend_of_a_service_is_judged_as_the_judge_does() {
    let total = Mutex::new(Report::default());
    for_each_seed(300, &failed_seeds(), |seed| {
        let objects = generate(seed);
        let mut report = Report::default();
        let found = service_difference(&objects, &mut report);
        let outcome =
            report.outcome(found.map(|found| format!("seed {seed}: {found}\n\n{}", describe(&objects))));
        total.lock().expect("no panic while it is held").add(report);
        outcome
    });
    let total = total.into_inner().expect("no panic while it is held");
    println!("{total}");
    assert!(total.asked() >= 10 * total.sets(), "{total}");
}

/// Every node port of a cluster, asked about at every address of its nodes.
fn node_ports(objects: &Objects) -> Vec<(Question, ObjectKey)> {
    let cluster = cluster(objects);
    let translated = virtual_addresses(objects);
    let is_free = |address: &IpAddr| claimants(objects, *address).is_empty() && !translated.contains(address);
    let nodes = cluster.nodes.values().flat_map(|node| &node.addresses).filter(|address| is_free(address));
    let src = End::Ip("192.0.2.200".to_owned());
    let mut all = Vec::new();
    for address in nodes {
        // The first by name answers, the last of these.
        let ports = cluster.services.values().rev().flat_map(|service| {
            let numbers = service.ports.iter().filter_map(|port| Some((port.protocol, port.node_port?)));
            numbers.map(|port| (port, service.key()))
        });
        let owners: BTreeMap<(Protocol, u16), ObjectKey> = ports.collect();
        for ((protocol, number), service) in owners {
            let protocol = if protocol == Protocol::UDP { Transport::Udp } else { Transport::Tcp };
            let dst = End::Ip(address.to_string());
            all.push((Question { src: src.clone(), dst, protocol, port: Some(number.into()) }, service));
        }
    }
    all
}

/// It is judged where it leads, which is no port of the node: the answer says what to ask about instead.
#[test]
fn a_node_port_is_an_error_that_names_its_service() {
    let total = Mutex::new((0, 0));
    for_each_seed(300, &failed_seeds(), |seed| {
        let objects = generate(seed);
        let asked = node_ports(&objects);
        let questions: Vec<Question> = asked.iter().map(|(question, _)| question.clone()).collect();
        let items = check(cluster(&objects), &[], &questions).items;
        let is_named = |item: &Item, service: &ObjectKey| match item {
            Item::Error { error } => error.ends_with(&format!(" is {service}: ask for the service")),
            Item::Answer(_) => false,
        };
        let wrong = asked.iter().zip(&items).find(|((_, service), item)| !is_named(item, service));
        if let Some(((question, service), item)) = wrong {
            let objects = describe(&objects);
            return Drawn::Wrong(format!(
                "seed {seed}: {question:?} is {service}, and it is {item:?}\n\n{objects}"
            ));
        }
        let mut total = total.lock().expect("no panic while it is held");
        *total = (total.0 + 1, total.1 + items.len());
        Drawn::Judged
    });
    let (sets, asked) = total.into_inner().expect("no panic while it is held");
    println!("{asked} node ports of {sets} sets");
    assert!(asked >= sets, "{asked} node ports of {sets} sets");
}
