//! Who is at the ends of a flow.

use core::net::IpAddr;
use std::collections::BTreeMap;

use cellwall_policy::flow::Protocol;
use cellwall_policy::model::{Cluster, Kind, ObjectKey, Phase, Pod, Service, ServiceSelector};

use crate::answer::BackendEnd;
use crate::flows::End;

/// An end of a flow that is there.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) who: Who,
    /// Addresses that it may have, the first of a family counts.
    pub(crate) addresses: Vec<IpAddr>,
    /// The node that it is on or is; empty when that is not known.
    pub(crate) node: String,
}

/// What has policies, and what has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// A pod with addresses of its own.
    Pod(ObjectKey),
    /// A pod with its node's network (S60).
    HostNetwork(ObjectKey),
    /// A node.
    Node,
    /// Nobody that is known.
    Outside,
}

/// Where a flow comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Place(Place),
    /// From one of the pods behind it.
    Service(ObjectKey, Vec<(BackendEnd, Place)>),
}

/// Where a flow leads.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    Place(Place),
    /// To one of its backends.
    Service(ObjectKey),
}

impl Place {
    /// The address of a family.
    pub(crate) fn address(&self, ipv4: bool) -> Option<IpAddr> {
        self.addresses.iter().find(|address| address.is_ipv4() == ipv4).copied()
    }
}

/// Who has which name and address.
pub(crate) struct Directory<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) selectors: BTreeMap<&'a ObjectKey, &'a ServiceSelector>,
    pods: BTreeMap<IpAddr, Vec<ObjectKey>>,
    nodes: BTreeMap<IpAddr, String>,
}

impl<'a> Directory<'a> {
    pub(crate) fn new(cluster: &'a Cluster, selectors: &'a [ServiceSelector]) -> Self {
        let mut pods: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut nodes = BTreeMap::new();
        for pod in cluster.pods.values().filter(|pod| pod.phase != Phase::Terminal) {
            for address in &pod.addresses {
                if pod.host_network {
                    nodes.insert(*address, pod.node.clone());
                } else {
                    pods.entry(*address).or_default().push(pod.key());
                }
            }
        }
        for node in cluster.nodes.values() {
            nodes.extend(node.addresses.iter().map(|address| (*address, node.name.clone())));
        }
        // Of a Service that is there twice, the first counts.
        let selectors = selectors.iter().rev().map(|selector| (&selector.service, selector)).collect();
        Self { cluster, selectors, pods, nodes }
    }

    /// Finds the source; the error says why it cannot be.
    pub(crate) fn source(&self, end: &End) -> Result<Source, String> {
        match end {
            End::Pod(name) => self.pod(&named(Kind::Pod, name)?).map(Source::Place),
            End::Service(name) => {
                let key = named(Kind::Service, name)?;
                let pods = self.pods_behind(&key)?;
                Ok(Source::Service(key, pods))
            }
            End::Ip(text) => self.at(address(text)?).map(Source::Place),
            End::Unclear(fields) => Err(unclear(fields)),
        }
    }

    /// Finds the destination of a protocol and port; the error says why it cannot be.
    pub(crate) fn destination(
        &self,
        end: &End,
        protocol: Protocol,
        port: u16,
    ) -> Result<Destination, String> {
        match end {
            End::Pod(name) => self.pod(&named(Kind::Pod, name)?).map(Destination::Place),
            End::Service(name) if protocol.has_ports() => {
                Ok(Destination::Service(named(Kind::Service, name)?))
            }
            End::Service(_) => Err("Services have no ICMP: name a pod".to_owned()),
            End::Ip(text) => {
                let address = address(text)?;
                if let Some(service) = self.service_at(address, protocol, port) {
                    return Ok(Destination::Service(service));
                }
                let place = self.at(address)?;
                match self.behind_node(address, &place, protocol, port) {
                    Some(instead) => Err(instead),
                    None => Ok(Destination::Place(place)),
                }
            }
            End::Unclear(fields) => Err(unclear(fields)),
        }
    }

    /// What to ask about instead of a port of a node that leads elsewhere: a node judges where it leads, on the way
    /// usually from an address of its own, which is another question than this one.
    fn behind_node(&self, address: IpAddr, place: &Place, protocol: Protocol, port: u16) -> Option<String> {
        if place.who != Who::Node {
            return None;
        }
        let node = if place.node.is_empty() { address.to_string() } else { place.node.clone() };
        let is_its = |service: &&Service| {
            service.ports.iter().any(|p| p.node_port == Some(port) && p.protocol == protocol)
        };
        if let Some(service) = self.cluster.services.values().find(is_its)
            && !cellwall_policy::planted("check-takes-node-ports-for-the-nodes")
        {
            let key = service.key();
            return Some(format!("port {port} of node {node} is {key}: ask for the service"));
        }
        let leads_to = |pod: &&Pod| {
            // A pod that is not placed yet may come to be there.
            let may_be_here = pod.node.is_empty() || pod.node == place.node;
            may_be_here
                && pod.phase != Phase::Terminal
                && pod.host_ports.iter().any(|p| {
                    (p.number, p.protocol) == (port, protocol)
                        && p.address.is_none_or(|a| a == address || a.is_unspecified())
                })
        };
        let pod = self.cluster.pods.values().find(leads_to)?.key();
        Some(format!("port {port} of node {node} leads to {pod}: ask for the pod"))
    }

    pub(crate) fn pod(&self, key: &ObjectKey) -> Result<Place, String> {
        let Some(pod) = self.cluster.pods.get(key) else { return Err(format!("there is no {key}")) };
        if pod.phase == Phase::Terminal {
            return Err(format!("{key} has ended: it has no address any more"));
        }
        if pod.addresses.is_empty() {
            return Err(format!("{key} has no address"));
        }
        let who = if pod.host_network { Who::HostNetwork(pod.key()) } else { Who::Pod(pod.key()) };
        Ok(Place { who, addresses: pod.addresses.clone(), node: pod.node.clone() })
    }

    /// Whoever has an address.
    pub(crate) fn at(&self, address: IpAddr) -> Result<Place, String> {
        match self.pods.get(&address).map(Vec::as_slice) {
            Some([key]) => Ok(Place { addresses: vec![address], ..self.pod(key)? }),
            Some([first, second, ..]) => {
                Err(format!("{first} and {second} both have {address}: name the one that is meant"))
            }
            _ => {
                let node = self.nodes.get(&address);
                let who = if node.is_some() { Who::Node } else { Who::Outside };
                Ok(Place { who, addresses: vec![address], node: node.cloned().unwrap_or_default() })
            }
        }
    }
}

/// An address that can be asked about.
fn address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| format!("`{text}` is not an IP address"))?;
    if address.is_unspecified() || address.is_loopback() {
        return Err(format!("{address} is an address that no packet on a wire has"));
    }
    Ok(address)
}

/// Why an end cannot be looked for.
fn unclear(fields: &[String]) -> String {
    match fields {
        [] => "nobody is named: that takes one of pod, service and ip".to_owned(),
        [one] => format!("`{one}` is none of pod, service and ip"),
        more => format!("{} are named together: that takes one of pod, service and ip", more.join(" and ")),
    }
}

/// The object that `namespace/name` names.
fn named(kind: Kind, text: &str) -> Result<ObjectKey, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(ObjectKey::namespaced(kind, namespace, name))
        }
        _ => Err(format!("`{text}` is no name of a {}: that is NAMESPACE/NAME", kind.name())),
    }
}
