//! Services.

use std::net::IpAddr;

use cellwall_policy::model::{
    Kind, Problem, Service, ServicePort, ServiceSelector, ServiceTarget, TargetPort,
};
use cellwall_policy::planted;
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::{
    address,
    entries::{number, protocol},
    meta,
    report::Report,
};

/// Labels with which kube-proxy leaves a Service to others.
const NOT_KUBE_PROXYS: [&str; 2] =
    ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"];

/// Leaves out what the model does not need.
pub(super) fn trim(mut value: Value) -> Value {
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.retain(|field, _| ["name", "namespace", "labels"].contains(&field.as_str()));
    }
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        let fields = ["type", "clusterIP", "clusterIPs", "externalIPs", "ports"];
        spec.retain(|field, _| fields.contains(&field.as_str()));
    }
    if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
        status.retain(|field, _| field == "loadBalancer");
    }
    value
}

/// Converts a Service. What cannot be read is not translated: it is judged as the address that it is.
#[must_use]
pub fn service(object: &v1::Service) -> (Service, Vec<Problem>) {
    let key = meta::key_from(Kind::Service, &object.metadata);
    let (namespace, name) = (key.namespace.clone(), key.name.clone());
    let mut report = Report::new(key);
    let missing = v1::ServiceSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&missing);
    let labels = object.metadata.labels.iter().flatten();
    let is_name = spec.type_.as_deref() == Some("ExternalName");
    // "None" is a headless Service, and "" one that has no address yet.
    let second = spec.cluster_ips.iter().filter(|_| !planted("services-have-one-family")).flatten();
    let cluster = spec.cluster_ip.iter().chain(second);
    let cluster = cluster.filter(|text| !is_name && !text.is_empty() && *text != "None");
    let mut external: Vec<(String, &String)> = Vec::new();
    let listed = spec.external_ips.iter().filter(|_| !planted("external-ips-are-addresses"));
    for (i, text) in listed.flatten().enumerate() {
        external.push((format!("spec.externalIPs[{i}]"), text));
    }
    let ingress = object.status.iter().filter_map(|s| s.load_balancer.as_ref());
    for (i, entry) in ingress.flat_map(|balancer| balancer.ingress.iter().flatten()).enumerate() {
        // "Proxy": the node does not translate it, the load balancer gets the packet.
        let is_translated =
            entry.ip_mode.as_deref() != Some("Proxy") || planted("a-proxys-address-is-translated");
        if is_translated && !planted("a-balancers-address-is-an-address") {
            external
                .extend(entry.ip.iter().map(|text| (format!("status.loadBalancer.ingress[{i}].ip"), text)));
        }
    }
    let service = Service {
        namespace,
        name,
        cluster_addresses: addresses(cluster.map(|text| ("spec.clusterIPs".to_owned(), text)), &mut report),
        external_addresses: addresses(external.into_iter(), &mut report),
        ports: ports(spec, &mut report),
        other_proxy: labels.into_iter().any(|(label, _)| NOT_KUBE_PROXYS.contains(&label.as_str()))
            && !planted("every-service-is-kube-proxys"),
    };
    (service, report.finish())
}

/// Those that a packet of a pod may be sent to, and that are of one machine alone on a wire.
fn addresses<'a>(texts: impl Iterator<Item = (String, &'a String)>, report: &mut Report) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for (field, text) in texts.filter(|(_, text)| !text.is_empty()) {
        match address(text) {
            Some(ip) if !is_ordinary(ip) => report.add(
                field,
                format_args!(
                    "{ip} is loopback, link-local, multicast or unspecified; it is not taken for the Service"
                ),
            ),
            Some(ip) if addresses.contains(&ip) => {}
            Some(ip) => addresses.push(ip),
            None => report.add(field, format_args!("`{text}` is not an IP address; it is left out")),
        }
    }
    addresses
}

fn is_ordinary(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.to_ipv4_mapped().is_some(),
    };
    let is_special =
        link_local || address.is_loopback() || address.is_multicast() || address.is_unspecified();
    !is_special || planted("loopback-is-a-service")
}

fn ports(spec: &v1::ServiceSpec, report: &mut Report) -> Vec<ServicePort> {
    let mut ports = Vec::new();
    for (i, port) in spec.ports.iter().flatten().enumerate() {
        let transport = port.protocol.as_deref().unwrap_or("TCP");
        let (Some(protocol), Some(port_number)) = (protocol(transport), number(port.port)) else {
            report.add(
                format_args!("spec.ports[{i}]"),
                format_args!("{transport} {} is no port; it is left out", port.port),
            );
            continue;
        };
        ports.push(ServicePort {
            name: port.name.clone().unwrap_or_default(),
            protocol,
            number: port_number,
            node_port: port.node_port.and_then(number),
        });
    }
    ports
}

/// Whom a Service means, as its controller reads it. Ports that cannot be read are left out: [`service`] says so.
#[must_use]
pub fn service_selector(object: &v1::Service) -> ServiceSelector {
    let missing = v1::ServiceSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&missing);
    let target = |port: &v1::ServicePort| {
        let protocol = protocol(port.protocol.as_deref().unwrap_or("TCP"))?;
        // "If this is not specified, the value of the 'port' field is used"; the API server stores 0 as that.
        let target = match &port.target_port {
            None | Some(IntOrString::Int(0)) => TargetPort::Number(number(port.port)?),
            Some(IntOrString::Int(target)) => TargetPort::Number(number(*target)?),
            Some(IntOrString::String(name)) => TargetPort::Name(name.clone()),
        };
        Some(ServiceTarget { name: port.name.clone().unwrap_or_default(), protocol, port: target })
    };
    ServiceSelector {
        service: meta::key_from(Kind::Service, &object.metadata),
        pods: spec.selector.clone().filter(|labels| !labels.is_empty()),
        targets: spec.ports.iter().flatten().filter_map(target).collect(),
        headless: spec.cluster_ip.as_deref() == Some("None"),
        external_name: spec.external_name.clone().filter(|_| spec.type_.as_deref() == Some("ExternalName")),
    }
}
