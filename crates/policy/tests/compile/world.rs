//! Clusters in the model's words.

use cellwall_abi::Mac;
use cellwall_policy::flow::Protocol;
use cellwall_policy::model::{
    Action, Block, Change, Cluster, Kind, Labels, Link, Namespace, NamespaceMatch, ObjectKey, Peer, Phase,
    Pod, Policy, PolicyKind, Port, PortRange, Requirement, Rule, Selector, Subject, Tier, Touched,
};

pub(crate) const NAMESPACE: &str = "shop";

/// A cluster of one namespace with `pods` pods, `pod0` and so on, which run here.
pub(crate) fn cluster(pods: u32) -> Cluster {
    let mut cluster = Cluster::new("here");
    tell(&mut cluster, Change::Namespace(namespace(NAMESPACE, false)));
    for index in 0..pods {
        let pod = pod(&format!("pod{index}"), index);
        tell(&mut cluster, Change::Link(link(index, &pod)));
        tell(&mut cluster, Change::Pod(pod));
    }
    cluster
}

pub(crate) fn tell(cluster: &mut Cluster, change: Change) {
    cluster.apply(change, &mut Touched::default());
}

pub(crate) fn namespace(name: &str, audit: bool) -> Namespace {
    Namespace { name: name.to_owned(), labels: Labels::new(), audit, deleting: false }
}

/// The pod with the `index`th address and the label `app: <name>`.
pub(crate) fn pod(name: &str, index: u32) -> Pod {
    Pod {
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        uid: String::new(),
        labels: [("app".to_owned(), name.to_owned())].into(),
        addresses: vec![format!("10.1.0.{}", index + 1).parse().expect("an address")],
        node: "here".to_owned(),
        host_network: false,
        phase: Phase::Running,
        deleting: false,
        created_s: 0,
        ports: Vec::new(),
        host_ports: Vec::new(),
        audit: false,
    }
}

/// The `index`th interface, with a pod's addresses.
pub(crate) fn link(index: u32, pod: &Pod) -> Link {
    Link {
        ifindex: index + 1,
        name: format!("veth{index}"),
        addresses: pod.addresses.clone(),
        mac: Mac::UNKNOWN,
        preexisting: false,
    }
}

fn app(name: &str) -> Selector {
    Selector::new(vec![Requirement::In("app".to_owned(), [name.to_owned()].into())])
}

/// Pods with the label `app: <name>`.
pub(crate) fn pods(name: &str) -> Peer {
    Peer::Pods(NamespaceMatch::Named(NAMESPACE.to_owned()), app(name))
}

pub(crate) fn block(cidr: &str, except: &[String]) -> Peer {
    let net = |text: &str| text.parse().expect("a CIDR");
    Peer::Block(Block { cidr: net(cidr), except: except.iter().map(|text| net(text)).collect() })
}

/// Allows these peers, `None` for any address, the TCP ports from the first to the second; none: all ports.
pub(crate) fn allow(peers: Option<Vec<Peer>>, ports: &[(u16, u16)]) -> Rule {
    let range = |(low, high): &(u16, u16)| Port::Range(Protocol::TCP, PortRange { low: *low, high: *high });
    let ports: Vec<Port> = ports.iter().map(range).collect();
    Rule { peers, ports: (!ports.is_empty()).then_some(ports), action: Action::Accept, index: 0 }
}

/// Isolates the pods `app: <subject>`, or all without one, for ingress, but for `rules`.
pub(crate) fn policy(name: &str, subject: Option<&str>, rules: Vec<Rule>) -> Change {
    let number = |(index, rule): (usize, Rule)| Rule { index: u32::try_from(index).expect("few"), ..rule };
    let policy = Policy {
        key: ObjectKey::namespaced(Kind::NetworkPolicy, NAMESPACE, name),
        kind: PolicyKind::NetworkPolicy,
        uid: String::new(),
        generation: 1,
        tier: Tier::NetworkPolicy,
        priority: 0,
        subject: Subject {
            namespaces: NamespaceMatch::Named(NAMESPACE.to_owned()),
            pods: subject.map_or_else(Selector::everything, app),
        },
        isolates: [true, false],
        rules: [rules.into_iter().enumerate().map(number).collect(), Vec::new()],
    };
    Change::Policy(policy, Vec::new())
}
