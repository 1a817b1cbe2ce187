//! Where Services lead.
//!
//! Slices say it, as they do to a node; where a Service has none, what its controller would make of its selector. Which
//! backend is chosen is the proxy's business, so all of them are looked at.

use core::net::IpAddr;
use std::collections::BTreeSet;

use cellwall_policy::flow::Protocol;
use cellwall_policy::model::{
    EndpointSlice, ObjectKey, Phase, Pod, Service, ServiceSelector, ServiceTarget, TargetPort,
};

use crate::ends::{Directory, Place};

/// A backend of a Service.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) place: Place,
    /// Port there.
    pub(crate) port: u16,
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
        let service = self.cluster.services.get(key).ok_or_else(|| format!("there is no {key}"))?;
        let selector = self.selectors.get(key).copied();
        if let Some(name) = selector.and_then(|selector| selector.external_name.as_ref()) {
            return Err(format!("{key} is a name for {name}: ask about the address of that"));
        }
        let headless = selector.is_some_and(|selector| selector.headless);
        let names: BTreeSet<&str> = service
            .ports
            .iter()
            .filter(|p| p.number == port && p.protocol == protocol)
            .map(|p| p.name.as_str())
            .collect();
        if names.is_empty() && !headless {
            return Err(format!("{key} has no port {protocol}/{port}; {}", ports(service)));
        }
        let mut slices = self.cluster.slices.values().filter(|slice| is_of(slice, service)).peekable();
        let all = if slices.peek().is_some() {
            self.of_slices(slices, &names, protocol, headless.then_some(port))?
        } else {
            selector.map_or_else(
                || Ok(Vec::new()),
                |selector| self.of_selector(selector, &names, protocol, headless.then_some(port)),
            )?
        };
        of_family(key, service, all, src)
    }

    /// Everything in the slices, whether it is ready or not.
    fn of_slices<'a>(
        &self,
        slices: impl Iterator<Item = &'a EndpointSlice>,
        names: &BTreeSet<&str>,
        protocol: Protocol,
        itself: Option<u16>,
    ) -> Result<Vec<Backend>, String> {
        let mut backends: BTreeSet<(IpAddr, u16)> = BTreeSet::new();
        for slice in slices {
            let is_its = |name: &str, of: Protocol| names.contains(name) && of == protocol;
            let ports = slice.ports.iter().filter(|p| is_its(&p.name, p.protocol)).map(|p| p.number);
            let ports: Vec<u16> = itself.map_or_else(|| ports.collect(), |port| vec![port]);
            backends.extend(ports.iter().flat_map(|port| slice.addresses.iter().map(|a| (*a, *port))));
        }
        backends.into_iter().map(|(address, port)| Ok(Backend { place: self.at(address)?, port })).collect()
    }

    /// What the controller of slices would make of the pods that are there (S43 is about names of ports of policies; those of
    /// Services mean the same).
    fn of_selector(
        &self,
        selector: &ServiceSelector,
        names: &BTreeSet<&str>,
        protocol: Protocol,
        itself: Option<u16>,
    ) -> Result<Vec<Backend>, String> {
        let Some(labels) = &selector.pods else { return Ok(Vec::new()) };
        let is_selected = |pod: &&Pod| {
            pod.namespace == selector.service.namespace
                && pod.phase != Phase::Terminal
                && labels.iter().all(|(label, value)| pod.labels.get(label) == Some(value))
        };
        let targets = selector.targets.iter();
        let targets: Vec<&ServiceTarget> =
            targets.filter(|t| names.contains(t.name.as_str()) && t.protocol == protocol).collect();
        let port_of = |pod: &Pod, target: &ServiceTarget| match &target.port {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => pod.port(name, protocol),
        };
        let mut backends = Vec::new();
        for pod in self.cluster.pods.values().filter(is_selected) {
            let ports: BTreeSet<u16> = match itself {
                Some(port) => [port].into(),
                None => targets.iter().filter_map(|target| port_of(pod, target)).collect(),
            };
            for port in ports {
                backends.push(Backend { place: self.pod(&pod.key())?, port });
            }
        }
        Ok(backends)
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

/// IPv4 is meant where the source, the Service and some backend have it.
fn of_family(
    key: &ObjectKey,
    service: &Service,
    all: Vec<Backend>,
    src: &Place,
) -> Result<Vec<Backend>, String> {
    let virtual_addresses = &service.cluster_addresses;
    let has = |ipv4: bool| {
        src.address(ipv4).is_some()
            && (virtual_addresses.is_empty() || virtual_addresses.iter().any(|a| a.is_ipv4() == ipv4))
    };
    let leads = |ipv4: bool| all.iter().any(|backend| backend.place.address(ipv4).is_some());
    match [true, false].into_iter().find(|ipv4| has(*ipv4) && leads(*ipv4)) {
        Some(ipv4) => Ok(all
            .into_iter()
            .filter_map(|backend| {
                let addresses = vec![backend.place.address(ipv4)?];
                Some(Backend { place: Place { addresses, ..backend.place }, ..backend })
            })
            .collect()),
        None if all.is_empty() => Ok(all),
        None => Err(format!("{key} leads to no address of a family that the source has")),
    }
}
