//! Where Services lead.
//!
//! Slices say it, as they do to a node; where a Service has none, what its controller would make of its selector. Which
//! backend is chosen is the proxy's business, so all of them are looked at.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use cellwall_policy::flow::Protocol;
use cellwall_policy::model::{
    EndpointSlice, ObjectKey, Phase, Pod, Service, ServiceSelector, ServiceTarget, TargetPort,
};

use crate::answer::{BackendEnd, name};
use crate::asked::end_of;
use crate::ends::{Directory, Place, Who};

/// A backend of a Service.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) place: Place,
    /// Port there.
    pub(crate) port: u16,
}

/// A backend before its family is known: a pod, or whoever has the address.
struct Found {
    pod: Option<ObjectKey>,
    addresses: Vec<IpAddr>,
    port: u16,
}

/// A port of a Service that is asked about.
struct Port<'a> {
    /// Names of the Service's ports with this number.
    names: BTreeSet<&'a str>,
    protocol: Protocol,
    /// Nothing is translated: the number itself is the pods'.
    itself: Option<u16>,
}

impl Port<'_> {
    fn is(&self, name: &str, protocol: Protocol) -> bool {
        self.names.contains(name) && self.protocol == protocol
    }
}

impl Directory<'_> {
    /// Backends of a Service at one of its ports, those of the first family that it and the source have. The error says
    /// why it cannot be asked about.
    pub(crate) fn backends(
        &self,
        key: &ObjectKey,
        protocol: Protocol,
        port: u16,
        src: &Place,
    ) -> Result<Vec<Backend>, String> {
        let (service, selector) = self.service(key)?;
        let headless = selector.is_some_and(|selector| selector.headless);
        let meant = service.ports.iter().filter(|p| p.number == port && p.protocol == protocol);
        let names: BTreeSet<&str> = meant.map(|p| p.name.as_str()).collect();
        if names.is_empty() && !headless {
            return Err(format!("{key} has no port {protocol}/{port}; {}", ports(service)));
        }
        let port = Port { names, protocol, itself: headless.then_some(port) };
        let mut slices = self.slices(service).peekable();
        let all = match selector {
            _ if slices.peek().is_some() => of_slices(slices, &port),
            Some(selector) => self.of_selector(selector, &port)?,
            None => Vec::new(),
        };
        if all.is_empty() {
            return Ok(Vec::new());
        }
        let ipv4 = is_ipv4(service, &all, src)
            .ok_or_else(|| format!("{key} leads to no address of a family that the source has"))?;
        all.into_iter().filter_map(|found| self.backend(found, ipv4)).collect()
    }

    /// The pods behind a Service, at whatever port, with their own names, in order; those that use their node's network
    /// are there, too, in slices as that node. The error says why it cannot be asked about.
    pub(crate) fn pods_behind(&self, key: &ObjectKey) -> Result<Vec<(BackendEnd, Place)>, String> {
        let (service, selector) = self.service(key)?;
        let mut slices = self.slices(service).peekable();
        let mut pods: BTreeMap<BackendEnd, Place> = BTreeMap::new();
        if slices.peek().is_some() {
            let addresses: BTreeSet<IpAddr> = slices.flat_map(|slice| &slice.addresses).copied().collect();
            for address in &addresses {
                let place = self.at(*address)?;
                let place = match &place.who {
                    Who::Outside => continue,
                    Who::Node => place,
                    // All of its addresses: a pod with two families is in slices of both.
                    Who::Pod(pod) | Who::HostNetwork(pod) => self.pod(pod)?,
                };
                pods.insert(end_of(&place, *address), place);
            }
            if pods.is_empty() && !addresses.is_empty() {
                return Err(format!("no backend of {key} is a pod: name an address"));
            }
        } else if let Some(selector) = selector {
            for pod in self.selected(selector) {
                let place = self.pod(&pod.key())?;
                pods.insert(BackendEnd::Pod(name(&pod.key())), place);
            }
        }
        Ok(pods.into_iter().collect())
    }

    /// A Service, and what it selects.
    fn service(&self, key: &ObjectKey) -> Result<(&Service, Option<&ServiceSelector>), String> {
        let service = self.cluster.services.get(key).ok_or_else(|| format!("there is no {key}"))?;
        let selector = self.selectors.get(key).copied();
        match selector.and_then(|selector| selector.external_name.as_ref()) {
            Some(name) => Err(format!("{key} is a name for {name}: ask about the address of that")),
            None => Ok((service, selector)),
        }
    }

    fn slices<'s>(&'s self, service: &'s Service) -> impl Iterator<Item = &'s EndpointSlice> {
        self.cluster.slices.values().filter(|slice| is_of(slice, service))
    }

    /// The pods that a selector finds; none where it says nothing.
    fn selected<'s>(&'s self, selector: &'s ServiceSelector) -> impl Iterator<Item = &'s Pod> {
        let is_selected = move |pod: &&Pod| {
            selector.pods.as_ref().is_some_and(|labels| {
                pod.namespace == selector.service.namespace
                    && pod.phase != Phase::Terminal
                    && labels.iter().all(|(label, value)| pod.labels.get(label) == Some(value))
            })
        };
        self.cluster.pods.values().filter(is_selected)
    }

    /// The backend's place in a family, if it has one there.
    fn backend(&self, found: Found, ipv4: bool) -> Option<Result<Backend, String>> {
        let address = found.addresses.into_iter().find(|address| address.is_ipv4() == ipv4)?;
        let place = found.pod.map_or_else(|| self.at(address), |pod| self.pod(&pod));
        Some(
            place.map(|place| Backend {
                place: Place { addresses: vec![address], ..place },
                port: found.port,
            }),
        )
    }

    /// What the controller of slices would make of the pods that are there.
    fn of_selector(&self, selector: &ServiceSelector, port: &Port<'_>) -> Result<Vec<Found>, String> {
        let targets = selector.targets.iter();
        let targets: Vec<&ServiceTarget> = targets.filter(|t| port.is(&t.name, t.protocol)).collect();
        let port_of = |pod: &Pod, target: &ServiceTarget| match &target.port {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => pod.port(name, port.protocol),
        };
        let mut all = Vec::new();
        for pod in self.selected(selector) {
            let addresses = self.pod(&pod.key())?.addresses;
            let ports: BTreeSet<u16> = match port.itself {
                Some(port) => [port].into(),
                None => targets.iter().filter_map(|target| port_of(pod, target)).collect(),
            };
            let found = |port| Found { pod: Some(pod.key()), addresses: addresses.clone(), port };
            all.extend(ports.into_iter().map(found));
        }
        Ok(all)
    }

    /// The Service that a node translates this address and port to.
    pub(crate) fn service_at(&self, address: IpAddr, protocol: Protocol, port: u16) -> Option<ObjectKey> {
        let is_its = |service: &&Service| {
            // kube-proxy leaves out what has no cluster IP, external addresses included.
            let external = service.external_addresses.iter().filter(|_| !service.other_proxy);
            let mut all = service.cluster_addresses.iter().chain(external);
            !service.cluster_addresses.is_empty()
                && all.any(|a| *a == address)
                && service.ports.iter().any(|p| p.number == port && p.protocol == protocol)
        };
        self.cluster.services.values().find(is_its).map(Service::key)
    }
}

fn is_of(slice: &EndpointSlice, service: &Service) -> bool {
    slice.namespace == service.namespace && slice.service == service.name
}

/// What can be asked about instead.
fn ports(service: &Service) -> String {
    let ports: Vec<String> = service.ports.iter().map(|p| format!("{}/{}", p.protocol, p.number)).collect();
    if ports.is_empty() { "it has none".to_owned() } else { format!("it has {}", ports.join(", ")) }
}

/// Everything in the slices, whether it is ready or not.
fn of_slices<'a>(slices: impl Iterator<Item = &'a EndpointSlice>, port: &Port<'_>) -> Vec<Found> {
    let mut all: BTreeSet<(IpAddr, u16)> = BTreeSet::new();
    for slice in slices {
        let ports = slice.ports.iter().filter(|p| port.is(&p.name, p.protocol)).map(|p| p.number);
        let ports: Vec<u16> = port.itself.map_or_else(|| ports.collect(), |port| vec![port]);
        all.extend(ports.iter().flat_map(|port| slice.addresses.iter().map(|a| (*a, *port))));
    }
    let found = |(address, port)| Found { pod: None, addresses: vec![address], port };
    all.into_iter().map(found).collect()
}

/// IPv4 is meant where the source, the Service and some backend have it.
fn is_ipv4(service: &Service, all: &[Found], src: &Place) -> Option<bool> {
    let virtual_addresses = &service.cluster_addresses;
    let has = |ipv4: bool| {
        src.address(ipv4).is_some()
            && (virtual_addresses.is_empty() || virtual_addresses.iter().any(|a| a.is_ipv4() == ipv4))
    };
    let leads = |ipv4: bool| all.iter().any(|found| found.addresses.iter().any(|a| a.is_ipv4() == ipv4));
    [true, false].into_iter().find(|ipv4| has(*ipv4) && leads(*ipv4))
}
