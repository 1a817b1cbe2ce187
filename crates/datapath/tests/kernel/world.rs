//! A node with pods, policies in the model's words, and what follows from them in the kernel.

use std::net::IpAddr;

use cellwall_abi::{Direction, Mac, Reason};
use cellwall_datapath::{Datapath, now_tick};
use cellwall_policy::compile::Compiler;
use cellwall_policy::flow::Protocol;
use cellwall_policy::model::{
    Action, Block, Change, Cluster, Kind, Labels, Link, Namespace, NamespaceMatch, ObjectKey, Peer, Phase,
    Pod, Policy, PolicyKind, Port, PortRange, Requirement, Rule, Selector, Subject, Tier, Touched,
};
use cellwall_policy::plan::{Op, plan};
use cellwall_policy::wanted::Observed;
use cellwall_testkit::net;

use crate::place::Place;

const NODE: &str = "n1";
const NAMESPACE: &str = "default";
/// The label of pods, and that of their namespace.
const APP: &str = "app";
const TEAM: &str = "team";

/// The data path and everything that leads to its plans.
pub(crate) struct World {
    pub(crate) datapath: Datapath,
    cluster: Cluster,
    compiler: Compiler,
    touched: Touched,
    observed: Observed,
    capacities: cellwall_policy::plan::Capacities,
}

impl World {
    pub(crate) fn new(place: &Place) -> Self {
        let datapath = Datapath::open(&place.settings).expect("a data path");
        let mut world = Self {
            compiler: Compiler::new(datapath.secret()),
            observed: datapath.observe().expect("tables"),
            cluster: Cluster::new(NODE),
            touched: Touched::default(),
            capacities: place.settings.capacities,
            datapath,
        };
        world.team("none");
        world
    }

    /// Tells that the namespace of all pods has the label `team: <team>`.
    pub(crate) fn team(&mut self, team: &str) {
        let mut labels = labels("kubernetes.io/metadata.name", NAMESPACE);
        labels.insert(TEAM.to_owned(), team.to_owned());
        self.tell(Change::Namespace(Namespace {
            name: NAMESPACE.to_owned(),
            labels,
            audit: false,
            deleting: false,
        }));
    }

    pub(crate) fn tell(&mut self, change: Change) {
        self.cluster.apply(change, &mut self.touched);
    }

    /// Tells of a pod that runs here, with the label `app: <name>`, and of its interface.
    pub(crate) fn pod(&mut self, name: &str, pod: &net::Pod) {
        self.pod_with(name, pod, &pod.addresses());
    }

    /// The same of a pod that runs longer than whoever enforces.
    pub(crate) fn running_pod(&mut self, name: &str, pod: &net::Pod) {
        self.place(name, pod, &pod.addresses(), true);
    }

    /// The same of a pod that is known by these of its addresses alone.
    pub(crate) fn pod_with(&mut self, name: &str, pod: &net::Pod, addresses: &[IpAddr]) {
        self.place(name, pod, addresses, false);
    }

    fn place(&mut self, name: &str, pod: &net::Pod, addresses: &[IpAddr], preexisting: bool) {
        self.tell(Change::Link(Link {
            ifindex: pod.ifindex,
            name: pod.interface.clone(),
            addresses: addresses.to_vec(),
            mac: Mac::from_octets(pod.mac),
            preexisting,
        }));
        self.tell(Change::Pod(model_pod(name, NODE, addresses)));
    }

    /// Tells that a pod that runs here has the label `app: <app>`, whatever its name.
    pub(crate) fn pod_of_app(&mut self, name: &str, app: &str, addresses: &[IpAddr]) {
        self.tell(Change::Pod(Pod { labels: labels(APP, app), ..model_pod(name, NODE, addresses) }));
    }

    /// Tells that a pod that runs here has the annotation that asks for audit.
    pub(crate) fn audited(&mut self, name: &str, pod: &net::Pod) {
        self.tell(Change::Pod(Pod { audit: true, ..model_pod(name, NODE, &pod.addresses()) }));
    }

    /// Audit of the whole node.
    pub(crate) const fn audit_all(&mut self, audit: bool) {
        self.cluster.audit_all = audit;
    }

    /// Tells of a pod on another node.
    pub(crate) fn far_pod(&mut self, name: &str, addresses: &[IpAddr]) {
        self.tell(Change::Pod(model_pod(name, "n2", addresses)));
    }

    pub(crate) fn forget_pod(&mut self, name: &str) {
        self.tell(Change::Gone(ObjectKey::namespaced(Kind::Pod, NAMESPACE, name)));
    }

    /// Isolates the pods `app: <subject>` in one direction, but for `rules`.
    pub(crate) fn policy(&mut self, name: &str, subject: &str, direction: Direction, rules: Vec<Rule>) {
        let mut policy = Policy {
            key: policy_key(name),
            kind: PolicyKind::NetworkPolicy,
            uid: String::new(),
            generation: 1,
            tier: Tier::NetworkPolicy,
            priority: 0,
            subject: Subject { namespaces: NamespaceMatch::Named(NAMESPACE.to_owned()), pods: app(subject) },
            isolates: [false; 2],
            rules: [Vec::new(), Vec::new()],
        };
        policy.isolates[direction as usize] = true;
        policy.rules[direction as usize] = rules;
        self.tell(Change::Policy(policy, Vec::new()));
    }

    pub(crate) fn forget_policy(&mut self, name: &str) {
        self.tell(Change::Gone(policy_key(name)));
    }

    /// Brings everything that was told into the kernel, and the programs onto new interfaces. Returns the plan.
    pub(crate) fn converge(&mut self) -> Vec<Op> {
        let touched = std::mem::take(&mut self.touched);
        let compiled = self.compiler.compile(&self.cluster, &touched);
        let ops = plan(&compiled.wanted, &self.observed, &self.capacities, now_tick()).expect("it fits");
        self.datapath.run_all(&ops).expect("a plan");
        for op in &ops {
            op.apply_to(&mut self.observed);
        }
        let attached = self.datapath.attached().expect("links");
        for ifindex in compiled.wanted.endpoints.keys().filter(|at| !attached.contains_key(at)) {
            self.datapath.attach(*ifindex).expect("an interface");
        }
        ops
    }

    /// The tables are what the planner thinks they are.
    pub(crate) fn assert_no_drift(&self) {
        assert_eq!(self.datapath.observe().expect("tables"), self.observed);
    }

    /// Packets of a reason and direction so far.
    pub(crate) fn count(&self, reason: Reason, direction: Direction) -> u64 {
        let all = self.datapath.counters().expect("counters");
        all.into_iter().find(|(r, d, _)| (*r, *d) == (reason, direction)).map_or(0, |(_, _, c)| c.packets)
    }

    /// Packets dropped so far, for any reason, in both directions.
    pub(crate) fn drops(&self) -> u64 {
        let all = self.datapath.counters().expect("counters");
        all.iter().filter(|(reason, _, _)| reason.is_drop()).map(|(_, _, counter)| counter.packets).sum()
    }
}

fn policy_key(name: &str) -> ObjectKey {
    ObjectKey::namespaced(Kind::NetworkPolicy, NAMESPACE, name)
}

fn labels(key: &str, value: &str) -> Labels {
    [(key.to_owned(), value.to_owned())].into()
}

fn app(name: &str) -> Selector {
    with_label(APP, name)
}

fn with_label(key: &str, value: &str) -> Selector {
    Selector::new(vec![Requirement::In(key.to_owned(), [value.to_owned()].into())])
}

fn model_pod(name: &str, node: &str, addresses: &[IpAddr]) -> Pod {
    Pod {
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        labels: labels(APP, name),
        addresses: addresses.to_vec(),
        node: node.to_owned(),
        host_network: false,
        phase: Phase::Running,
        deleting: false,
        created_s: 1,
        ports: Vec::new(),
        host_ports: Vec::new(),
        audit: false,
    }
}

/// Pods with the label `app: <name>`.
pub(crate) fn pods(name: &str) -> Peer {
    Peer::Pods(NamespaceMatch::Named(NAMESPACE.to_owned()), app(name))
}

/// The same in namespaces with the label `team: <team>`.
pub(crate) fn pods_of_team(team: &str, name: &str) -> Peer {
    Peer::Pods(NamespaceMatch::Labels(with_label(TEAM, team)), app(name))
}

/// A range of addresses.
pub(crate) fn block(cidr: &str) -> Peer {
    Peer::Block(Block { cidr: cidr.parse().expect("a CIDR"), except: Vec::new() })
}

/// Allows these peers these ports; none: all ports of all protocols.
pub(crate) fn allow(peers: Vec<Peer>, ports: &[(Protocol, u16)]) -> Rule {
    let range =
        |(protocol, port): &(Protocol, u16)| Port::Range(*protocol, PortRange { low: *port, high: *port });
    let ports: Vec<Port> = ports.iter().map(range).collect();
    Rule { peers: Some(peers), ports: (!ports.is_empty()).then_some(ports), action: Action::Accept, index: 0 }
}
