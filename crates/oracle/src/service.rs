//! Connections to Services: what the node's proxy makes of an address, and what policy says of where it leads.

use core::net::IpAddr;
use std::collections::BTreeSet;

use cellwall_policy::flow::{Decision, Direction, Flow, Protocol};

use crate::{
    decide::{Ruling, decide},
    objects::{
        Objects,
        api::{EndpointSlice, Service, ServicePort},
    },
    party,
};

/// An address and port that the proxy of this node translates, and where it may lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// The virtual address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// Address and port of every backend.
    pub backends: BTreeSet<(IpAddr, u16)>,
    /// Those on which the source itself is judged, since a packet to them meets nobody else's judgement.
    pub at_source: BTreeSet<(IpAddr, u16)>,
}

/// Everything that is translated on this node; two objects with the same address and port are one.
#[must_use]
pub fn frontends(objects: &Objects) -> Vec<Frontend> {
    let mut all: Vec<Frontend> = Vec::new();
    for service in &objects.services {
        for port in service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()) {
            for frontend in of_port(objects, service, port) {
                merge(&mut all, frontend);
            }
        }
    }
    for frontend in host_ports(objects) {
        merge(&mut all, frontend);
    }
    all
}

fn merge(all: &mut Vec<Frontend>, new: Frontend) {
    let same =
        |old: &&mut Frontend| (old.address, old.port, old.protocol) == (new.address, new.port, new.protocol);
    match all.iter_mut().find(same) {
        Some(old) => {
            old.backends.extend(new.backends);
            old.at_source.extend(new.at_source);
        }
        None => all.push(new),
    }
}

/// "The set of Pods targeted by a Service": egress is judged where the proxy sends the connection, on that address and
/// port (S48), be it a pod's or not (S55). `flow` leads to the frontend. `chosen` is one of its backends.
///
/// What ends on the node itself is judged before the proxy has chosen: whichever it may be must be allowed.
#[must_use]
pub fn decide_service<'a>(
    objects: &'a Objects,
    flow: &Flow,
    frontend: &Frontend,
    chosen: (IpAddr, u16),
) -> Ruling<'a> {
    let to = |(remote, port): (IpAddr, u16)| {
        let mut ruling = decide(objects, &Flow { remote, port, direction: Direction::Egress, ..*flow });
        ruling.statements = ruling.statements.union(crate::Statements::of(&[48]));
        if !objects.pods.iter().any(|pod| party::addresses(pod).any(|address| address == remote)) {
            ruling.statements = ruling.statements.union(crate::Statements::of(&[55]));
        }
        ruling
    };
    let denied = frontend.at_source.iter().map(|backend| to(*backend)).find(|r| r.decision == Decision::Deny);
    denied.unwrap_or_else(|| to(chosen))
}

fn of_port(objects: &Objects, service: &Service, port: &ServicePort) -> Vec<Frontend> {
    let Some(spec) = &service.spec else { return Vec::new() };
    // "Setting this to None makes a headless service (no virtual IP)"; "ExternalName aliases this service to the
    // specified externalName".
    let is = |address: &&String| address.as_str() != "None" && spec.type_.as_deref() != Some("ExternalName");
    let given = spec.cluster_ip.iter().chain(spec.cluster_ips.iter().flatten()).filter(is);
    let given: BTreeSet<IpAddr> = given.filter_map(|text| text.parse().ok()).collect();
    let (Ok(number), Some(protocol)) = (u16::try_from(port.port), protocol(port.protocol.as_deref())) else {
        return Vec::new();
    };
    let backends = backends(objects, service, port);
    let is_own = |address: IpAddr| objects.node_addresses.contains(&address);
    // "service.kubernetes.io/service-proxy-name": kube-proxy does not handle the Service.
    let labels = service.metadata.labels.iter().flatten();
    let others = labels.into_iter().any(|(key, _)| {
        key == "service.kubernetes.io/service-proxy-name" || key == "service.kubernetes.io/headless"
    });
    let frontend = |address: IpAddr, port: u16, all_at_source: bool, itself: bool| {
        let backends: BTreeSet<_> =
            backends.iter().filter(|(a, _)| a.is_ipv4() == address.is_ipv4()).copied().collect();
        let ends_here = |a: IpAddr| is_own(a) || a.is_loopback() || a.is_unspecified();
        let mut at_source: BTreeSet<_> =
            backends.iter().filter(|(a, _)| all_at_source || ends_here(*a)).copied().collect();
        if itself {
            at_source.insert((address, port));
        }
        Frontend { address, port, protocol, backends, at_source }
    };
    let mut all = Vec::new();
    if given.is_empty() {
        return all;
    }
    // kube-proxy handles a Service once for each family of its cluster IPs, with the external addresses of that family.
    let has_family = |address: &IpAddr| given.iter().any(|g| g.is_ipv4() == address.is_ipv4());
    let external: BTreeSet<IpAddr> = external_addresses(service).into_iter().filter(has_family).collect();
    for (address, anybodys) in given.iter().map(|a| (*a, false)).chain(external.iter().map(|a| (*a, true))) {
        // kube-proxy can be told to leave external addresses alone: then the node's own is no Service's.
        let new = frontend(address, number, is_own(address), is_own(address) && anybodys);
        // Nothing tells that the node translates an own address that leads nowhere.
        if !is_own(address) || !(new.backends.is_empty() || anybodys && others) {
            all.push(new);
        }
    }
    let node_port =
        port.node_port.and_then(|number| u16::try_from(number).ok()).filter(|n| *n != 0 && !others);
    for address in objects.node_addresses.iter().filter(|a| given.iter().any(|g| g.is_ipv4() == a.is_ipv4()))
    {
        let Some(number) = node_port else { continue };
        // "primary" of --nodeport-addresses: those of the Node alone.
        let new = frontend(*address, number, false, !is_of_own_node(objects, *address));
        if !new.backends.is_empty() {
            all.push(new);
        }
    }
    all
}

/// "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this service";
/// load-balancer addresses where "ipMode" is not "Proxy". Never those of no single machine (CVE-2021-25737).
fn external_addresses(service: &Service) -> BTreeSet<IpAddr> {
    let external = service.spec.iter().flat_map(|spec| spec.external_ips.iter().flatten());
    let balancer = service.status.iter().filter_map(|status| status.load_balancer.as_ref());
    let balancer = balancer.flat_map(|status| status.ingress.iter().flatten());
    let balancer = balancer.filter(|entry| entry.ip_mode.as_deref() != Some("Proxy"));
    let all = external.chain(balancer.filter_map(|entry| entry.ip.as_ref()));
    all.filter_map(|text| text.parse().ok()).filter(|address| !is_special(*address)).collect()
}

fn is_special(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    link_local || address.is_loopback() || address.is_multicast() || address.is_unspecified()
}

fn is_of_own_node(objects: &Objects, address: IpAddr) -> bool {
    let own = objects.nodes.iter().filter(|node| node.metadata.name.as_ref() == Some(&objects.node_name));
    let mut listed = own.filter_map(|node| node.status.as_ref()).flat_map(|s| s.addresses.iter().flatten());
    listed.any(|a| a.address.parse() == Ok(address))
}

/// "kubernetes.io/service-name" is the Service of a slice; a port of it is the Service's by "the name of this port",
/// which "must match" the Service port's, with its protocol. Conditions change what is chosen, not what may be.
fn backends(objects: &Objects, service: &Service, port: &ServicePort) -> BTreeSet<(IpAddr, u16)> {
    let (namespace, name) = party::name(&service.metadata);
    let is_of = |slice: &&EndpointSlice| {
        let labels = slice.metadata.labels.as_ref();
        let label = labels.and_then(|labels| labels.get("kubernetes.io/service-name"));
        party::name(&slice.metadata).0 == namespace && label.is_some_and(|label| label == name)
    };
    let mut backends = BTreeSet::new();
    for slice in objects.slices.iter().filter(is_of).filter(|slice| slice.address_type != "FQDN") {
        let numbers = slice.ports.iter().flatten().filter(|p| {
            p.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
                && protocol(p.protocol.as_deref()) == protocol(port.protocol.as_deref())
        });
        for number in numbers.filter_map(|p| u16::try_from(p.port?).ok()) {
            let texts = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
            backends.extend(texts.filter_map(|text| Some((text.parse().ok()?, number))));
        }
    }
    backends
}

/// "hostPort: Number of port to expose on the host"; "hostIP: What host IP to bind the external port to".
fn host_ports(objects: &Objects) -> Vec<Frontend> {
    let mut all = Vec::new();
    for pod in &objects.pods {
        let Some(spec) = &pod.spec else { continue };
        let running = pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
        let here = spec.node_name.as_ref() == Some(&objects.node_name);
        if !running || !here || spec.host_network == Some(true) {
            continue;
        }
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
        for port in spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten()) {
            let host_port = port.host_port.and_then(|number| u16::try_from(number).ok()).filter(|n| *n != 0);
            let meant = port.host_ip.as_deref().filter(|text| !text.is_empty()).map(str::parse::<IpAddr>);
            let found = (host_port, u16::try_from(port.container_port), protocol(port.protocol.as_deref()));
            let (Some(number), Ok(target), Some(protocol)) = found else { continue };
            for address in &objects.node_addresses {
                let backends: BTreeSet<_> = party::addresses(pod)
                    .filter(|a| a.is_ipv4() == address.is_ipv4() && !objects.node_addresses.contains(a))
                    .map(|a| (a, target))
                    .collect();
                let is_meant = match &meant {
                    None => true,
                    Some(Ok(meant)) => {
                        meant == address || meant.is_unspecified() && meant.is_ipv4() == address.is_ipv4()
                    }
                    Some(Err(_)) => false,
                };
                if is_meant && !backends.is_empty() {
                    let (address, at_source) = (*address, BTreeSet::new());
                    all.push(Frontend { address, port: number, protocol, backends, at_source });
                }
            }
        }
    }
    all
}

/// "The IP protocol for this port. Supports TCP, UDP, and SCTP. Default is TCP."
fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::TCP),
        Some("UDP") => Some(Protocol::UDP),
        Some("SCTP") => Some(Protocol::SCTP),
        Some(_) => None,
    }
}
