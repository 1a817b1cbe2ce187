//! Random Services and the slices behind them, by a controller or by hand.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::{BTreeMap, BTreeSet};

use cellwall_oracle::{
    Flow, Frontend, Objects,
    api::{
        Endpoint, EndpointPort, EndpointSlice, LoadBalancerIngress, LoadBalancerStatus, ObjectMeta, Service,
        ServicePort, ServiceSpec, ServiceStatus,
    },
    frontends, subject,
};
use cellwall_policy::flow::Direction;

use super::{
    flows::addresses,
    rng::Rng,
    universe::{NAMESPACES, PORTS, Place, Universe},
};

/// The most Services of a cluster.
const MOST: usize = 4;
/// Names of Service ports.
const NAMES: [&str; 3] = ["web", "dns", "api"];
/// Numbers of Service ports, none of which is a container's.
const NUMBERS: [i32; 3] = [5432, 5433, 53];

/// Services and their slices for the pods that are there.
pub(super) fn generate(universe: &Universe, objects: &mut Objects, rng: &mut Rng) {
    let count = rng.below(MOST);
    for index in 0..count {
        let service = service(universe, objects, index, rng);
        for number in 0..rng.below(4) {
            let slice = slice(universe, objects, &service, number, rng);
            objects.slices.push(slice);
        }
        objects.services.push(service);
    }
    for pod in &mut objects.pods {
        let containers = pod.spec.iter_mut().flat_map(|spec| &mut spec.containers);
        for port in containers.flat_map(|container| container.ports.iter_mut().flatten()) {
            if rng.percent(4) {
                port.host_port = Some(*rng.pick(&[8080, 8000]));
                let address = universe.node_addresses(Place::Here).first().map(ToString::to_string);
                port.host_ip.clone_from(rng.pick(&[None, None, Some("0.0.0.0".to_owned()), address]));
            }
        }
    }
}

/// The first number that no Service's name has, if there is room for one more.
pub(super) fn unused(services: &[Service]) -> Option<usize> {
    (0..MOST).find(|index| services.iter().all(|s| s.metadata.name.as_ref() != Some(&name(*index))))
}

fn name(index: usize) -> String {
    format!("svc{index}")
}

fn virtual_addresses(universe: &Universe, index: usize) -> Vec<IpAddr> {
    let host = u8::try_from(index + 1).expect("a few Services");
    let ipv4 = IpAddr::from([10, 96, 0, host]);
    let ipv6 = Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, host.into()).into();
    [(universe.ipv4, ipv4), (universe.ipv6, ipv6)]
        .into_iter()
        .filter(|(has, _)| *has)
        .map(|(_, a)| a)
        .collect()
}

/// Somebody's address: a pod's, this node's, the other's, or one outside.
fn address(universe: &Universe, objects: &Objects, rng: &mut Rng) -> String {
    let mut all: Vec<IpAddr> = match rng.below(10) {
        0..6 => objects.pods.iter().flat_map(addresses).collect(),
        6 | 7 => objects.node_addresses.clone(),
        8 => universe.node_addresses(Place::There),
        _ => ["192.0.2.1", "198.51.100.7", "fd99::1"].map(|text| text.parse().expect("an address")).into(),
    };
    if all.is_empty() {
        all.clone_from(&objects.node_addresses);
    }
    rng.pick(&all).to_string()
}

pub(super) fn service(universe: &Universe, objects: &Objects, index: usize, rng: &mut Rng) -> Service {
    let mut given: Vec<String> = virtual_addresses(universe, index).iter().map(ToString::to_string).collect();
    let mut kind = None;
    match rng.below(20) {
        0 => given = vec!["None".to_owned()],
        1 => (kind, given) = (Some("ExternalName".to_owned()), vec![]),
        // A cache of the node answers at the virtual address.
        2..5 => given = objects.node_addresses.iter().take(1).map(ToString::to_string).collect(),
        5 => given.truncate(1),
        _ => {}
    }
    let balancer = rng.percent(15).then(|| LoadBalancerIngress {
        ip: Some(address(universe, objects, rng)),
        ip_mode: rng.pick(&[None, Some("VIP"), Some("Proxy")]).map(Into::into),
        ..LoadBalancerIngress::default()
    });
    let labels = rng.percent(5).then(|| {
        BTreeMap::from([("service.kubernetes.io/service-proxy-name".to_owned(), "other".to_owned())])
    });
    Service {
        metadata: ObjectMeta {
            namespace: Some((*rng.pick(&NAMESPACES)).into()),
            name: Some(name(index)),
            labels,
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: kind,
            cluster_ip: given.first().cloned(),
            cluster_ips: rng.percent(90).then_some(given),
            external_ips: rng.field(60, 2, |rng| address(universe, objects, rng)),
            ports: Some(NAMES.iter().take(rng.between(1, 3)).map(|name| port(name, rng)).collect()),
            ..ServiceSpec::default()
        }),
        status: balancer.map(|entry| ServiceStatus {
            load_balancer: Some(LoadBalancerStatus { ingress: Some(vec![entry]) }),
            ..ServiceStatus::default()
        }),
    }
}

fn protocol(name: &str) -> Option<String> {
    (name == "dns").then(|| "UDP".to_owned())
}

fn port(name: &str, rng: &mut Rng) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        protocol: protocol(name),
        port: *rng.pick(&NUMBERS),
        node_port: rng.percent(25).then(|| *rng.pick(&[30_080, 30_081])),
        ..ServicePort::default()
    }
}

/// Of one family, as all slices are; ports of a name differ from slice to slice, as those of named target ports do.
pub(super) fn slice(
    universe: &Universe,
    objects: &Objects,
    service: &Service,
    number: usize,
    rng: &mut Rng,
) -> EndpointSlice {
    let meta = &service.metadata;
    let ipv6 = if universe.ipv4 && universe.ipv6 { rng.percent(50) } else { universe.ipv6 };
    let count = rng.below(5);
    let addresses = rng.many(count, |rng| address(universe, objects, rng));
    let family = |text: &String| text.contains(':') == ipv6;
    let ports = NAMES.iter().filter(|_| rng.percent(85)).copied().collect::<Vec<_>>();
    let ports = ports.into_iter().map(|name| EndpointPort {
        name: Some(name.to_owned()),
        protocol: protocol(name),
        port: Some((*rng.pick(&PORTS)).into()),
        ..EndpointPort::default()
    });
    let ports = Some(ports.collect());
    let label = if rng.percent(95) { meta.name.clone().unwrap_or_default() } else { "svc9".to_owned() };
    EndpointSlice {
        metadata: ObjectMeta {
            namespace: meta.namespace.clone(),
            name: Some(format!("{}-{number}", meta.name.as_deref().unwrap_or_default())),
            labels: Some(BTreeMap::from([("kubernetes.io/service-name".to_owned(), label)])),
            ..ObjectMeta::default()
        },
        address_type: if ipv6 { "IPv6" } else { "IPv4" }.to_owned(),
        endpoints: Some(
            addresses
                .into_iter()
                .filter(family)
                .map(|address| Endpoint { addresses: vec![address], ..Endpoint::default() })
                .collect(),
        ),
        ports,
    }
}

/// A connection of a pod of this node to what the node translates, and where its proxy leads it.
#[derive(Clone, Debug)]
pub struct ServiceFlow {
    /// To the virtual address.
    pub flow: Flow,
    /// What the node translates.
    pub frontend: Frontend,
    /// The backend that was chosen.
    pub chosen: (IpAddr, u16),
}

/// Every local pod's connections to everything that its node translates, by every backend.
#[must_use]
pub fn service_flows(objects: &Objects) -> Vec<ServiceFlow> {
    let pods = objects.pods.iter().flat_map(addresses);
    let locals: BTreeSet<_> = pods.filter(|address| subject(objects, *address).is_some()).collect();
    let mut flows = Vec::new();
    for frontend in frontends(objects) {
        let Frontend { address: remote, port, protocol, .. } = frontend;
        for &local in locals.iter().filter(|local| local.is_ipv4() == remote.is_ipv4() && **local != remote) {
            let direction = Direction::Egress;
            let flow = Flow { local, direction, remote, from_own_node: false, protocol, port };
            let all = frontend.backends.iter();
            flows.extend(all.map(|chosen| ServiceFlow { flow, frontend: frontend.clone(), chosen: *chosen }));
        }
    }
    flows
}
