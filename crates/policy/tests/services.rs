//! What is translated at a node, and on which backends the source is judged.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cellwall_abi::{SERVICE_TOO_MANY, SERVICE_TRANSLATED, SERVICE_TUNNEL, ServiceRecord};
use cellwall_policy::compile::{Compiled, Compiler};
use cellwall_policy::flow::Protocol;
use cellwall_policy::model::{
    BackendPort, Block, Change, Cluster, EndpointSlice, HostPort, Kind, Link, NamespaceMatch, Node,
    ObjectKey, Peer, Phase, Pod, Policy, PolicyKind, Rule, Selector, Service, ServicePort, Subject, Tier,
    Touched,
};
use cellwall_policy::plan::{Capacities, plan};
use cellwall_policy::wanted::{Observed, ServiceKey};
use cellwall_testkit::memory::{Lookup, after};

const NODE: &str = "192.168.0.1";
/// An address of this node that its Node object does not name.
const GATEWAY: &str = "10.1.0.254";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn service(cluster_ip: &str) -> Service {
    Service {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        cluster_addresses: vec![ip(cluster_ip)],
        external_addresses: Vec::new(),
        ports: vec![port("http", 80)],
        other_proxy: false,
    }
}

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort { name: name.to_owned(), protocol: Protocol::TCP, number, node_port: None }
}

fn slice(name: &str, addresses: &[&str], number: u16) -> EndpointSlice {
    EndpointSlice {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        service: "web".to_owned(),
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        ports: vec![BackendPort { name: "http".to_owned(), protocol: Protocol::TCP, number }],
    }
}

fn pod(name: &str, address: &str) -> Pod {
    Pod {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        uid: String::new(),
        labels: BTreeMap::new(),
        addresses: vec![ip(address)],
        node: "n1".to_owned(),
        host_network: false,
        phase: Phase::Running,
        deleting: false,
        created_s: 0,
        ports: Vec::new(),
        host_ports: Vec::new(),
        audit: false,
    }
}

struct World {
    cluster: Cluster,
}

impl World {
    fn new(changes: impl IntoIterator<Item = Change>) -> Self {
        let mut cluster = Cluster::new("n1");
        let node = Node {
            name: "n1".to_owned(),
            labels: BTreeMap::new(),
            addresses: vec![ip(NODE)],
            pod_cidrs: Vec::new(),
        };
        let own = [NODE, GATEWAY, "fd00:f::1"].map(ip).to_vec();
        let first = [Change::Node(node), Change::NodeAddresses(own)];
        for change in first.into_iter().chain(changes) {
            cluster.apply(change, &mut Touched::default());
        }
        Self { cluster }
    }

    fn compiled(&self) -> Compiled {
        Compiler::new([1, 2]).compile(&self.cluster, &Touched::default())
    }

    /// What is translated, as text: address:port, and the backends that the source is judged on.
    fn translated(&self) -> Vec<String> {
        self.compiled().wanted.services.iter().map(|(key, record)| line(key, record)).collect()
    }
}

fn line(key: &ServiceKey, record: &ServiceRecord) -> String {
    assert_eq!(record.flags & SERVICE_TRANSLATED, SERVICE_TRANSLATED);
    let backend = |i: usize| {
        let backend = &record.backends[i];
        let address = match key.address {
            IpAddr::V4(_) => IpAddr::from(backend.address.word(0).to_be_bytes()),
            IpAddr::V6(_) => backend.address.into(),
        };
        format!(" {address}/{}", backend.port.get())
    };
    let backends: String = (0..record.count as usize).map(backend).collect();
    let many = if record.flags & SERVICE_TOO_MANY == 0 { "" } else { " too many" };
    let tunnel = if record.flags & SERVICE_TUNNEL == 0 { "" } else { " tunnel" };
    format!("{}:{}{backends}{many}{tunnel}", key.address, key.port)
}

#[test]
fn backends_elsewhere_are_left_to_the_hook_that_sees_them() {
    let world = World::new([
        Change::Service(service("10.96.0.1")),
        Change::EndpointSlice(slice("a", &["10.1.0.2", "10.2.0.3", "192.168.0.2"], 8080)),
    ]);
    assert_eq!(world.translated(), ["10.96.0.1:80"]);
}

#[test]
fn backends_at_this_node_are_judged_at_the_source() {
    let world = World::new([
        Change::Service(service("10.96.0.1")),
        Change::EndpointSlice(slice("a", &["10.1.0.2", NODE], 8080)),
        Change::EndpointSlice(slice("by-hand", &["127.0.0.1", GATEWAY, "fd00:f::1"], 8081)),
    ]);
    assert_eq!(world.translated(), ["10.96.0.1:80 10.1.0.254/8081 127.0.0.1/8081 192.168.0.1/8080"]);
}

/// A slice is behind the port of its name and protocol, and behind no other Service.
#[test]
fn a_slice_is_behind_its_own_service_and_port() {
    let other = |change: &dyn Fn(&mut EndpointSlice)| {
        let mut slice = slice("other", &[NODE], 9000);
        change(&mut slice);
        Change::EndpointSlice(slice)
    };
    let strangers: [&dyn Fn(&mut EndpointSlice); 5] = [
        &|slice| slice.service = String::new(),
        &|slice| slice.service = "other".to_owned(),
        &|slice| slice.namespace = "other".to_owned(),
        &|slice| slice.ports[0].name = "metrics".to_owned(),
        &|slice| slice.ports[0].protocol = Protocol::UDP,
    ];
    for (case, stranger) in strangers.into_iter().enumerate() {
        let world = World::new([Change::Service(service("10.96.0.1")), other(stranger)]);
        assert_eq!(world.translated(), ["10.96.0.1:80"], "case {case}");
    }
}

/// Somebody on this node answers in the name of the Service: a DNS cache.
#[test]
fn all_backends_are_judged_where_the_virtual_address_is_the_nodes_own() {
    let world = World::new([
        Change::Service(service(NODE)),
        Change::EndpointSlice(slice("a", &["10.2.0.3", "10.2.0.4"], 8080)),
    ]);
    assert_eq!(world.translated(), ["192.168.0.1:80 10.2.0.3/8080 10.2.0.4/8080"]);
}

#[test]
fn an_own_address_that_leads_nowhere_is_not_translated() {
    let mut hijack = service("10.96.0.1");
    hijack.external_addresses = vec![ip(NODE), ip("192.0.2.1")];
    hijack.ports[0].node_port = Some(30080);
    let world = World::new([Change::Service(hijack.clone())]);
    assert_eq!(world.translated(), ["10.96.0.1:80", "192.0.2.1:80"], "no backend");

    let backend = Change::EndpointSlice(slice("a", &["10.2.0.3"], 8080));
    let world = World::new([Change::Service(hijack.clone()), backend.clone()]);
    let expected = [
        "10.1.0.254:30080 10.1.0.254/30080",
        "10.96.0.1:80",
        "192.0.2.1:80",
        "192.168.0.1:80 10.2.0.3/8080 192.168.0.1/80",
        "192.168.0.1:30080",
    ];
    assert_eq!(
        world.translated(),
        expected,
        "with one, and whether kube-proxy serves external addresses nobody says"
    );

    let world = World::new([Change::Service(Service { other_proxy: true, ..hijack }), backend]);
    assert_eq!(world.translated(), ["10.96.0.1:80", "192.0.2.1:80"], "kube-proxy leaves it alone");
}

#[test]
fn what_has_no_cluster_ip_is_not_translated() {
    let headless = Service {
        cluster_addresses: vec![],
        external_addresses: vec![ip("192.0.2.1")],
        ..service("10.96.0.1")
    };
    let world = World::new([Change::Service(headless), Change::EndpointSlice(slice("a", &[NODE], 8080))]);
    assert_eq!(world.translated(), Vec::<String>::new());
}

#[test]
fn node_ports_are_of_the_families_of_the_service() {
    let mut both = service("10.96.0.1");
    both.cluster_addresses.push(ip("fd00:96::1"));
    both.ports[0].node_port = Some(30080);
    let world = World::new([
        Change::Service(both),
        Change::EndpointSlice(slice("four", &["10.2.0.3"], 8080)),
        Change::EndpointSlice(slice("six", &["fd00:2::3"], 8080)),
    ]);
    let node_ports: Vec<String> =
        world.translated().into_iter().filter(|line| line.contains(":30080")).collect();
    let expected =
        ["10.1.0.254:30080 10.1.0.254/30080", "192.168.0.1:30080", "fd00:f::1:30080 fd00:f::1/30080"];
    assert_eq!(node_ports, expected);
}

/// A node port is one of this node's at its own addresses; at another node's it is an address, and so is a backend there that has
/// the network of its node.
#[test]
fn what_another_node_translates_is_an_address_here() {
    let mut service = service("10.96.0.1");
    service.ports[0].node_port = Some(30080);
    let far = Node {
        name: "n2".to_owned(),
        labels: BTreeMap::new(),
        addresses: vec![ip("192.168.0.2")],
        pod_cidrs: Vec::new(),
    };
    let backend = Pod {
        node: "n2".to_owned(),
        host_network: true,
        host_ports: vec![HostPort { address: None, protocol: Protocol::TCP, number: 8080 }],
        ..pod("far", "192.168.0.2")
    };
    let world = World::new([
        Change::Node(far),
        Change::Pod(backend),
        Change::Service(service),
        Change::EndpointSlice(slice("a", &["192.168.0.2"], 8080)),
    ]);
    let expected = ["10.1.0.254:30080 10.1.0.254/30080", "10.96.0.1:80", "192.168.0.1:30080"];
    assert_eq!(world.translated(), expected, "nothing at 192.168.0.2, and no backend here");
}

#[test]
fn two_services_with_one_address_are_judged_on_the_backends_of_both() {
    let hijack = Service {
        name: "hijack".to_owned(),
        external_addresses: vec![ip("10.96.0.1")],
        ..service("10.96.0.2")
    };
    let by_hand = EndpointSlice { service: "hijack".to_owned(), ..slice("by-hand", &[GATEWAY], 9000) };
    let world = World::new([
        Change::Service(service("10.96.0.1")),
        Change::Service(hijack),
        Change::EndpointSlice(slice("a", &[NODE], 8080)),
        Change::EndpointSlice(by_hand),
    ]);
    assert_eq!(
        world.translated(),
        ["10.96.0.1:80 10.1.0.254/9000 192.168.0.1/8080", "10.96.0.2:80 10.1.0.254/9000"]
    );
}

#[test]
fn host_ports_are_of_running_pods_here_at_the_addresses_they_name() {
    let host_port = |address: Option<&str>, number| HostPort {
        address: address.map(ip),
        protocol: Protocol::TCP,
        number,
    };
    let mut here = pod("here", "10.1.0.2");
    here.host_ports = vec![
        host_port(None, 8080),
        host_port(Some("0.0.0.0"), 8081),
        host_port(Some(NODE), 8082),
        host_port(Some("192.0.2.9"), 8083),
        host_port(Some("::"), 8084),
    ];
    let expected =
        ["10.1.0.254:8080", "10.1.0.254:8081", "192.168.0.1:8080", "192.168.0.1:8081", "192.168.0.1:8082"];
    assert_eq!(World::new([Change::Pod(here.clone())]).translated(), expected);
    let elsewhere = Pod { node: "n2".to_owned(), ..here.clone() };
    let starting = Pod { phase: Phase::Pending, ..here.clone() };
    let ended = Pod { phase: Phase::Terminal, ..here };
    for other in [elsewhere, starting, ended] {
        assert_eq!(World::new([Change::Pod(other.clone())]).translated(), Vec::<String>::new(), "{other:?}");
    }
}

/// The interface of the pod at 10.1.0.2.
fn link() -> Change {
    Change::Link(Link {
        ifindex: 7,
        name: "veth7".to_owned(),
        addresses: vec![ip("10.1.0.2")],
        mac: cellwall_abi::Mac::UNKNOWN,
        preexisting: false,
    })
}

/// An egress policy that tells so many addresses apart.
fn policy(addresses: &[String]) -> Change {
    let rule = |(index, address): (usize, &String)| Rule {
        peers: Some(vec![Peer::Block(Block {
            cidr: format!("{address}/32").parse().expect("a block"),
            except: Vec::new(),
        })]),
        ports: None,
        action: cellwall_policy::model::Action::Accept,
        index: u32::try_from(index).expect("a few"),
    };
    let policy = Policy {
        key: ObjectKey::namespaced(Kind::NetworkPolicy, "shop", "out"),
        kind: PolicyKind::NetworkPolicy,
        uid: String::new(),
        generation: 0,
        tier: Tier::NetworkPolicy,
        priority: 0,
        subject: Subject {
            namespaces: NamespaceMatch::Named("shop".to_owned()),
            pods: Selector::everything(),
        },
        isolates: [false, true],
        rules: [Vec::new(), addresses.iter().enumerate().map(rule).collect()],
    };
    Change::Policy(policy, Vec::new())
}

/// Backends that no policy tells apart are judged by two of them.
#[test]
fn more_backends_than_are_listed_are_a_problem_only_if_policies_tell_them_apart() {
    let addresses: Vec<String> = (1..=9).map(|n| format!("10.2.0.{n}")).collect();
    let texts: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mut changes = vec![Change::Service(service(NODE)), Change::EndpointSlice(slice("a", &texts, 8080))];
    let compiled = World::new(changes.clone()).compiled();
    assert_eq!(compiled.problems, []);
    assert_eq!(World::new(changes.clone()).translated(), ["192.168.0.1:80 10.2.0.1/8080 10.2.0.2/8080"]);

    changes.extend([Change::Pod(pod("here", "10.1.0.2")), link(), policy(&addresses[..3])]);
    let compiled = World::new(changes.clone()).compiled();
    assert_eq!(World::new(changes).translated(), ["192.168.0.1:80 too many"]);
    let problem = &compiled.problems[0];
    assert_eq!(problem.object, ObjectKey::namespaced(Kind::Service, "shop", "web"));
    assert!(problem.message.contains("at 192.168.0.1 port 80 more than 4 backends"), "{problem}");
}

#[test]
fn what_does_not_fit_is_refused_by_the_name_of_the_service() {
    let mut wide = service("10.96.0.1");
    wide.ports = (1..=9).map(|number| port("http", number)).collect();
    let narrow = Service { name: "narrow".to_owned(), ..service("10.96.0.2") };
    let world = World::new([Change::Service(wide), Change::Service(narrow)]);
    let room = |services| Capacities { services, ..Capacities::default() };
    let wanted = world.compiled().wanted;
    assert!(plan(&wanted, &Observed::default(), &room(10), 1).is_ok());
    let refusal = plan(&wanted, &Observed::default(), &room(9), 1).expect_err("ten rows");
    assert_eq!((refusal.table, refusal.wanted, refusal.capacity), ("SERVICES4", 10, 9));
    assert_eq!(refusal.object, "Service shop/web");
}

#[test]
fn a_service_that_leads_into_a_tunnel_of_a_node_leads_nowhere() {
    let tunnel = |address: &str, number, protocol: Protocol| {
        let mut service = service("10.96.0.1");
        service.ports[0].protocol = protocol;
        let mut slice = slice("by-hand", &[address], number);
        slice.ports[0].protocol = protocol;
        World::new([Change::Service(service), Change::EndpointSlice(slice)])
    };
    for number in [4789, 8472, 6081] {
        let world = tunnel(NODE, number, Protocol::UDP);
        assert_eq!(world.translated(), [format!("10.96.0.1:80 {NODE}/{number} tunnel")]);
        let problem = &world.compiled().problems[0];
        assert_eq!(problem.object, ObjectKey::namespaced(Kind::Service, "shop", "web"));
        assert!(problem.message.contains("port of tunnels at 192.168.0.1"), "{problem}");
    }
    // What ends there is no tunnel, or it ends at no node.
    assert_eq!(tunnel(NODE, 4789, Protocol::TCP).translated(), [format!("10.96.0.1:80 {NODE}/4789")]);
    assert_eq!(tunnel(NODE, 53, Protocol::UDP).translated(), [format!("10.96.0.1:80 {NODE}/53")]);
    assert_eq!(tunnel("203.0.113.9", 4789, Protocol::UDP).translated(), ["10.96.0.1:80"]);
}

/// Backends come and go without a pod's connections being judged again.
#[test]
fn backends_that_change_are_a_new_revision_and_no_new_since() {
    let first = [
        Change::Pod(pod("here", "10.1.0.2")),
        link(),
        policy(&["10.2.0.1".to_owned()]),
        Change::Service(service("10.96.0.1")),
    ];
    let room = Capacities::default();
    let mut world = World::new(first);
    let mut compiler = Compiler::new([1, 2]);
    let mut observed = Observed::default();
    let key = ServiceKey { address: ip("10.96.0.1"), port: 80, protocol: 6 };
    let mut seen = Vec::new();
    for backends in [&[NODE][..], &[GATEWAY][..], &[GATEWAY, "10.2.0.9"][..], &[][..]] {
        let mut touched = Touched::default();
        world.cluster.apply(Change::EndpointSlice(slice("a", backends, 8080)), &mut touched);
        assert!(touched.services && !touched.is_empty());
        let wanted = compiler.compile(&world.cluster, &touched).wanted;
        let ops = plan(&wanted, &observed, &room, 1).expect("there is room");
        observed = after(&observed, &ops);
        assert!(plan(&wanted, &observed, &room, 1).expect("there is room").is_empty());
        let lookup = Lookup::new(observed.clone());
        let record = *lookup.service(&key, observed.live.bank()).expect("it is translated");
        let since = lookup.record(lookup.slot(7).expect("it is there"), observed.live.bank()).since;
        seen.push((observed.live.0, since, line(&key, &record)));
    }
    let lines: Vec<&str> = seen.iter().map(|(_, _, line)| line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "10.96.0.1:80 192.168.0.1/8080",
            "10.96.0.1:80 10.1.0.254/8080",
            "10.96.0.1:80 10.1.0.254/8080",
            "10.96.0.1:80"
        ]
    );
    let revisions: Vec<u64> = seen.iter().map(|(live, ..)| live - seen[0].0).collect();
    assert_eq!(revisions, [0, 1, 1, 2], "one write for each change that is one");
    assert!(seen.iter().all(|(_, since, _)| *since == seen[0].1), "{seen:?}");

    // A Service that is gone leaves nothing behind.
    let mut touched = Touched::default();
    world.cluster.apply(Change::Gone(service("10.96.0.1").key()), &mut touched);
    let wanted = compiler.compile(&world.cluster, &touched).wanted;
    let ops = plan(&wanted, &observed, &room, 1).expect("there is room");
    observed = after(&observed, &ops);
    assert!(observed.services.is_empty() && observed.service_records.is_empty());
    assert!(plan(&wanted, &observed, &room, 1).expect("there is room").is_empty());
}

/// kube-proxy of a family knows no Service without a cluster IP of it, nor the external addresses of such a one; a slice by hand
/// may name backends of any.
#[test]
fn an_external_address_of_a_family_that_the_service_does_not_have_is_not_translated() {
    let mut hijack = service("10.96.0.1");
    hijack.external_addresses = vec![ip("fd00:f::1")];
    let by_hand = Change::EndpointSlice(slice("by-hand", &["fd00:2::3"], 8080));
    let world = World::new([Change::Service(hijack), by_hand]);
    assert_eq!(world.translated(), ["10.96.0.1:80"], "its packets are delivered here, seen by nobody");
}

/// What was sent to an address as it is may be translated once the address is a Service's.
#[test]
fn what_becomes_a_service_is_judged_again_and_what_was_one_is_not() {
    let mut world =
        World::new([Change::Pod(pod("here", "10.1.0.2")), link(), policy(&["10.2.0.1".to_owned()])]);
    let mut observed = Observed::default();
    let mut since = |world: &World| {
        let wanted = world.compiled().wanted;
        let ops = plan(&wanted, &observed, &Capacities::default(), 1).expect("there is room");
        observed = after(&observed, &ops);
        let lookup = Lookup::new(observed.clone());
        let record = lookup.record(lookup.slot(7).expect("it is there"), observed.live.bank()).since;
        (observed.live.0, record)
    };
    let first = since(&world);
    assert_eq!(first.0, first.1);
    world.cluster.apply(Change::Service(service("10.96.0.1")), &mut Touched::default());
    let added = since(&world);
    assert!(added.0 > first.0 && added.1 == added.0, "{added:?}");
    world.cluster.apply(Change::EndpointSlice(slice("a", &[NODE], 8080)), &mut Touched::default());
    let changed = since(&world);
    assert!(changed.0 > added.0 && changed.1 == added.1, "{changed:?}");
    world.cluster.apply(Change::Gone(service("10.96.0.1").key()), &mut Touched::default());
    let gone = since(&world);
    assert!(gone.0 > changed.0 && gone.1 == added.1, "{gone:?}");
    assert_eq!(since(&world), gone, "nothing is new");
}

/// Nobody sees which backend is chosen where one of them is here; what is denied whole is nobody's mistake.
#[test]
fn a_denied_backend_here_is_a_problem_where_another_one_is_allowed() {
    const THERE: &str = "10.2.0.3";
    let problems = |service: Service, backends: &[&str], allowed: &[&str], more: &[Change]| -> Vec<String> {
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        let slice = Change::EndpointSlice(slice("a", backends, 8080));
        let own =
            [Change::Service(service), slice, Change::Pod(pod("here", "10.1.0.2")), link(), policy(&allowed)];
        let compiled = World::new(own.into_iter().chain(more.iter().cloned())).compiled();
        compiled.problems.iter().map(ToString::to_string).collect()
    };
    let with_node_port = || {
        let mut service = service("10.96.0.1");
        service.ports[0].node_port = Some(30080);
        service
    };
    let found = problems(with_node_port(), &[NODE, THERE], &[THERE], &[]);
    assert_eq!(found.len(), 1, "one for all its addresses: {found:?}");
    let expected = "keep Pod shop/here from 192.168.0.1 port 8080";
    assert!(found[0].starts_with("Service shop/web: at 10.96.0.1 port 80 "), "{found:?}");
    assert!(found[0].contains(expected), "{found:?}");
    for allowed in [&[NODE, THERE][..], &[NODE], &[]] {
        assert_eq!(
            problems(with_node_port(), &[NODE, THERE], allowed, &[]),
            Vec::<String>::new(),
            "{allowed:?}"
        );
    }
    // Only whoever is here is judged at the source, and the address of a port of the node is no backend.
    assert_eq!(problems(with_node_port(), &[THERE, "10.2.0.4"], &[THERE], &[]), Vec::<String>::new());
    // Where the Service's own address is here, all are; but a pod is not kept from itself.
    assert_eq!(problems(service(NODE), &[THERE, "10.2.0.4"], &[THERE], &[]).len(), 1);
    assert_eq!(problems(service(NODE), &[THERE, "10.1.0.2"], &[THERE], &[]), Vec::<String>::new());

    let twin = Change::Pod(pod("twin", "10.1.0.3"));
    let Change::Link(first) = link() else { unreachable!("a link") };
    let second = Change::Link(Link { ifindex: 8, addresses: vec![ip("10.1.0.3")], ..first });
    let found = problems(service("10.96.0.1"), &[NODE, THERE], &[THERE], &[twin, second]);
    assert!(found[0].contains("keep Pod shop/here and 1 more of this node from"), "{found:?}");
    let audited = Change::Pod(Pod { audit: true, ..pod("here", "10.1.0.2") });
    assert_eq!(problems(service("10.96.0.1"), &[NODE, THERE], &[THERE], &[audited]), Vec::<String>::new());
}
