//! Writes the node's object: what everybody may know of this node, without asking its agent. One write for each change, at
//! most one in ten seconds and at least one in five minutes, so that a cluster of thousands of nodes costs the API server hundreds of writes a second at worst.

mod status;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use cellwall_api::v1alpha1::{Condition, NodeStatus};
use cellwall_api::{Publisher, Snapshot};
use cellwall_kube::kube::Client;
use cellwall_kube::node_object::{self, CellwallNodeStatus, PublishError, Remote};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use self::status::status;
use crate::args::{Args, Source};
use crate::inputs;

/// Between two writes.
const APART: Duration = Duration::from_secs(10);
/// Whether anything changed or not: an agent that says nothing for two of these counts as gone.
const HEARTBEAT: Duration = Duration::from_mins(5);
/// After a write that failed.
const AGAIN: Duration = Duration::from_secs(30);

/// Writes the object of the node `name`, with where its agent answers from outside, until nobody publishes any more.
pub(crate) async fn keep(
    client: Client,
    name: String,
    remote: Option<Remote>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
) {
    // What an earlier node of this name left is made this node's.
    let is_announced = AtomicBool::new(false);
    let write = |status: CellwallNodeStatus| {
        let status = CellwallNodeStatus { remote: remote.clone(), ..status };
        async {
            if !is_announced.load(Relaxed) {
                node_object::announce(&client, &name).await?;
            }
            let done = node_object::publish(&client, &name, status).await;
            // Whatever is wrong with the object, the next write makes it anew.
            is_announced.store(done.is_ok(), Relaxed);
            done
        }
    };
    every_change(write, snapshots).await;
}

/// Says so while the node is disabled, as far as it can be said: a node that is to be let alone must not need an API server.
pub(crate) async fn tell_disabled(args: Args, name: String) {
    if args.source != Source::Api {
        return;
    }
    let client = match inputs::client(&args).await {
        Ok(client) => client,
        Err(error) => return warn!("nobody is told that this node is disabled: {error:#}"),
    };
    let status = NodeStatus {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        conditions: vec![Condition {
            r#type: "Enabled".to_owned(),
            ok: false,
            reason: "Disabled".to_owned(),
            message: "`cellwall node disable` was run there: nothing is enforced".to_owned(),
            required: true,
        }],
        ..NodeStatus::default()
    };
    let publisher = Publisher::new(Snapshot {
        taken: std::time::Instant::now(),
        status,
        endpoints: Arc::default(),
        policies: Arc::default(),
    });
    keep(client, name, None, publisher.subscribe()).await;
}

/// `write` gets every status that differs from the one before, and one at every heartbeat.
async fn every_change<F, A>(write: F, mut snapshots: watch::Receiver<Arc<Snapshot>>)
where
    F: Fn(CellwallNodeStatus) -> A,
    A: Future<Output = Result<(), PublishError>>,
{
    let mut written = CellwallNodeStatus::default();
    let mut due = Instant::now();
    let mut failing = None;
    while snapshots.has_changed().is_ok() {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        let next = status(&snapshot, &written, SystemTime::now());
        if next != written || failing.is_some() || due <= Instant::now() {
            let wait = match write(beating(next.clone())).await {
                Ok(()) => {
                    if failing.take().is_some() {
                        info!("the node's object is written again");
                    }
                    written = next;
                    APART
                }
                Err(error) => {
                    let error = error.to_string();
                    if failing.as_ref() != Some(&error) {
                        warn!("{error}");
                    }
                    failing = Some(error);
                    AGAIN
                }
            };
            due = Instant::now() + HEARTBEAT;
            sleep(wait).await;
        }
        if failing.is_none() {
            // An error is seen above.
            let _ = timeout_at(due, snapshots.changed()).await;
        }
    }
}

fn beating(status: CellwallNodeStatus) -> CellwallNodeStatus {
    CellwallNodeStatus { heartbeat: Some(node_object::time(SystemTime::now())), ..status }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn snapshot(status: NodeStatus) -> Snapshot {
        Snapshot {
            taken: std::time::Instant::now(),
            status,
            endpoints: Arc::default(),
            policies: Arc::default(),
        }
    }

    fn node(revision: u64) -> NodeStatus {
        NodeStatus { revision, ready: true, ..NodeStatus::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn every_change_is_written_once_and_none_within_ten_seconds_of_another() {
        let publisher = Publisher::new(snapshot(node(1)));
        let receiver = publisher.subscribe();
        let (begun, writes) = (Instant::now(), Mutex::new(Vec::new()));
        let write = |status: CellwallNodeStatus| {
            writes.lock().expect("one thread").push((begun.elapsed().as_secs(), status.revision));
            async { Ok(()) }
        };
        let changes = async {
            for revision in [2, 3, 3] {
                sleep(Duration::from_secs(1)).await;
                publisher.publish(snapshot(node(revision)));
            }
            sleep(Duration::from_mins(5)).await;
            publisher.publish(snapshot(node(4)));
            sleep(Duration::from_mins(6)).await;
            drop(publisher);
        };
        tokio::join!(every_change(write, receiver), changes);
        assert_eq!(*writes.lock().expect("one thread"), [(0, 1), (10, 3), (303, 4), (603, 4)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_again_as_it_was_written_is_written_all_the_same_after_a_failure() {
        let publisher = Publisher::new(snapshot(node(1)));
        let receiver = publisher.subscribe();
        let (begun, writes) = (Instant::now(), Mutex::new(Vec::new()));
        let write = |status: CellwallNodeStatus| {
            let mut writes = writes.lock().expect("one thread");
            writes.push((begun.elapsed().as_secs(), status.revision));
            let done = if status.revision == 2 { Err(PublishError::NotServed) } else { Ok(()) };
            async { done }
        };
        let changes = async {
            sleep(Duration::from_secs(20)).await;
            publisher.publish(snapshot(node(2)));
            sleep(Duration::from_secs(5)).await;
            publisher.publish(snapshot(node(1)));
            sleep(Duration::from_mins(2)).await;
            drop(publisher);
        };
        tokio::join!(every_change(write, receiver), changes);
        assert_eq!(*writes.lock().expect("one thread"), [(0, 1), (20, 2), (50, 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_written_is_written_later_as_it_is_then() {
        let publisher = Publisher::new(snapshot(node(1)));
        let receiver = publisher.subscribe();
        let (begun, writes) = (Instant::now(), Mutex::new(Vec::new()));
        let write = |status: CellwallNodeStatus| {
            let mut writes = writes.lock().expect("one thread");
            writes.push((begun.elapsed().as_secs(), status.revision));
            let done = if writes.len() < 3 { Err(PublishError::NotServed) } else { Ok(()) };
            async { done }
        };
        let changes = async {
            sleep(Duration::from_secs(40)).await;
            publisher.publish(snapshot(node(2)));
            sleep(Duration::from_mins(5)).await;
            drop(publisher);
        };
        tokio::join!(every_change(write, receiver), changes);
        assert_eq!(*writes.lock().expect("one thread"), [(0, 1), (30, 1), (60, 2)]);
    }
}
