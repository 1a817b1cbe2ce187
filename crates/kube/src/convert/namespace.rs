//! Namespaces.

use cellwall_policy::model::{Kind, Namespace, Problem};
use k8s_openapi::api::core::v1;

use super::{meta, report::Report};

/// The label that the API server gives every namespace: its name (S25).
pub(crate) const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Converts a Namespace. The label with its name is set whatever the object says, as the API server does.
#[must_use]
pub fn namespace(object: &v1::Namespace) -> (Namespace, Vec<Problem>) {
    let key = meta::key_from(Kind::Namespace, &object.metadata);
    let mut labels = object.metadata.labels.clone().unwrap_or_default();
    labels.insert(NAME_LABEL.to_owned(), key.name.clone());
    let name = key.name.clone();
    let mut report = Report::new(key);
    let audit = meta::audit(&object.metadata, &mut report);
    let deleting = object.metadata.deletion_timestamp.is_some();
    (Namespace { name, labels, audit, deleting }, report.finish())
}
