//! The object in which a node's agent says what it enforces: `kubectl get cellwallnodes`, and what whoever waits for a
//! policy looks at. Agents write it, nobody has to.

mod schema;

use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, CustomResource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::answer::in_time;

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// After how many seconds an agent that says nothing counts as gone: two heartbeats, and a minute.
const SILENT_S: i64 = 11 * 60;

/// Who writes the fields of these objects.
const MANAGER: &str = "cellwall-agent";

/// Nothing is asked of a node here: what it does follows from its policies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "cellwall.dev",
    version = "v1alpha1",
    kind = "CellwallNode",
    plural = "cellwallnodes",
    singular = "cellwallnode",
    shortname = "cwn",
    category = "cellwall",
    status = "CellwallNodeStatus",
    doc = "CellwallNode says what one node enforces. Its agent writes it; it has the node's name and goes with it.",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".status.mode"}"#,
    printcolumn = r#"{"name":"Endpoints","type":"integer","jsonPath":".status.endpoints"}"#,
    printcolumn = r#"{"name":"Policies","type":"integer","jsonPath":".status.policies"}"#,
    printcolumn = r#"{"name":"Problems","type":"integer","jsonPath":".status.problemCount"}"#,
    printcolumn = r#"{"name":"Revision","type":"integer","jsonPath":".status.revision","priority":1}"#,
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".status.agentVersion","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Why","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].message","priority":1}"#
)]
#[serde(rename_all = "camelCase")]
pub struct CellwallNodeSpec {}

/// What the node enforces. Written when it changes, at most every ten seconds, and at least every five minutes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CellwallNodeStatus {
    /// Version of the agent.
    pub agent_version: String,
    /// `enforce`, or `audit`: what policies deny is counted and passes.
    pub mode: String,
    /// Revision that is live in the kernel.
    pub revision: i64,
    /// Interfaces that are enforced here.
    pub endpoints: i32,
    /// Policies that are known here.
    pub policies: i32,
    /// Pods of this node that are not enforced, those of the node's network among them.
    pub unplaced_pods: i32,
    /// What is wrong with objects, in number.
    pub problem_count: i32,
    /// The first of what is wrong, each with its object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// NetworkPolicies with a problem here, as `namespace/name`: they are not enforced as they are written. Absent where they
    /// are too many to be named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policies_with_problems: Option<Vec<String>>,
    /// Pods with a network of their own for which policies are not enforced, as `namespace/name`: those that are audited, and
    /// those whose interface is not known. Absent where they are too many to be named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods_not_enforced: Option<Vec<String>>,
    /// Of NetworkPolicy: the resourceVersion up to which everything is live in the kernel.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub enforced: Vec<EnforcedVersion>,
    /// Where the agent answers from outside the node. Absent where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
    /// When this was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub heartbeat: Option<Time>,
    /// `Ready`, and what it depends on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

impl CellwallNodeStatus {
    /// Why the node does not count as ready at `now`, in seconds of Unix time; none where it does.
    #[must_use]
    pub fn trouble(&self, now: i64) -> Option<String> {
        let ready = self.conditions.iter().find(|condition| condition.type_ == "Ready");
        let heartbeat = self.heartbeat.as_ref().map_or(0, |time| time.0.as_second());
        if heartbeat < now - SILENT_S && !cellwall_policy::planted("silent-nodes-enforce") {
            return Some(format!("its agent has said nothing for more than {} minutes", SILENT_S / 60));
        }
        match ready {
            Some(ready) if ready.status == "True" => None,
            Some(ready) => Some(format!("it is not ready: {}: {}", ready.reason, ready.message)),
            None => Some("it has not said that it is ready".to_owned()),
        }
    }
}

/// How an agent is asked from outside its node: by a port of its pod, which `kubectl port-forward` reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Remote {
    /// Namespace of the agent's pod.
    pub namespace: String,
    /// Name of the agent's pod.
    pub pod: String,
    /// The port, on 127.0.0.1 of the node.
    pub port: i32,
    /// A ServiceAccount of that namespace which may ask: its tokens for the audience `cellwall.dev` are taken.
    pub service_account: String,
    /// SHA-256 of the certificate that answers there, in small hexadecimal digits.
    pub certificate_sha256: String,
}

/// How far a node is with one kind of policies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnforcedVersion {
    /// The kind, as in a manifest.
    pub kind: String,
    /// Every object of the kind is enforced as it was at this resourceVersion, or newer.
    pub resource_version: String,
}

/// Why a node's object could not be written.
#[derive(Debug, Error)]
pub enum PublishError {
    /// The API server does not know the resource.
    #[error("the API server does not know cellwallnodes.cellwall.dev; install the chart's CRDs")]
    NotServed,
    /// It may not be written.
    #[error("the agent may not write its CellwallNode; the chart's ClusterRole allows it: {0}")]
    Forbidden(String),
    /// Anything else, which may pass.
    #[error("cannot write the CellwallNode: {0}")]
    Failed(String),
}

impl From<kube::Error> for PublishError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 404 => Self::NotServed,
            kube::Error::Api(status) if status.code == 403 => Self::Forbidden(status.message.clone()),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// Makes the object of the node `name`, which ends with the node itself, or makes the one that is there this node's.
pub async fn announce(client: &Client, name: &str) -> Result<(), PublishError> {
    // The role has list and not get.
    let params = ListParams::default().fields(&format!("metadata.name={name}"));
    let nodes = Api::<Node>::all(client.clone());
    let node = in_time(nodes.list_metadata(&params)).await?.items.into_iter().next();
    let mut object = CellwallNode::new(name, CellwallNodeSpec {});
    object.metadata.owner_references = node.and_then(|node| node.metadata.uid).map(|uid| {
        let (api_version, kind, name) = ("v1".to_owned(), "Node".to_owned(), name.to_owned());
        vec![OwnerReference { api_version, kind, name, uid, ..OwnerReference::default() }]
    });
    let all = Api::<CellwallNode>::all(client.clone());
    in_time(all.patch(name, &applied(), &Patch::Apply(&object))).await?;
    Ok(())
}

/// Writes the status of the node `name`, whose object is there.
pub async fn publish(client: &Client, name: &str, status: CellwallNodeStatus) -> Result<(), PublishError> {
    let mut object = CellwallNode::new(name, CellwallNodeSpec {});
    object.status = Some(status);
    let all = Api::<CellwallNode>::all(client.clone());
    in_time(all.patch_status(name, &applied(), &Patch::Apply(&object))).await?;
    Ok(())
}

/// A moment as the API has them: in whole seconds.
#[must_use]
pub fn time(moment: SystemTime) -> Time {
    let seconds = moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Time(i64::try_from(seconds).ok().and_then(|s| Timestamp::from_second(s).ok()).unwrap_or_default())
}

fn applied() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}
