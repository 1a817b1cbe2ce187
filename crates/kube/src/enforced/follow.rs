//! Follows the nodes' objects until all enforce a policy.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::core::Selector;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

use super::{Progress, Target, WaitError};
use crate::node_object::{CellwallNode, CellwallNodeStatus};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked where the pods are, while no node says anything.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Sends how far the cluster is with the policy as it is stored now, at once and when that changes, and ends after the message
/// that says that it is enforced, or when nobody takes the messages.
pub async fn follow(
    client: &Client,
    namespace: &str,
    name: &str,
    messages: mpsc::Sender<Progress>,
) -> Result<(), WaitError> {
    let mut target = target(client, namespace, name).await?;
    let mut nodes = Nodes::default();
    let mut told = None;
    let objects = watch(Api::<CellwallNode>::all(client.clone()), watcher::Config::default());
    let mut objects = pin!(objects.default_backoff());
    loop {
        match timeout(LOOK_AGAIN, objects.next()).await {
            Ok(Some(event)) => nodes.take(event)?,
            Ok(None) => return Err(WaitError::Failed("the watch on cellwallnodes ended".to_owned())),
            Err(_) => target.selected = selected(client, namespace, name).await?,
        }
        if !nodes.listed {
            continue;
        }
        let mut progress = target.progress(&nodes.known);
        if progress.is_enforced() {
            // A pod may have come since, on a node that nobody had heard of.
            target.selected = selected(client, namespace, name).await?;
            progress = target.progress(&nodes.known);
        }
        let is_enforced = progress.is_enforced();
        if told.as_ref() != Some(&progress) && messages.send(progress.clone()).await.is_err() || is_enforced {
            return Ok(());
        }
        told = Some(progress);
    }
}

/// The policy as the API server has it now, no older than this request.
async fn policy(client: &Client, namespace: &str, name: &str) -> Result<NetworkPolicy, WaitError> {
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    // The role has list and not get.
    let params = ListParams::default().fields(&format!("metadata.name={name}"));
    let found = in_time(api.list(&params)).await?.items.into_iter().next();
    found.ok_or_else(|| WaitError::NoSuchPolicy(format!("{namespace}/{name}")))
}

async fn target(client: &Client, namespace: &str, name: &str) -> Result<Target, WaitError> {
    let policy = policy(client, namespace, name).await?;
    Ok(Target {
        policy: format!("{namespace}/{name}"),
        generation: policy.metadata.generation.unwrap_or_default(),
        resource_version: policy.resource_version().unwrap_or_default(),
        selected: nodes_of(client, namespace, &policy).await?,
    })
}

/// Where the pods are that it selects, as it is now.
async fn selected(client: &Client, namespace: &str, name: &str) -> Result<BTreeSet<String>, WaitError> {
    nodes_of(client, namespace, &policy(client, namespace, name).await?).await
}

async fn nodes_of(
    client: &Client,
    namespace: &str,
    policy: &NetworkPolicy,
) -> Result<BTreeSet<String>, WaitError> {
    let pods = policy.spec.as_ref().and_then(|spec| spec.pod_selector.clone()).unwrap_or_default();
    let pods = Selector::try_from(pods).map_err(|error| WaitError::Failed(error.to_string()))?;
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels_from(&pods);
    let pods = in_time(api.list(&params)).await?;
    Ok(pods.items.into_iter().filter_map(node_of).collect())
}

/// The node of a pod that is or will be enforced there.
fn node_of(pod: Pod) -> Option<String> {
    let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
    let spec = pod.spec.filter(|spec| spec.host_network != Some(true))?;
    spec.node_name.filter(|node| !node.is_empty() && !matches!(phase.as_str(), "Succeeded" | "Failed"))
}

async fn in_time<T>(answer: impl Future<Output = kube::Result<T>>) -> Result<T, WaitError> {
    let silent = |_| WaitError::Failed(format!("it said nothing for {} s", LIMIT.as_secs()));
    Ok(timeout(LIMIT, answer).await.map_err(silent)??)
}

/// The resource is not there, or not for the agent.
fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 403))
}

impl From<kube::Error> for WaitError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 404 => Self::NotServed,
            error => Self::Failed(error.to_string()),
        }
    }
}

/// What the nodes say.
#[derive(Debug, Default)]
struct Nodes {
    known: BTreeMap<String, CellwallNodeStatus>,
    /// Those of a list that is under way.
    next: BTreeMap<String, CellwallNodeStatus>,
    listed: bool,
}

impl Nodes {
    fn take(&mut self, event: Result<Event<CellwallNode>, watcher::Error>) -> Result<(), WaitError> {
        let named = |node: CellwallNode| (node.name_any(), node.status.unwrap_or_default());
        match event {
            Ok(Event::Init) => self.next.clear(),
            Ok(Event::InitApply(node)) => self.next.extend([named(node)]),
            Ok(Event::InitDone) => {
                self.known = std::mem::take(&mut self.next);
                self.listed = true;
            }
            Ok(Event::Apply(node)) => self.known.extend([named(node)]),
            Ok(Event::Delete(node)) => {
                self.known.remove(&node.name_any());
            }
            // Neither passes by itself; everything else is tried again by the watch.
            Err(watcher::Error::InitialListFailed(error)) if is_final(&error) => return Err(error.into()),
            Err(error) => debug!(%error, "watching cellwallnodes"),
        }
        Ok(())
    }
}
