//! Which rules decide for a pod, in the order in which they are asked.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use super::intern::Interner;
use super::sets::{PeerSet, Resolved};
use crate::flow::{Direction, Protocol};
use crate::model::{Action, Cluster, Peer, Pod, Policy, Port, PortRange, Rule, RuleRef, Tier};

/// A rule as a pod's image has it: sets and rules by id, named ports resolved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FlatRule {
    pub(crate) tier: Tier,
    pub(crate) action: Action,
    /// Id of the peer set; `None`: any address.
    pub(crate) peers: Option<u32>,
    /// `None`: all ports of all protocols.
    pub(crate) ports: Option<Vec<(Protocol, PortRange)>>,
    /// Id of the rule in verdicts.
    pub(crate) rule: u32,
}

/// What makes two images the same: the rules that decide for a pod in one direction, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Image {
    pub(crate) rules: Vec<FlatRule>,
    /// Some NetworkPolicy isolates the pod in this direction.
    pub(crate) isolated: bool,
}

impl Image {
    /// True when no policy says anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty() && !self.isolated
    }

    /// What a pod gets that cannot be told from another: everything denied.
    pub(crate) const fn closed() -> Self {
        Self { rules: Vec::new(), isolated: true }
    }
}

/// Numbers that a port name means on the pods of the cluster.
pub(crate) type PortNames<'a> = BTreeMap<&'a str, BTreeSet<(Protocol, u16)>>;

/// All port names of the cluster's pods.
pub(crate) fn port_names(cluster: &Cluster) -> PortNames<'_> {
    let mut names = PortNames::new();
    for pod in cluster.pods.values().filter(|pod| !cluster.addresses_of(pod).is_empty()) {
        for port in &pod.ports {
            names.entry(&port.name).or_default().insert((port.protocol, port.number));
        }
    }
    names
}

/// The policies that select a pod, in the order in which they are asked: tier, priority, then name (C1, C2, C3).
pub(crate) fn selecting<'a>(cluster: &'a Cluster, pod: &Pod) -> Vec<&'a Policy> {
    let mut policies: Vec<&Policy> =
        cluster.policies.values().filter(|policy| cluster.selects(policy, pod)).collect();
    policies.sort_by(|a, b| (a.tier, a.priority, &a.key).cmp(&(b.tier, b.priority, &b.key)));
    policies
}

/// Turns policies into images, collecting the sets they use.
#[derive(Debug)]
pub(crate) struct Lowering<'a> {
    pub(crate) names: &'a PortNames<'a>,
    pub(crate) set_ids: &'a mut Interner<PeerSet>,
    pub(crate) rule_ids: &'a mut Interner<RuleRef>,
    /// The sets in use, by id.
    pub(crate) sets: BTreeMap<u32, PeerSet>,
    /// The rules in use, by id.
    pub(crate) rules: BTreeMap<u32, RuleRef>,
    /// Which rule uses which set: (set, rule).
    pub(crate) users: BTreeSet<(u32, u32)>,
    /// How many ranges of ports a rule names, where it names some.
    pub(crate) ranges: BTreeMap<u32, usize>,
}

impl Lowering<'_> {
    /// The image of a pod in one direction.
    pub(crate) fn image(&mut self, policies: &[&Policy], pod: &Pod, direction: Direction) -> Image {
        let mut image = Image::default();
        for policy in policies {
            image.isolated |= policy.isolates[direction as usize];
            for rule in &policy.rules[direction as usize] {
                self.rule(&mut image, policy, rule, pod, direction);
            }
        }
        image
    }

    fn rule(&mut self, image: &mut Image, policy: &Policy, rule: &Rule, pod: &Pod, direction: Direction) {
        let reference = RuleRef { policy: policy.key.clone(), direction, index: rule.index };
        let id = self.rule_ids.id(&reference);
        self.rules.insert(id, reference);
        let add = |image: &mut Image, peers, ports| {
            image.rules.push(FlatRule { tier: policy.tier, action: action(rule), peers, ports, rule: id });
        };
        let Some(ports) = &rule.ports else {
            let peers = self.peers(rule, id, None);
            add(image, peers, None);
            return;
        };
        if !ports.is_empty() {
            self.ranges.insert(id, ports.len());
        }
        let mut ranges = Vec::new();
        for port in ports {
            match port {
                Port::Range(protocol, range) => ranges.push((*protocol, *range)),
                Port::Named(name, protocol) => match direction {
                    Direction::Ingress => ranges.extend(on_subject(pod, name, *protocol)),
                    Direction::Egress if crate::planted("port-name-of-the-subject") => {
                        ranges.extend(on_subject(pod, name, *protocol));
                    }
                    Direction::Egress => {
                        for resolved in self.on_peers(name, *protocol) {
                            let range = one(resolved.protocol, resolved.number);
                            let peers = self.peers(rule, id, Some(resolved));
                            add(image, peers, Some(alloc::vec![range]));
                        }
                    }
                },
            }
        }
        if !ranges.is_empty() {
            ranges.sort();
            ranges.dedup();
            let peers = self.peers(rule, id, None);
            add(image, peers, Some(ranges));
        }
    }

    /// The id of the set of a rule's peers; `None` for any address.
    fn peers(&mut self, rule: &Rule, rule_id: u32, port: Option<Resolved>) -> Option<u32> {
        let denies = action(rule) == Action::Deny;
        let set = match (&rule.peers, port) {
            (None, None) => return None,
            (None, Some(port)) => PeerSet::all_pods(port),
            // What a Deny does not understand, it denies (C26).
            (Some(_), _) if denies && is_half_understood(rule) => return None,
            (Some(peers), port) => PeerSet::new(peers, port, denies),
        };
        let id = self.set_ids.id(&set);
        self.sets.insert(id, set);
        self.users.insert((id, rule_id));
        Some(id)
    }

    /// All that a port name means on some pod of the cluster, for one protocol or any.
    fn on_peers(&self, name: &str, protocol: Option<Protocol>) -> Vec<Resolved> {
        let numbers = self.names.get(name).into_iter().flatten();
        numbers
            .filter(|(declared, _)| protocol.is_none_or(|wanted| wanted == *declared))
            .map(|(declared, number)| Resolved {
                name: String::from(name),
                protocol: *declared,
                number: *number,
            })
            .collect()
    }
}

/// What a rule does. A Pass of which a peer is not understood denies: whom it would have left to policies that deny may be
/// anybody, and to match nobody would leave them to an Accept behind it (C26).
fn action(rule: &Rule) -> Action {
    let is_closed = rule.action == Action::Pass && is_half_understood(rule);
    if is_closed && !crate::planted("what-is-half-understood-passes") { Action::Deny } else { rule.action }
}

fn is_half_understood(rule: &Rule) -> bool {
    rule.peers.as_ref().is_some_and(|peers| peers.contains(&Peer::Unknown))
}

/// What a port name means on the subject of an ingress rule.
fn on_subject(pod: &Pod, name: &str, protocol: Option<Protocol>) -> Vec<(Protocol, PortRange)> {
    pod.ports
        .iter()
        .filter(|port| port.name == name && protocol.is_none_or(|wanted| wanted == port.protocol))
        .map(|port| one(port.protocol, port.number))
        .collect()
}

const fn one(protocol: Protocol, number: u16) -> (Protocol, PortRange) {
    (protocol, PortRange { low: number, high: number })
}
