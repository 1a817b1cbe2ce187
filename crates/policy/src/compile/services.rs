//! What this node translates, and which backends must be judged at the source.
//!
//! Egress to what is translated waits for the hook that sees the backend. No hook sees what is delivered on this node
//! itself, so the backends of that kind are listed: those at this node's own addresses; and all of them where the virtual
//! address is itself one of this node's, since somebody here may answer in the name of the Service (a DNS cache of the
//! node). Which backends of a Service are chosen is kube-proxy's business: ready or not, they are listed.
//!
//! Objects that anybody can write stand behind this, so nothing here opens more than a translation does:
//! - An address of this node's own is not believed to be translated while there is nothing to translate it to, nor for a
//!   Service that kube-proxy leaves alone: its packets would be delivered here, seen by nobody.
//! - A Service that leads to where a node takes packets out of a tunnel leads nowhere, for isolated pods and others: nobody
//!   would have judged what comes out.
//! - kube-proxy may serve node ports at the addresses of the Node's status only (nftables mode). At other addresses of
//!   this node the address itself is listed too.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use cellwall_abi::{
    Be16, CLASS_NODE, CLASS_UNKNOWN_POD, Family, SERVICE_BACKENDS, SERVICE_TOO_MANY, SERVICE_TRANSLATED,
    SERVICE_TUNNEL, ServiceBackend, ServiceRecord, V4, V6, is_tunnel_port,
};

use super::left_out::LeftOut;
use crate::flow::Protocol;
use crate::model::{
    BackendPort, Cluster, EndpointSlice, ObjectKey, Phase, Pod, Problem, Service, ServicePort,
};
use crate::wanted::ServiceKey;

/// How many backends of a Service are kept at each key to see whether policies allow one: thousands of ports times thousands
/// of endpoints would be more than an agent has room for.
const OTHERS_KEPT: usize = 64;

/// An address and port at which a Service ends.
pub(crate) type Backend = (IpAddr, u16);

/// A key at which the source is judged on backends.
#[derive(Debug)]
pub(crate) struct AtSource {
    pub(crate) key: ServiceKey,
    /// The Service.
    pub(crate) object: ObjectKey,
    /// Backends that the source is judged on, each with its class.
    pub(crate) listed: Vec<(Backend, u32)>,
    /// Classes and ports of these and of the first of its other backends.
    pub(crate) all: BTreeSet<(u32, u16)>,
}

/// All that is translated.
#[derive(Debug, Default)]
pub(crate) struct Services {
    pub(crate) records: BTreeMap<ServiceKey, ServiceRecord>,
    pub(crate) problems: Vec<Problem>,
    /// Who asks for each row that can be left out.
    pub(crate) claimants: BTreeMap<ServiceKey, ObjectKey>,
    /// Where some backend is listed and they are not too many.
    pub(crate) at_source: Vec<AtSource>,
}

/// What is translated at one address and port; `class` is what policies tell of an address.
pub(crate) fn services(cluster: &Cluster, left_out: &LeftOut, class: impl Fn(IpAddr) -> u32) -> Services {
    let mut claims = Claims { cluster, left_out, listed: BTreeMap::new(), without: BTreeSet::new() };
    let mut slices: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in cluster.slices.values().filter(|slice| !slice.service.is_empty()) {
        slices.entry((&slice.namespace, &slice.service)).or_default().push(slice);
    }
    // kube-proxy leaves out what has no cluster IP, external addresses included.
    let is_translated = |service: &&Service| {
        !service.cluster_addresses.is_empty() || crate::planted("services-without-an-address-are-translated")
    };
    for service in cluster.services.values().filter(is_translated) {
        let of_service = (service.namespace.as_str(), service.name.as_str());
        let slices = slices.get(&of_service).map_or(&[][..], Vec::as_slice);
        for port in &service.ports {
            claims.port(service, port, &backends(slices, port));
        }
    }
    for pod in cluster.pods.values().filter(|pod| pod.node == cluster.node_name) {
        claims.host_ports(pod);
    }

    let mut services = Services::default();
    let mut too_many: BTreeSet<&ObjectKey> = BTreeSet::new();
    let mut tunnelled: BTreeSet<&ObjectKey> = BTreeSet::new();
    // The same addresses from which `verdict` keeps tunnels away.
    let ends_tunnels = |address: &IpAddr| {
        let class = class(*address);
        class & CLASS_NODE != 0 || class == CLASS_UNKNOWN_POD
    };
    for (key, Claim { object, listed, backends, tunnels }) in &claims.listed {
        let mut record = record(&distinct(listed, &class));
        if claims.without.contains(key) {
            record.flags |= SERVICE_TOO_MANY;
        }
        if let Some(address) = tunnels.iter().find(|address| ends_tunnels(address)) {
            record.flags |= SERVICE_TUNNEL;
            if tunnelled.insert(object) && !crate::planted("nobody-hears-of-tunnels") {
                services.problems.push(tunnel_problem(object, key, *address));
            }
        }
        let is_told = !crate::planted("nobody-hears-of-too-many") && !claims.without.contains(key);
        if record.flags & SERVICE_TOO_MANY != 0 && too_many.insert(object) && is_told {
            services.problems.push(too_many_problem(object, key));
        }
        if record.flags == SERVICE_TRANSLATED && !backends.is_empty() {
            let (key, object) = (*key, object.clone());
            let listed = distinct(&listed.intersection(backends).copied().collect(), &class);
            let listed = listed.into_iter().map(|backend| (backend, class(backend.0))).collect();
            let all = backends.iter().map(|(address, port)| (class(*address), *port)).collect();
            services.at_source.push(AtSource { key, object, listed, all });
        }
        services.records.insert(*key, record);
        if !left_out.contains_key(object) {
            services.claimants.insert(*key, object.clone());
        }
    }
    // What a Service is known by comes before the ports of this node.
    services.at_source.sort_by_key(|at_source| (claims.is_own(at_source.key.address), at_source.key));
    services
}

/// Backends of a port: a port of a slice belongs to it by name and protocol, as kube-proxy has it.
fn backends(slices: &[&EndpointSlice], port: &ServicePort) -> BTreeSet<Backend> {
    let mut backends = BTreeSet::new();
    for slice in slices {
        let is_its = |p: &&BackendPort| p.name == port.name || crate::planted("backends-of-every-port");
        let ports = slice.ports.iter().filter(|p| is_its(p) && p.protocol == port.protocol);
        for number in ports.map(|p| p.number) {
            backends.extend(slice.addresses.iter().map(|address| (*address, number)));
        }
    }
    backends
}

/// What is said of one address and port.
#[derive(Debug)]
struct Claim {
    /// The first object that says so.
    object: ObjectKey,
    /// Backends that the source is judged on; of several objects with the same address, those of all.
    listed: BTreeSet<Backend>,
    /// Backends of objects of which some are listed: those, and the first of the others.
    backends: BTreeSet<Backend>,
    /// Where backends of a port of tunnels are.
    tunnels: BTreeSet<IpAddr>,
}

struct Claims<'a> {
    cluster: &'a Cluster,
    left_out: &'a LeftOut,
    listed: BTreeMap<ServiceKey, Claim>,
    /// Keys of which something is left out: what another object says of them is not all.
    without: BTreeSet<ServiceKey>,
}

impl Claims<'_> {
    /// What `object` says of a key: whom its source is judged on, of all the backends, which are sorted.
    fn add(&mut self, object: ObjectKey, key: ServiceKey, listed: Vec<Backend>, backends: &[Backend]) {
        let tunnels =
            backends.iter().filter(|(_, port)| key.protocol == Protocol::UDP.0 && is_tunnel_port(*port));
        let tunnels: Vec<IpAddr> = tunnels.map(|(address, _)| *address).collect();
        if self.left_out.contains_key(&object) {
            self.without.insert(key);
            // Tunnels are kept from pods that nothing isolates, too.
            if tunnels.is_empty() {
                return;
            }
        }
        let new =
            || Claim { object, listed: BTreeSet::new(), backends: BTreeSet::new(), tunnels: BTreeSet::new() };
        let claim = self.listed.entry(key).or_insert_with(new);
        if crate::planted("the-last-claim-wins") {
            claim.listed.clear();
        }
        let here: Vec<_> = listed.iter().filter(|backend| backends.binary_search(backend).is_ok()).collect();
        if !here.is_empty() {
            claim.backends.extend(here);
            claim.backends.extend(backends.iter().take(OTHERS_KEPT));
        }
        claim.listed.extend(listed);
        claim.tunnels.extend(tunnels);
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.cluster.node_addresses.contains(&address)
    }

    /// No hook sees a packet to there.
    fn ends_here(&self, address: IpAddr) -> bool {
        let is_loopback = address.is_loopback() && !crate::planted("loopback-is-elsewhere");
        let is_here = self.is_own(address) || is_loopback || address.is_unspecified();
        is_here && !crate::planted("backends-here-are-not-listed")
    }

    /// One port of a Service, at every address that it has.
    fn port(&mut self, service: &Service, port: &ServicePort, backends: &BTreeSet<Backend>) {
        let key = |address, port: u16, protocol: u8| ServiceKey { address, port, protocol };
        let cluster = service.cluster_addresses.iter().map(|address| (*address, false));
        // kube-proxy knows a Service in the families of its cluster IPs.
        let has_family = |address: &&IpAddr| {
            service.cluster_addresses.iter().any(|cluster| cluster.is_ipv4() == address.is_ipv4())
                || crate::planted("external-addresses-of-any-family")
                || crate::planted("services-without-an-address-are-translated")
        };
        let external = service.external_addresses.iter().filter(has_family).map(|address| (*address, true));
        for (address, anybodys) in cluster.chain(external) {
            let own = self.is_own(address);
            let of_family: Vec<Backend> = same_family(backends, address).collect();
            let is_doubtful = of_family.is_empty() || anybodys && service.other_proxy;
            if own && is_doubtful && !crate::planted("own-addresses-can-be-hijacked") {
                continue;
            }
            let is_answered_here = own && !crate::planted("own-addresses-wait-as-others");
            let is_listed = |(backend, _): &Backend| is_answered_here || self.ends_here(*backend);
            // A gate of kube-proxy's (AllowServiceExternalIPs) may be off: then whoever is at the node's port is reached.
            let is_itself = own && anybodys && !crate::planted("own-external-addresses-are-always-served");
            let itself = is_itself.then_some((address, port.number));
            let listed = of_family.iter().copied().filter(is_listed).chain(itself).collect();
            self.add(service.key(), key(address, port.number, port.protocol.0), listed, &of_family);
        }
        let is_served = !service.other_proxy || crate::planted("other-proxies-serve-node-ports");
        let Some(node_port) = port.node_port.filter(|_| is_served) else { return };
        if crate::planted("node-ports-are-ports") {
            return;
        }
        for address in with_ports(self.cluster) {
            let is_served = service.cluster_addresses.iter().any(|a| a.is_ipv4() == address.is_ipv4());
            let of_family: Vec<Backend> = same_family(backends, *address).collect();
            if !is_served || of_family.is_empty() {
                continue;
            }
            let listed = of_family.iter().copied().filter(|(backend, _)| self.ends_here(*backend));
            let is_left_alone =
                !is_of_status(self.cluster, *address) && !crate::planted("node-ports-are-served-everywhere");
            let itself = is_left_alone.then_some((*address, node_port));
            let listed: Vec<Backend> = listed.chain(itself).collect();
            self.add(service.key(), key(*address, node_port, port.protocol.0), listed, &of_family);
        }
    }

    /// Host ports lead to the pod, behind whose interface its own hook waits: not to a pod that claims the node's address.
    fn host_ports(&mut self, pod: &Pod) {
        if !pod.has_own_addresses() || pod.phase != Phase::Running || crate::planted("host-ports-are-ports") {
            return;
        }
        for port in &pod.host_ports {
            for address in with_ports(self.cluster) {
                let mut backends = pod.addresses.iter().filter(|a| a.is_ipv4() == address.is_ipv4());
                let leads_to_pod = backends.any(|a| !self.is_own(*a));
                let is_meant = port.address.is_none_or(|meant| {
                    meant == *address || meant.is_unspecified() && meant.is_ipv4() == address.is_ipv4()
                });
                if leads_to_pod && is_meant {
                    let key = ServiceKey { address: *address, port: port.number, protocol: port.protocol.0 };
                    self.add(pod.key(), key, Vec::new(), &[]);
                }
            }
        }
    }
}

fn same_family(backends: &BTreeSet<Backend>, address: IpAddr) -> impl Iterator<Item = Backend> + '_ {
    backends.iter().filter(move |(backend, _)| backend.is_ipv4() == address.is_ipv4()).copied()
}

/// Where this node has ports: at all addresses that netlink tells of, of which a Node object names a few.
fn with_ports(cluster: &Cluster) -> impl Iterator<Item = &IpAddr> {
    let of_status = crate::planted("own-addresses-are-those-of-the-status");
    let others = cluster.nodes.values().filter(|_| crate::planted("node-ports-of-other-nodes"));
    let own = cluster.node_addresses.iter().filter(move |own| !of_status || is_of_status(cluster, **own));
    own.chain(others.flat_map(|node| &node.addresses))
}

/// True for an address that this node's Node object names.
fn is_of_status(cluster: &Cluster, address: IpAddr) -> bool {
    cluster.nodes.get(&cluster.node_name).is_some_and(|node| node.addresses.contains(&address))
}

/// Backends that a policy can tell apart. Those of one class and port get one verdict, but for the pod that is one of them
/// itself: so two of each are enough, however many there are.
fn distinct(listed: &BTreeSet<Backend>, class: &impl Fn(IpAddr) -> u32) -> Vec<Backend> {
    let mut seen: BTreeMap<(u32, u16), u8> = BTreeMap::new();
    let mut kept = Vec::new();
    for (address, port) in listed {
        let count = seen.entry((class(*address), *port)).or_default();
        if *count < if crate::planted("one-backend-stands-for-all-alike") { 1 } else { 2 } {
            *count += 1;
            kept.push((*address, *port));
        }
    }
    kept
}

fn record(listed: &[Backend]) -> ServiceRecord {
    let mut record = ServiceRecord { flags: SERVICE_TRANSLATED, ..ServiceRecord::default() };
    if listed.len() > SERVICE_BACKENDS {
        record.flags |= SERVICE_TOO_MANY;
        return record;
    }
    for ((address, port), backend) in listed.iter().zip(&mut record.backends) {
        let address = match address {
            IpAddr::V4(address) => V4::widen((*address).into()),
            IpAddr::V6(address) => V6::widen((*address).into()),
        };
        *backend = ServiceBackend { address, port: Be16::new(*port), pad: [0; 2] };
        record.count += 1;
    }
    record
}

fn tunnel_problem(object: &ObjectKey, key: &ServiceKey, backend: IpAddr) -> Problem {
    Problem {
        object: object.clone(),
        field: String::new(),
        message: format!(
            "at {} port {} a backend is a port of tunnels at {backend}, which a node may have: no pod of this node can \
             reach it",
            key.address, key.port
        ),
    }
}

fn too_many_problem(object: &ObjectKey, key: &ServiceKey) -> Problem {
    Problem {
        object: object.clone(),
        field: String::new(),
        message: format!(
            "at {} port {} more than {SERVICE_BACKENDS} backends that policies tell apart end on this node itself: isolated \
             pods of this node cannot reach it",
            key.address, key.port
        ),
    }
}
