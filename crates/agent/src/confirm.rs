//! Asks the API server for the policies of namespaces in which pods of this node were first heard of: see
//! [`crate::node::confirm`].

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use cellwall_kube::source::StoredPolicy;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::node::confirm::{PodId, Stored, Unconfirmed};
use crate::run::Input;

/// How soon it is asked again for a pod that waits still: a watch lags by some ten milliseconds. Doubled until [`SLOWEST`].
const FIRST: Duration = Duration::from_millis(100);
/// See [`FIRST`].
const SLOWEST: Duration = Duration::from_secs(5);
/// Requests at a time.
const AT_ONCE: usize = 8;

/// When it was asked for a pod, and how often.
#[derive(Clone, Copy, Debug)]
struct Asked {
    times: u32,
    /// `None` while the answer is awaited.
    again: Option<Instant>,
}

/// Asks for what is `open` until nobody takes the answers.
pub(crate) async fn keep<F, A>(ask: F, mut open: watch::Receiver<Unconfirmed>, inputs: mpsc::Sender<Input>)
where
    F: Fn(String) -> A,
    A: Future<Output = Result<Vec<StoredPolicy>, String>>,
{
    let mut asked: BTreeMap<PodId, Asked> = BTreeMap::new();
    let mut running = FuturesUnordered::new();
    loop {
        let pods = open.borrow_and_update().clone();
        asked.retain(|pod, _| pods.contains(pod));
        while running.len() < AT_ONCE {
            let Some((namespace, pods)) = next(&pods, &mut asked) else { break };
            let answer = ask(namespace);
            running.push(async move { Stored { pods, policies: answer.await } });
        }
        let again = asked.values().filter_map(|asked| asked.again).min();
        tokio::select! {
            Some(stored) = running.next() => {
                for pod in &stored.pods {
                    let Some(asked) = asked.get_mut(pod) else { continue };
                    let delay = FIRST.saturating_mul(1 << asked.times.min(10)).min(SLOWEST);
                    *asked = Asked { times: asked.times + 1, again: Some(Instant::now() + delay) };
                }
                if inputs.send(Input::Stored(stored)).await.is_err() {
                    return;
                }
            }
            changed = open.changed() => if changed.is_err() { return },
            () = until(again), if running.len() < AT_ONCE => {}
        }
    }
}

/// A namespace with pods that it is time to ask for, all those of it.
fn next(pods: &Unconfirmed, asked: &mut BTreeMap<PodId, Asked>) -> Option<(String, Unconfirmed)> {
    let now = Instant::now();
    let is_due =
        |pod: &&PodId| asked.get(*pod).is_none_or(|asked| asked.again.is_some_and(|again| again <= now));
    let namespace = pods.iter().find(is_due)?.0.namespace.clone();
    let of_it: Unconfirmed =
        pods.iter().filter(|(key, _)| key.namespace == namespace).filter(is_due).cloned().collect();
    for pod in &of_it {
        asked.entry(pod.clone()).or_insert(Asked { times: 0, again: None }).again = None;
    }
    Some((namespace, of_it))
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use cellwall_policy::model::{Kind, ObjectKey};
    use futures::future::BoxFuture;

    use super::*;

    fn pod(namespace: &str, name: &str) -> PodId {
        (ObjectKey::namespaced(Kind::Pod, namespace, name), format!("uid-{name}"))
    }

    /// A server that answers after a second, and notes what it is asked.
    fn server(
        asked: &Arc<Mutex<Vec<String>>>,
    ) -> impl Fn(String) -> BoxFuture<'static, Result<Vec<StoredPolicy>, String>> + use<> {
        let asked = Arc::clone(asked);
        move |namespace| {
            asked.lock().expect("nobody panics").push(namespace);
            Box::pin(async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Err("away".to_owned())
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_pod_is_asked_for_at_once_and_an_open_one_ever_more_rarely() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (open, receiver) = watch::channel(Unconfirmed::new());
        let (inputs, mut received) = mpsc::channel(1);
        let task = tokio::spawn(keep(server(&asked), receiver, inputs));
        let mut stored = async || match received.recv().await {
            Some(Input::Stored(stored)) => {
                stored.pods.into_iter().map(|(key, _)| key.name).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        let began = Instant::now();
        open.send_replace([pod("shop", "a"), pod("shop", "b")].into());
        tokio::time::sleep(Duration::from_millis(500)).await;
        // While the first answer is awaited.
        open.send_replace([pod("shop", "a"), pod("shop", "b"), pod("shop", "c"), pod("bank", "d")].into());
        assert_eq!(stored().await, ["a", "b"]);
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        let mut rest = [stored().await, stored().await];
        rest.sort();
        assert_eq!(rest, [vec!["c"], vec!["d"]]);
        assert_eq!(began.elapsed(), Duration::from_millis(1500));
        assert_eq!(stored().await, ["a", "b"], "again");
        assert_eq!(asked.lock().expect("nobody panics")[..3], ["shop", "bank", "shop"]);

        // What is confirmed is not asked for, and the rest every six seconds in the end: five, and one for the answer.
        open.send_replace([pod("shop", "a")].into());
        let before = asked.lock().expect("nobody panics").len();
        let began = Instant::now();
        while began.elapsed() < Duration::from_mins(2) {
            stored().await;
        }
        let times = asked.lock().expect("nobody panics").len() - before;
        assert!((20..30).contains(&times), "{times}");
        open.send_replace(Unconfirmed::new());
        let before = asked.lock().expect("nobody panics").len();
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(asked.lock().expect("nobody panics").len() <= before + 1);
        drop(received);
        drop(open);
        task.await.expect("it ends");
    }
}
