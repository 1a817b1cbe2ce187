//! Answers those who wait for a policy, each with looks at the nodes' objects of its own. Nobody waits most of the time, so
//! these are looked at only then.

use std::sync::Arc;

use cellwall_api::v1alpha1::{WaitEnforcedResponse, WaitingNode};
use cellwall_api::{Refusal, Snapshot, Wait};
use cellwall_kube::enforced::{Progress, WaitError, follow};
use cellwall_kube::kube::Client;
use futures::future;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// How many may wait at a time: each lists as many objects as the cluster has nodes.
const WAITS: usize = 8;

/// Where questions go. Without a `client` there is no cluster, and each is refused. All end when nobody publishes any more, as
/// other streams do.
pub(crate) fn spawn(client: Option<Client>, snapshots: watch::Receiver<Arc<Snapshot>>) -> mpsc::Sender<Wait> {
    let (sender, mut received) = mpsc::channel::<Wait>(WAITS);
    tokio::spawn(async move {
        let mut waiting = JoinSet::new();
        while let Some(wait) = received.recv().await {
            while waiting.try_join_next().is_some() {}
            let refusal = match &client {
                None => Refusal::Impossible(
                    "this agent reads its objects from a directory; there is no cluster to ask".to_owned(),
                ),
                Some(_) if waiting.len() >= WAITS => Refusal::TooMany,
                Some(client) => {
                    waiting.spawn(answer(client.clone(), wait, snapshots.clone()));
                    continue;
                }
            };
            // Who has left needs no answer.
            let _ = wait.answers.send(Err(refusal)).await;
        }
    });
    sender
}

async fn answer(client: Client, wait: Wait, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
    let Wait { namespace, name, answers } = wait;
    let (messages, mut received) = mpsc::channel(1);
    let forward = async {
        while let Some(progress) = received.recv().await {
            let _ = answers.send(Ok(message(progress))).await;
        }
    };
    let all = future::join(follow(&client, &namespace, &name, messages), forward);
    let stopping = async { while snapshots.changed().await.is_ok() {} };
    let ended = tokio::select! {
        () = answers.closed() => return,
        () = stopping => Err(WaitError::Failed("the agent is stopping; ask the next one".to_owned())),
        (ended, ()) = all => ended,
    };
    if let Err(error) = ended {
        let text = error.to_string();
        let refusal = match error {
            WaitError::NoSuchPolicy(_) => Refusal::NotFound(text),
            WaitError::NotServed => Refusal::Impossible(text),
            WaitError::Failed(_) => Refusal::Failed(text),
        };
        let _ = answers.send(Err(refusal)).await;
    }
}

fn message(progress: Progress) -> WaitEnforcedResponse {
    let enforced = progress.is_enforced();
    let Progress { generation, nodes, waiting } = progress;
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    let waiting = waiting.into_iter().map(|(node, waiting)| WaitingNode {
        node,
        selects: waiting.selects,
        reason: waiting.reason,
    });
    WaitEnforcedResponse { enforced, generation, nodes, waiting: waiting.collect() }
}
