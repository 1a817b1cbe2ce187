//! All that is known, and the one way to change it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use cellwall_abi::Mac;
use ipnet::IpNet;

use super::{
    Announced, Change, EndpointSlice, Kind, Link, Namespace, NamespaceMatch, Node, ObjectKey, Pod, Policy,
    Problem, Service,
};

/// Settings and state of the cluster as this node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Name of this node: pods with it in `spec.nodeName` are enforced here.
    pub node_name: String,
    /// Pod ranges from settings, beside those of the nodes.
    pub pod_cidrs: Vec<IpNet>,
    /// Every pod is audited, whatever its annotations say.
    pub audit_all: bool,
    /// Pods may always send to the addresses of this node, whatever policies say (S62).
    pub egress_to_own_node: bool,
    /// Namespaces by name.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Pods.
    pub pods: BTreeMap<ObjectKey, Pod>,
    /// Services.
    pub services: BTreeMap<ObjectKey, Service>,
    /// Where Services lead.
    pub slices: BTreeMap<ObjectKey, EndpointSlice>,
    /// Policies of all dialects.
    pub policies: BTreeMap<ObjectKey, Policy>,
    /// Interfaces of this node, by index.
    pub links: BTreeMap<u32, Link>,
    /// Pods whose object is gone while an interface here still has an address of theirs, by its index. What was deleted by
    /// force may run on: its policies stand as long as it has an interface (S83).
    pub departed: BTreeMap<u32, Pod>,
    /// What an earlier agent left at interfaces where it knew who is there.
    pub left: BTreeMap<u32, Left>,
    /// Pods of this node that the CNI plugin told of.
    pub announced: BTreeMap<ObjectKey, Announced>,
    /// Addresses of this node's own interfaces.
    pub node_addresses: BTreeSet<IpAddr>,
    /// What is wrong with objects, by object.
    pub problems: BTreeMap<ObjectKey, Vec<Problem>>,
}

/// What an earlier agent knew of an interface, as its tables say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// By which it knew who is there.
    pub addresses: Vec<IpAddr>,
    /// Of the other end, or unknown.
    pub mac: Mac,
    /// Per direction: it isolated whoever is there. While nobody known is, that one may still be, and who it was is not
    /// known any more: the interface is closed (S83).
    pub isolated: [bool; 2],
}

impl Left {
    /// True when an interface is the same one, and not a later one with its index: then its other end has another address.
    fn is_at(&self, link: &Link) -> bool {
        self.mac == Mac::UNKNOWN || self.mac == link.mac
    }
}

/// What a change can have moved; what is not named here compiles to what it compiled to before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is about something else, and any of them may be set")]
pub struct Touched {
    /// Pods whose labels, addresses, ports, place or being changed.
    pub pods: BTreeSet<ObjectKey>,
    /// Namespaces whose labels changed.
    pub namespaces: BTreeSet<String>,
    /// Services or their backends changed.
    pub services: bool,
    /// Policies changed.
    pub policies: bool,
    /// Nodes, node addresses or interfaces changed.
    pub topology: bool,
    /// Only problems changed: nothing to compile, something to report.
    pub problems: bool,
}

impl Touched {
    /// True when nothing needs compiling.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
            && self.namespaces.is_empty()
            && !self.services
            && !self.policies
            && !self.topology
    }
}

/// Puts `value` at `key`; true when that changed anything.
pub(super) fn put<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: V) -> bool {
    if map.get(&key) == Some(&value) {
        return false;
    }
    map.insert(key, value);
    true
}

impl Cluster {
    /// An empty cluster as seen from `node_name`.
    #[must_use]
    pub fn new(node_name: &str) -> Self {
        Self { node_name: node_name.to_string(), ..Self::default() }
    }

    /// Takes a change and adds what it moved to `touched`. The result depends only on the last change of each
    /// object, not on their order; but for pods that leave an interface behind.
    pub fn apply(&mut self, change: Change, touched: &mut Touched) {
        match change {
            Change::Namespace(namespace) => {
                let name = namespace.name.clone();
                touched.problems |=
                    self.problems.remove(&ObjectKey::cluster(Kind::Namespace, &name)).is_some();
                let is_heard =
                    !crate::planted("namespaces-keep-their-labels") || !self.namespaces.contains_key(&name);
                if is_heard && put(&mut self.namespaces, name.clone(), namespace) {
                    touched.namespaces.insert(name);
                }
            }
            Change::Node(node) => {
                let name = node.name.clone();
                touched.problems |= self.problems.remove(&ObjectKey::cluster(Kind::Node, &name)).is_some();
                touched.topology |= put(&mut self.nodes, name, node);
            }
            Change::Pod(pod) => {
                let key = pod.key();
                touched.problems |= self.problems.remove(&key).is_some();
                if let Some(earlier) = self.pods.get(&key).filter(|earlier| earlier.uid != pod.uid) {
                    self.depart(earlier.clone());
                }
                if put(&mut self.pods, key.clone(), pod) {
                    touched.pods.insert(key);
                }
            }
            Change::Service(service) => {
                let key = service.key();
                touched.problems |= self.problems.remove(&key).is_some();
                touched.services |= put(&mut self.services, key, service);
            }
            Change::EndpointSlice(slice) => {
                let key = slice.key();
                touched.problems |= self.problems.remove(&key).is_some();
                touched.services |= put(&mut self.slices, key, slice);
            }
            Change::Policy(policy, problems) => {
                let key = policy.key.clone();
                touched.policies |= put(&mut self.policies, key.clone(), policy);
                touched.problems |= if problems.is_empty() {
                    self.problems.remove(&key).is_some()
                } else {
                    put(&mut self.problems, key, problems)
                };
            }
            Change::Bad(problem) => {
                touched.problems |= put(&mut self.problems, problem.object.clone(), alloc::vec![problem]);
            }
            Change::Gone(key) => self.remove(&key, touched),
            Change::Listed(kind, present) => self.keep_only(kind, present, touched),
            Change::Link(link) => {
                let link = self.as_identified(link);
                touched.topology |= put(&mut self.links, link.ifindex, link);
            }
            Change::LinkGone(ifindex) => {
                self.departed.remove(&ifindex);
                self.left.remove(&ifindex);
                touched.topology |= self.links.remove(&ifindex).is_some();
                self.withdraw_at(ifindex);
            }
            Change::Announced(announced) => self.announce(announced, touched),
            Change::NodeAddresses(addresses) => {
                let addresses = addresses.into_iter().collect();
                touched.topology |= self.node_addresses != addresses;
                self.node_addresses = addresses;
            }
        }
    }

    fn remove(&mut self, key: &ObjectKey, touched: &mut Touched) {
        touched.problems |= self.problems.remove(key).is_some();
        match key.kind {
            Kind::Namespace => {
                if self.namespaces.remove(&key.name).is_some() {
                    touched.namespaces.insert(key.name.clone());
                }
            }
            Kind::Node => touched.topology |= self.nodes.remove(&key.name).is_some(),
            Kind::Pod => {
                if let Some(pod) = self.pods.remove(key) {
                    self.depart(pod);
                    touched.pods.insert(key.clone());
                }
            }
            Kind::Service => touched.services |= self.services.remove(key).is_some(),
            Kind::EndpointSlice => touched.services |= self.slices.remove(key).is_some(),
            Kind::NetworkPolicy | Kind::ClusterNetworkPolicy => {
                if let Some(policy) = self.policies.get(key).cloned() {
                    self.close_departed(&policy);
                    self.policies.remove(key);
                    touched.policies = true;
                }
            }
        }
    }

    /// The addresses at the other end say who is there, and whoever is there may change them (CAP_NET_ADMIN in its own
    /// namespace): so those count with which a pod was found, by this agent or an earlier one, until the interface is gone.
    fn as_identified(&mut self, link: Link) -> Link {
        if crate::planted("who-changes-addresses-is-free") {
            return link;
        }
        let Some(known) = self.links.get(&link.ifindex) else {
            let left = self.left.get(&link.ifindex).filter(|left| left.is_at(&link)).cloned();
            let Some(Left { addresses, .. }) = left else {
                self.left.remove(&link.ifindex);
                return link;
            };
            return Link { addresses, ..link };
        };
        let is_left = self.left.get(&link.ifindex).is_some_and(|left| !left.addresses.is_empty());
        let is_departed = self.departed.contains_key(&link.ifindex) || is_left;
        if !is_departed && !self.pods.values().any(|pod| self.is_at(pod, known)) {
            return link;
        }
        let mac = if known.mac == Mac::UNKNOWN { link.mac } else { known.mac };
        Link { addresses: known.addresses.clone(), mac, ..link }
    }

    /// True when a pod of this node is behind an interface: it was announced there, or has an address of its other end.
    fn is_at(&self, pod: &Pod, link: &Link) -> bool {
        let is_its = |address| self.addresses_of(pod).contains(address);
        let announced = self.announcement_of(pod).map(|announced| announced.is_at(link));
        pod.node == self.node_name && announced.unwrap_or_else(|| link.addresses.iter().any(is_its))
    }

    /// Remembers a pod of this node whose object is gone, at the interfaces that have its addresses or where it was
    /// announced, and forgets its announcement.
    fn depart(&mut self, pod: Pod) {
        let addresses = self.addresses_of(&pod).to_vec();
        let at = self.links.values().filter(|link| self.is_at(&pod, link)).map(|link| link.ifindex);
        let at: Vec<u32> = at.collect();
        let announced = self.withdraw_of(&pod);
        if addresses.is_empty() || crate::planted("who-is-gone-is-free") {
            return;
        }
        if announced.is_some() && crate::planted("who-waits-is-nobody") {
            return;
        }
        let pod = Pod { addresses, ..pod };
        self.departed.extend(at.into_iter().map(|ifindex| (ifindex, pod.clone())));
    }

    /// A namespace takes its policies with it, in any order (KEP-5080), and a pod of it that was deleted by force may run
    /// on: its interface is closed as if nobody knew who was there.
    fn close_departed(&mut self, policy: &Policy) {
        let goes = |pod: &Pod| self.namespaces.get(&pod.namespace).is_none_or(|n| n.deleting);
        let is_its = |pod: &Pod| self.selects(policy, pod) && goes(pod) && !self.is_audited(Some(pod));
        let closed: Vec<(u32, [bool; 2])> = self
            .departed
            .iter()
            .filter(|(_, pod)| is_its(pod) && !crate::planted("policies-go-with-their-namespace"))
            .map(|(ifindex, pod)| (*ifindex, self.isolated(pod)))
            .collect();
        for (ifindex, isolated) in closed {
            self.departed.remove(&ifindex);
            if let Some(Link { addresses, mac, .. }) = self.links.get(&ifindex).cloned() {
                self.left.insert(ifindex, Left { addresses, mac, isolated });
            }
        }
    }

    /// Per direction: some policy isolates the pod or has rules for it.
    fn isolated(&self, pod: &Pod) -> [bool; 2] {
        let policies: Vec<&Policy> =
            self.policies.values().filter(|policy| self.selects(policy, pod)).collect();
        [0, 1].map(|d| policies.iter().any(|policy| policy.isolates[d] || !policy.rules[d].is_empty()))
    }

    fn keep_only(&mut self, kind: Kind, present: Vec<ObjectKey>, touched: &mut Touched) {
        let present: BTreeSet<ObjectKey> = present.into_iter().collect();
        let gone: Vec<ObjectKey> = self.keys(kind).into_iter().filter(|key| !present.contains(key)).collect();
        for key in &gone {
            self.remove(key, touched);
        }
        let stale: Vec<ObjectKey> =
            self.problems.keys().filter(|k| k.kind == kind && !present.contains(*k)).cloned().collect();
        for key in stale {
            touched.problems |= self.problems.remove(&key).is_some();
        }
    }

    fn keys(&self, kind: Kind) -> Vec<ObjectKey> {
        match kind {
            Kind::Namespace => self.namespaces.keys().map(|n| ObjectKey::cluster(kind, n)).collect(),
            Kind::Node => self.nodes.keys().map(|n| ObjectKey::cluster(kind, n)).collect(),
            Kind::Pod => self.pods.keys().cloned().collect(),
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::EndpointSlice => self.slices.keys().cloned().collect(),
            Kind::NetworkPolicy | Kind::ClusterNetworkPolicy => {
                self.policies.keys().filter(|k| k.kind == kind).cloned().collect()
            }
        }
    }

    /// True when a policy is about a pod.
    pub(crate) fn selects(&self, policy: &Policy, pod: &Pod) -> bool {
        policy.subject.pods.matches(&pod.labels)
            && self.has_namespace(&policy.subject.namespaces, &pod.namespace)
    }

    /// True when the namespace of this name matches. One that is not known matches no labels.
    pub(crate) fn has_namespace(&self, namespaces: &NamespaceMatch, name: &str) -> bool {
        match namespaces {
            NamespaceMatch::Named(named) => named == name,
            NamespaceMatch::Labels(selector) => {
                self.namespace_labels(name).is_some_and(|labels| selector.matches(labels))
            }
        }
    }

    /// True when what policies decide about a pod is counted and not done; `None` is a pod that nobody knows.
    pub(crate) fn is_audited(&self, pod: Option<&Pod>) -> bool {
        let by_namespace = |pod: &Pod| self.namespaces.get(&pod.namespace).is_some_and(|n| n.audit);
        let by_pod = |pod: &Pod| {
            pod.audit
                || crate::planted("audit-of-one-is-of-all") && self.pods.values().any(|other| other.audit)
        };
        self.audit_all || pod.is_some_and(|pod| by_pod(pod) || by_namespace(pod))
    }

    /// The namespace's labels; an unknown namespace has none.
    #[must_use]
    pub fn namespace_labels(&self, name: &str) -> Option<&super::Labels> {
        self.namespaces.get(name).map(|n| &n.labels)
    }
}
