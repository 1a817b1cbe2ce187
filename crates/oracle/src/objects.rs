//! What the evaluator is asked about: the objects of a cluster as one node sees them.

use core::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::api::{EndpointSlice, Namespace, NetworkPolicy, Node, Pod, Service};

/// The types of the Kubernetes API that [`Objects`] is made of, so that a generator needs no other name for them.
pub mod api {
    pub use k8s_openapi::{
        api::{
            core::v1::{
                Container, ContainerPort, LoadBalancerIngress, LoadBalancerStatus, Namespace, Node,
                NodeAddress, NodeSpec, NodeStatus, Pod, PodIP, PodSpec, PodStatus, Service, ServicePort,
                ServiceSpec, ServiceStatus,
            },
            discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
            networking::v1::{
                IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
                NetworkPolicyPort, NetworkPolicySpec,
            },
        },
        apimachinery::pkg::{
            apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta, Time},
            util::intstr::IntOrString,
        },
        jiff::Timestamp,
    };
}

/// Everything a node knows when it decides.
///
/// The objects may be as served or as written in manifests: what the API server would have filled in, the
/// evaluator fills in itself (S15). A namespaced object without a namespace is in `default`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Objects {
    /// The node at whose pods' interfaces the flows are seen.
    pub node_name: String,
    /// Ranges of pod addresses from the settings, besides those of the nodes' `spec.podCIDRs`.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<IpNet>,
    /// Addresses of this node's own interfaces.
    pub node_addresses: Vec<IpAddr>,
    /// All namespaces that are known. No selector matches the pods of a namespace that is not.
    pub namespaces: Vec<Namespace>,
    /// All nodes that are known.
    pub nodes: Vec<Node>,
    /// All pods that are known, of every node and in every phase.
    pub pods: Vec<Pod>,
    /// All NetworkPolicies.
    pub policies: Vec<NetworkPolicy>,
    /// All Services.
    pub services: Vec<Service>,
    /// All EndpointSlices, whoever wrote them.
    pub slices: Vec<EndpointSlice>,
}

impl Objects {
    /// All of it as one document, from which [`from_document`](Self::from_document) makes the same again.
    pub fn to_document(&self) -> Value {
        serde_json::to_value(self).expect("objects are a document")
    }

    /// The objects of a document, which may come from JSON or YAML. The error names what cannot be one.
    pub fn from_document(document: Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(document)
    }

    /// The objects as an API server serves them, each with its `apiVersion` and `kind`: namespaces, nodes, pods,
    /// policies, Services, slices, in the order of their lists. The settings are not among them.
    pub fn values(&self) -> Vec<Value> {
        fn value<T: Serialize>(object: &T) -> Value {
            serde_json::to_value(object).expect("an object of the API is a document")
        }
        let namespaces = self.namespaces.iter().map(value);
        let nodes = self.nodes.iter().map(value);
        let pods = self.pods.iter().map(value);
        let policies = self.policies.iter().map(value);
        let services = self.services.iter().map(value);
        let slices = self.slices.iter().map(value);
        namespaces.chain(nodes).chain(pods).chain(policies).chain(services).chain(slices).collect()
    }
}
