//! One Kubernetes object to one value of the model.

mod cidr;
mod endpoint_slice;
mod entries;
mod labels;
mod meta;
mod namespace;
mod network_policy;
mod node;
mod pod;
mod raw;
mod report;
mod selector;
mod service;

use cellwall_policy::model::{Change, Kind, ObjectKey, Problem};
use serde_json::Value;

pub use cidr::{address, block};
pub use endpoint_slice::endpoint_slice;
pub(crate) use namespace::NAME_LABEL;
pub use namespace::namespace;
pub use network_policy::network_policy;
pub use node::node;
pub use pod::pod;
pub(crate) use report::merged;
pub use selector::parse_selector;
pub use service::{service, service_selector};

/// The annotation that says how pods are enforced: `enforce` (the default) or `audit`.
pub const ENFORCEMENT: &str = "cellwall.dev/enforcement";

/// What an object in JSON turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// One of ours: its name, and what the model should be told, in order. Never empty.
    Object(ObjectKey, Vec<Change>),
    /// Of a resource that decides nothing here.
    Other {
        /// `apiVersion`, or empty.
        api_version: String,
        /// `kind`, or empty.
        kind: String,
    },
    /// One of ours without `metadata.name`, or in a namespace that is no text.
    Unnamed(Kind),
}

/// The kind that `apiVersion` and `kind` of a manifest mean, if it is one of ours.
#[must_use]
pub fn kind_of(api_version: &str, kind: &str) -> Option<Kind> {
    match (api_version, kind) {
        ("v1", "Namespace") => Some(Kind::Namespace),
        ("v1", "Node") => Some(Kind::Node),
        ("v1", "Pod") => Some(Kind::Pod),
        ("v1", "Service") => Some(Kind::Service),
        ("discovery.k8s.io/v1", "EndpointSlice") => Some(Kind::EndpointSlice),
        ("networking.k8s.io/v1", "NetworkPolicy") => Some(Kind::NetworkPolicy),
        ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy") => Some(Kind::ClusterNetworkPolicy),
        _ => None,
    }
}

/// Decodes an object by its own `apiVersion` and `kind`.
#[must_use]
pub fn decode(value: Value) -> Decoded {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    match kind_of(&api_version, &kind) {
        Some(kind) => decode_as(kind, value),
        None => Decoded::Other { api_version, kind },
    }
}

/// Decodes an object that is known to be of this kind: items of a list carry no `kind` of their own.
#[must_use]
pub fn decode_as(kind: Kind, value: Value) -> Decoded {
    let Some(key) = meta::key_of(kind, &value) else { return Decoded::Unnamed(kind) };
    let changes = match kind {
        Kind::Namespace => serde_json::from_value(value)
            .map(|object| told(Change::Namespace, namespace(&object), &key))
            .map_err(|error| report::unreadable(&key, &error)),
        Kind::Node => serde_json::from_value(node::trim(value))
            .map(|object| told(Change::Node, node(&object), &key))
            .map_err(|error| report::unreadable(&key, &error)),
        Kind::Pod => pod::from_value(&key, value).map(|read| told(Change::Pod, read, &key)),
        Kind::Service => serde_json::from_value(service::trim(value))
            .map(|object| told(Change::Service, service(&object), &key))
            .map_err(|error| report::unreadable(&key, &error)),
        Kind::EndpointSlice => serde_json::from_value(endpoint_slice::trim(value))
            .map(|object| told(Change::EndpointSlice, endpoint_slice(&object), &key))
            .map_err(|error| report::unreadable(&key, &error)),
        Kind::NetworkPolicy => {
            let (policy, problems) = network_policy::from_value(&key, value);
            Ok(vec![Change::Policy(policy, problems)])
        }
        Kind::ClusterNetworkPolicy => Err(Problem {
            object: key.clone(),
            field: String::new(),
            message: "ClusterNetworkPolicy is not enforced by this version: this object has no effect"
                .to_owned(),
        }),
    };
    Decoded::Object(key, changes.unwrap_or_else(|problem| vec![Change::Bad(problem)]))
}

/// The change, followed by its problems as the one that a key can have.
fn told<T>(
    change: impl FnOnce(T) -> Change,
    (value, problems): (T, Vec<Problem>),
    key: &ObjectKey,
) -> Vec<Change> {
    let mut changes = vec![change(value)];
    changes.extend(merged(key, problems).map(Change::Bad));
    changes
}
