//! What is read from `metadata`.

use cellwall_policy::model::{Kind, ObjectKey};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::{
    ENFORCEMENT,
    report::{Report, quoted},
};

/// The namespace of an object that names none, as in kubectl.
const DEFAULT_NAMESPACE: &str = "default";

const fn is_namespaced(kind: Kind) -> bool {
    matches!(kind, Kind::Pod | Kind::Service | Kind::EndpointSlice | Kind::NetworkPolicy)
}

fn key(kind: Kind, namespace: Option<&str>, name: &str) -> ObjectKey {
    if is_namespaced(kind) {
        let namespace = namespace.filter(|n| !n.is_empty()).unwrap_or(DEFAULT_NAMESPACE);
        ObjectKey::namespaced(kind, namespace, name)
    } else {
        ObjectKey::cluster(kind, name)
    }
}

/// The key of a decoded object.
pub(super) fn key_from(kind: Kind, meta: &ObjectMeta) -> ObjectKey {
    key(kind, meta.namespace.as_deref(), meta.name.as_deref().unwrap_or_default())
}

/// The key of an object that may not decode; `None` without a name, or with a namespace that cannot be read.
pub(super) fn key_of(kind: Kind, value: &Value) -> Option<ObjectKey> {
    let meta = value.get("metadata")?;
    let name = meta.get("name")?.as_str().filter(|name| !name.is_empty())?;
    let namespace = match meta.get("namespace") {
        None | Some(Value::Null) => None,
        Some(namespace) => Some(namespace.as_str()?),
    };
    Some(key(kind, namespace, name))
}

/// True when the annotation asks for audit; anything but `audit` and `enforce` is enforced and reported.
pub(super) fn audit(meta: &ObjectMeta, report: &mut Report) -> bool {
    match meta.annotations.as_ref().and_then(|a| a.get(ENFORCEMENT)).map(String::as_str) {
        None | Some("enforce") => false,
        Some("audit") => true,
        Some(other) => {
            report.add(
                format_args!("metadata.annotations[{ENFORCEMENT}]"),
                format_args!("`{}` is neither `enforce` nor `audit`; policies are enforced", quoted(other)),
            );
            false
        }
    }
}
