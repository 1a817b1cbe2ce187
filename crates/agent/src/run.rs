//! The loop: drain the inputs, converge, publish. One owner; it runs on the thread that calls it, which may block
//! in the kernel for some milliseconds, so everything that must answer meanwhile runs on other threads.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::bail;
use cellwall_api::Publisher;
use cellwall_policy::model::{Change, Kind};
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};

use crate::chain::Chained;
use crate::kernel::Kernel;
use crate::node::Node;
use crate::node::confirm::{Stored, Unconfirmed};
use crate::stats::Stats;

/// How many inputs are taken before the next pass: a list of a large cluster is many passes, and each is short.
const BATCH: usize = 4096;
/// The ring of events holds some thousands.
const EVENTS: Duration = Duration::from_millis(100);
/// How old counters may be.
const MEASURE: Duration = Duration::from_secs(1);
/// How long ended connections take room.
const SWEEP: Duration = Duration::from_secs(10);
/// How long drift goes unseen.
const READ_BACK: Duration = Duration::from_secs(10);

/// What sources and the watch on interfaces send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Something is known.
    Change(Change),
    /// Nothing of the resource is known to be missing at this moment.
    Current(Kind),
    /// Up to which resourceVersion everything of a kind of policies is known.
    Version(Kind, String),
    /// The cluster does not know the resource.
    NotServed(Kind),
    /// Why what is listed of the resource may not be all; `None` when it is.
    Partial(Kind, Option<String>),
    /// A resource could not be listed or watched; it will be tried again.
    Failed(Kind, String),
    /// All interfaces of this node but the loopback.
    Interfaces(BTreeSet<u32>),
    /// The interfaces were listed once.
    LinksListed,
    /// Whether the CNI plugin is in the configuration that the runtime reads.
    Chained(Chained),
    /// What the API server has of the namespaces of new pods.
    Stored(Stored),
    /// A watch gave up: nothing of it will arrive any more.
    Ended(String),
}

/// Where the loop puts what others read.
#[derive(Debug)]
pub struct Outputs {
    /// For gRPC and HTTP.
    pub publisher: Publisher,
    /// For the metrics.
    pub stats: watch::Sender<Stats>,
    /// For the one who asks the API server.
    pub unconfirmed: watch::Sender<Unconfirmed>,
}

/// Runs until `stop` is ready. An error means that a watch has ended: an agent that is blind must not look alive.
pub async fn run<K: Kernel>(
    node: &mut Node<K>,
    inputs: &mut mpsc::Receiver<Input>,
    outputs: &Outputs,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut stop = std::pin::pin!(stop);
    let (mut events, mut measure, mut sweep, mut read_back) =
        (every(EVENTS), every(MEASURE), every(SWEEP), every(READ_BACK));
    loop {
        let mut changed = true;
        tokio::select! {
            () = &mut stop => return Ok(()),
            input = inputs.recv() => match input {
                Some(input) => drain(node, input, inputs)?,
                None => bail!("nobody watches objects and interfaces any more"),
            },
            _ = events.tick() => {
                node.drain_events();
                changed = false;
            }
            _ = measure.tick() => node.measure(),
            _ = sweep.tick() => node.sweep(),
            _ = read_back.tick() => node.read_back(now()),
            () = until(node.next_try()) => {}
        }
        if changed {
            node.advance(now());
            outputs.tell(node);
            // Behind the answer, since whoever waits for it, a pod that starts, need not wait for this.
            if node.finish(now()) {
                outputs.tell(node);
            }
        }
    }
}

impl Outputs {
    fn tell<K: Kernel>(&self, node: &mut Node<K>) {
        node.stats.alive = now();
        self.publisher.publish(node.snapshot(now()));
        self.stats.send_replace(node.stats.clone());
        self.unconfirmed.send_if_modified(|told| {
            let now = node.unconfirmed();
            let is_new = *told != now;
            *told = now;
            is_new
        });
    }
}

fn drain<K: Kernel>(
    node: &mut Node<K>,
    first: Input,
    inputs: &mut mpsc::Receiver<Input>,
) -> anyhow::Result<()> {
    let now = now();
    let rest = std::iter::from_fn(|| inputs.try_recv().ok());
    for input in std::iter::once(first).chain(rest).take(BATCH) {
        if let Input::Ended(why) = input {
            bail!(why);
        }
        node.take(input, now);
    }
    Ok(())
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The runtime's clock, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
