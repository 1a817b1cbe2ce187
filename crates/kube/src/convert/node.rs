//! Nodes.

use cellwall_policy::model::{Kind, Node, Problem};
use k8s_openapi::api::core::v1;
use serde_json::Value;

use super::{address, block, meta, report::Report};

/// Leaves out what the model does not need: a Node lists every image on the node.
pub(super) fn trim(mut value: Value) -> Value {
    if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
        status.retain(|field, _| field == "addresses");
    }
    value
}

/// Converts a Node. Host names among its addresses are left out.
#[must_use]
pub fn node(object: &v1::Node) -> (Node, Vec<Problem>) {
    let key = meta::key_from(Kind::Node, &object.metadata);
    let name = key.name.clone();
    let mut report = Report::new(key);
    let listed = object.status.as_ref().and_then(|s| s.addresses.as_deref()).unwrap_or_default();
    let mut addresses = Vec::new();
    for (i, entry) in listed.iter().enumerate() {
        match address(&entry.address) {
            Some(ip) if !addresses.contains(&ip) => addresses.push(ip),
            None if entry.type_.ends_with("IP") => report.add(
                format_args!("status.addresses[{i}].address"),
                format_args!("`{}` is not an IP address; it is left out", entry.address),
            ),
            _ => {}
        }
    }
    let spec = object.spec.as_ref();
    let ranges = spec.and_then(|s| s.pod_cidrs.as_deref()).unwrap_or_default();
    let ranges = if ranges.is_empty() {
        spec.and_then(|s| s.pod_cidr.as_ref())
            .filter(|c| !c.is_empty())
            .map(std::slice::from_ref)
            .unwrap_or_default()
    } else {
        ranges
    };
    let mut pod_cidrs = Vec::new();
    for (i, range) in ranges.iter().enumerate() {
        match block(range) {
            Ok(cidr) => pod_cidrs.push(cidr),
            Err(why) => report.add(
                format_args!("spec.podCIDRs[{i}]"),
                format_args!("`{range}` {why}; addresses in it are not known to be pods"),
            ),
        }
    }
    let labels = object.metadata.labels.clone().unwrap_or_default();
    (Node { name, labels, addresses, pod_cidrs }, report.finish())
}
