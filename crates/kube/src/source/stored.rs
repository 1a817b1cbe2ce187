//! What the API server has stored at this moment, beside what the watches have brought so far.

use cellwall_policy::model::{Kind, ObjectKey};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::{Api, Client};

use crate::answer::in_time;

/// A version of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPolicy {
    /// Its name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`: it grows with each change of what the policy says.
    pub generation: i64,
}

/// The network policies of a namespace, all that were stored when this was asked; or why that is not known.
///
/// Without a resourceVersion a list is no older than its request, whichever of several API servers answers. A watch has no
/// such promise, and those of two resources none between them: the pod may be heard of before a policy that was there
/// first.
pub async fn policies_of(client: &Client, namespace: &str) -> Result<Vec<StoredPolicy>, String> {
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    // Names and versions alone: what the policies say comes by the watch.
    let list = in_time(api.list_metadata(&ListParams::default())).await;
    let stored = |meta: kube::api::ObjectMeta| StoredPolicy {
        key: ObjectKey::namespaced(Kind::NetworkPolicy, namespace, &meta.name.unwrap_or_default()),
        uid: meta.uid.unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
    };
    Ok(list.map_err(|error| error.to_string())?.items.into_iter().map(|item| stored(item.metadata)).collect())
}
