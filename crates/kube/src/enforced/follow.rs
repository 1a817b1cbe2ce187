//! Asks again and again how far the nodes are, until all enforce a policy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, ListParams, Object};
use kube::core::Selector;
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::{Progress, Target, WaitError};
use crate::answer::in_time;
use crate::node_object::{CellwallNode, CellwallNodeStatus};

/// Objects of a page: client-go's number.
const PAGE: u32 = 500;
/// Between the first two looks; between the others it doubles, since who waits for long waits for one that hangs.
const FIRST: Duration = Duration::from_millis(250);
/// Between two looks at most.
const LONGEST: Duration = Duration::from_secs(4);
/// For how long an API server may fail that has answered once.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends how far the cluster is with the policy as it is stored now, at once and when that changes, and ends after the message
/// that says that it is enforced, or when nobody takes the messages.
pub async fn follow(
    client: &Client,
    namespace: &str,
    name: &str,
    messages: mpsc::Sender<Progress>,
) -> Result<(), WaitError> {
    let policy = policy(client, namespace, name).await?;
    let (mut told, mut failing, mut pause) = (None, None, FIRST);
    loop {
        match look(client, namespace, &policy).await {
            Ok(progress) => {
                failing = None;
                let is_enforced = progress.is_enforced();
                let is_news = told.as_ref() != Some(&progress);
                if is_news && messages.send(progress.clone()).await.is_err() || is_enforced {
                    return Ok(());
                }
                told = Some(progress);
            }
            Err(error @ WaitError::Failed(_)) => {
                if failing.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        sleep(pause).await;
        pause = LONGEST.min(pause * 2);
    }
}

/// The policy as the API server has it, no older than this request.
async fn policy(client: &Client, namespace: &str, name: &str) -> Result<NetworkPolicy, WaitError> {
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    // The role has list and not get.
    let params = ListParams::default().fields(&format!("metadata.name={name}"));
    let found = in_time(api.list(&params)).await?.items.into_iter().next();
    found.ok_or_else(|| WaitError::NoSuchPolicy(format!("{namespace}/{name}")))
}

/// How far the cluster is with this version of the policy. Pods first: what a node says of one that is listed is not older.
async fn look(client: &Client, namespace: &str, wanted: &NetworkPolicy) -> Result<Progress, WaitError> {
    let name = wanted.name_any();
    // While it is there: of what was deleted nothing can be enforced.
    policy(client, namespace, &name).await?;
    let target = Target {
        policy: format!("{namespace}/{name}"),
        generation: wanted.metadata.generation.unwrap_or_default(),
        resource_version: wanted.resource_version().unwrap_or_default(),
        selected: selected(client, namespace, wanted).await?,
        nodes: nodes(client).await?,
    };
    Ok(target.progress(&said(client).await?, Timestamp::now().as_second()))
}

/// What each node says.
pub(super) async fn said(client: &Client) -> Result<BTreeMap<String, CellwallNodeStatus>, WaitError> {
    let objects = all(&Api::<CellwallNode>::all(client.clone()), ListParams::default()).await?;
    Ok(objects.into_iter().map(|node| (node.name_any(), node.status.unwrap_or_default())).collect())
}

/// All nodes on which an agent can run.
pub(super) async fn nodes(client: &Client) -> Result<BTreeSet<String>, WaitError> {
    let api = Api::<Node>::all(client.clone());
    let params = ListParams::default().labels("kubernetes.io/os!=windows");
    // Their names alone; a page of them is short.
    let list = in_time(api.list_metadata(&params)).await?;
    Ok(list.items.iter().map(ResourceExt::name_any).collect())
}

/// What counts of a pod; the rest is much longer.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Place {
    node_name: String,
    host_network: bool,
}

/// What counts of a pod's status.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Life {
    phase: String,
}

/// The pods that it selects and that are or will be enforced on a node, as it is now.
async fn selected(
    client: &Client,
    namespace: &str,
    policy: &NetworkPolicy,
) -> Result<BTreeMap<String, BTreeSet<String>>, WaitError> {
    let labels = policy.spec.as_ref().and_then(|spec| spec.pod_selector.clone()).unwrap_or_default();
    let labels = Selector::try_from(labels).map_err(|error| WaitError::Failed(error.to_string()))?;
    let resource = ApiResource::erase::<Pod>(&());
    let api: Api<Object<Place, Life>> = Api::namespaced_with(client.clone(), namespace, &resource);
    let mut selected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for pod in all(&api, ListParams::default().labels_from(&labels)).await? {
        let phase = pod.status.as_ref().map_or("", |life| &life.phase);
        let has_ended = matches!(phase, "Succeeded" | "Failed");
        if !pod.spec.node_name.is_empty() && !pod.spec.host_network && !has_ended {
            let name = format!("{namespace}/{}", pod.name_any());
            selected.entry(pod.spec.node_name).or_default().insert(name);
        }
    }
    Ok(selected)
}

/// All pages.
async fn all<T: Clone + Debug + DeserializeOwned>(
    api: &Api<T>,
    params: ListParams,
) -> Result<Vec<T>, WaitError> {
    let mut params = params.limit(PAGE);
    let mut items = Vec::new();
    loop {
        let page = in_time(api.list(&params)).await?;
        items.extend(page.items);
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(items);
        }
    }
}

impl From<kube::Error> for WaitError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 404 => Self::NotServed,
            error => Self::Failed(error.to_string()),
        }
    }
}
