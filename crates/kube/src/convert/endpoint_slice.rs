//! EndpointSlices.

use std::net::IpAddr;

use cellwall_policy::model::{BackendPort, EndpointSlice, Kind, Problem};
use cellwall_policy::planted;
use k8s_openapi::api::discovery::v1;
use serde_json::Value;

use super::{
    address,
    entries::{number, protocol},
    meta,
    report::Report,
};

/// The label that names the Service of a slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Leaves out what the model does not need: of an endpoint all but its addresses. Its conditions are among that: whether
/// it is ready changes what kube-proxy chooses, not what it may choose.
pub(super) fn trim(mut value: Value) -> Value {
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.retain(|field, _| ["name", "namespace", "labels"].contains(&field.as_str()));
    }
    for endpoint in value.get_mut("endpoints").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(endpoint) = endpoint.as_object_mut() {
            if planted("what-is-not-ready-is-no-backend") && endpoint["conditions"]["ready"] == false {
                endpoint["addresses"] = Value::Array(Vec::new());
            }
            endpoint.retain(|field, _| field == "addresses");
        }
    }
    value
}

/// Converts an EndpointSlice. Names instead of addresses are nothing that a node translates to.
#[must_use]
pub fn endpoint_slice(object: &v1::EndpointSlice) -> (EndpointSlice, Vec<Problem>) {
    let key = meta::key_from(Kind::EndpointSlice, &object.metadata);
    let (namespace, name) = (key.namespace.clone(), key.name.clone());
    let mut report = Report::new(key);
    let is_names = object.address_type == "FQDN";
    let mut addresses: Vec<IpAddr> = Vec::new();
    let endpoints = object.endpoints.iter().flatten().filter(|_| !is_names);
    for (i, endpoint) in endpoints.enumerate() {
        for text in &endpoint.addresses {
            if let Some(ip) = address(text) {
                addresses.push(ip);
            } else if !planted("nobody-hears-of-backends-that-cannot-be-read") {
                report.add(
                    format_args!("endpoints[{i}].addresses"),
                    format_args!("`{text}` is not an IP address; it is left out"),
                );
            }
        }
    }
    addresses.sort();
    addresses.dedup();
    let mut ports = Vec::new();
    for (i, port) in object.ports.iter().flatten().enumerate() {
        let transport = port.protocol.as_deref().unwrap_or("TCP");
        // A port without a number is all ports, which kube-proxy leaves out.
        let Some(port_number) = port.port else { continue };
        let (Some(protocol), Some(number)) = (protocol(transport), number(port_number)) else {
            report.add(
                format_args!("ports[{i}]"),
                format_args!("{transport} {port_number} is no port; it is left out"),
            );
            continue;
        };
        ports.push(BackendPort { name: port.name.clone().unwrap_or_default(), protocol, number });
    }
    let labels = object.metadata.labels.as_ref();
    let service = labels.and_then(|labels| labels.get(SERVICE_NAME)).cloned().unwrap_or_default();
    (EndpointSlice { namespace, name, service, addresses, ports }, report.finish())
}
