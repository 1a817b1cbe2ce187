//! One object of a list or a watch.

use std::borrow::Cow;

use cellwall_policy::model::Kind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::convert::{Decoded, decode_as};

/// Positions in [`Kind::ALL`], for [`Item`].
pub(super) const NAMESPACE: usize = Kind::Namespace as usize;
pub(super) const NODE: usize = Kind::Node as usize;
pub(super) const POD: usize = Kind::Pod as usize;
pub(super) const SERVICE: usize = Kind::Service as usize;
pub(super) const ENDPOINT_SLICE: usize = Kind::EndpointSlice as usize;
pub(super) const NETWORK_POLICY: usize = Kind::NetworkPolicy as usize;
pub(super) const CLUSTER_NETWORK_POLICY: usize = Kind::ClusterNetworkPolicy as usize;

/// An object of the kind at `KIND` in [`Kind::ALL`], converted while its page is read: no page is ever held in full,
/// and whatever is wrong with one object stays with it, since any JSON is an item.
#[derive(Clone, Debug)]
pub(super) struct Item<const KIND: usize> {
    /// Only `resourceVersion`.
    meta: ObjectMeta,
    pub(super) decoded: Decoded,
}

impl<const KIND: usize> Item<KIND> {
    /// The version to watch on from; empty where the server gave none.
    pub(super) fn version(&self) -> &str {
        self.meta.resource_version.as_deref().unwrap_or_default()
    }
}

impl<'de, const KIND: usize> Deserialize<'de> for Item<KIND> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let version = value.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        let meta = ObjectMeta { resource_version: version.map(str::to_owned), ..ObjectMeta::default() };
        Ok(Self { meta, decoded: decode_as(Kind::ALL[KIND], value) })
    }
}

impl<const KIND: usize> Resource for Item<KIND> {
    type DynamicType = ();
    type Scope = kube::core::DynamicResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Kind::ALL[KIND].name().into()
    }

    fn group((): &()) -> Cow<'_, str> {
        match Kind::ALL[KIND] {
            Kind::Namespace | Kind::Node | Kind::Pod | Kind::Service => "".into(),
            Kind::EndpointSlice => "discovery.k8s.io".into(),
            Kind::NetworkPolicy => "networking.k8s.io".into(),
            Kind::ClusterNetworkPolicy => "policy.networking.k8s.io".into(),
        }
    }

    fn version((): &()) -> Cow<'_, str> {
        match Kind::ALL[KIND] {
            Kind::ClusterNetworkPolicy => "v1alpha2".into(),
            _ => "v1".into(),
        }
    }

    fn plural((): &()) -> Cow<'_, str> {
        plural(Kind::ALL[KIND]).into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// The resource as in a URL and in a role.
pub(super) const fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::Namespace => "namespaces",
        Kind::Node => "nodes",
        Kind::Pod => "pods",
        Kind::Service => "services",
        Kind::EndpointSlice => "endpointslices",
        Kind::NetworkPolicy => "networkpolicies",
        Kind::ClusterNetworkPolicy => "clusternetworkpolicies",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_the_list() {
        let positions =
            [NAMESPACE, NODE, POD, SERVICE, ENDPOINT_SLICE, NETWORK_POLICY, CLUSTER_NETWORK_POLICY];
        assert_eq!(positions.map(|at| Kind::ALL[at]), Kind::ALL);
    }

    #[test]
    fn any_json_is_an_item() {
        for text in ["null", "7", "[]", "{}", r#"{"metadata": 7}"#, r#"{"metadata": {"resourceVersion": 7}}"#]
        {
            let item: Item<POD> = serde_json::from_str(text).expect(text);
            assert_eq!(item.version(), "", "{text}");
        }
    }
}
