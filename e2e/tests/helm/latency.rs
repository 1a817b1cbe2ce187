//! How long after a change of a policy its first packet is judged by it, beside a bare watch of the same process, which the
//! agent cannot be faster than. `CELLWALL_CHANGES` and `CELLWALL_PODS` make it longer. Says figures, and asserts none: that
//! each change takes hold is what can fail.
//!
//! The bare watch is built as tests are, unoptimised, and the agent as it is shipped; of what is parsed here that is far less
//! than a millisecond.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cellwall_e2e::helm::NAMESPACE;
use cellwall_kube::k8s_openapi::api::networking::v1::NetworkPolicy;
use cellwall_kube::kube::api::{Api, DeleteParams, PostParams};
use cellwall_kube::kube::runtime::watcher::{Config, Event, watcher};
use cellwall_kube::source::client;
use futures::{StreamExt, future};
use serde_json::json;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::lives::number;
use crate::roll_out;
use crate::site::{PATIENCE, Site};

const PORT: u16 = 7002;
/// Between two datagrams: what is measured is no finer.
const PACE: Duration = Duration::from_micros(100);
/// After so long without a datagram the receiver has none in its queue.
const QUIET: Duration = Duration::from_millis(20);
/// So many that do not arrive are denied and not late.
const LOST: u64 = 100;

#[test]
fn a_change_takes_hold_and_how_long_it_takes_is_said() {
    let Some(site) = Site::new() else { return };
    roll_out(&site.cluster, &["install", NAMESPACE, &cellwall_e2e::helm::chart(), "--create-namespace"]);
    let pods = number("CELLWALL_PODS", 4).max(2);
    for n in 2..pods {
        site.makes_a_pod(&format!("beside-{n}"));
    }
    site.kubectl("wait --for=condition=Ready pod --all --timeout=600s");
    site.isolate();
    site.until_enforced();
    site.kubectl("delete networkpolicy echo");
    let probe = Probe::between(&site);
    let kubeconfig = site.cluster.folder().join("kubeconfig");
    let changes = number("CELLWALL_CHANGES", 20).max(1);
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let samples = site.cluster.on_node(|| runtime.block_on(measure(&kubeconfig, &probe, changes)));
    let samples = samples.expect("the node's network");
    println!("{changes} changes with {pods} pods, in milliseconds:");
    say("from the write to the bare watch", samples.iter().map(|sample| sample.watched));
    say("from the write to the first packet", samples.iter().map(|sample| sample.enforced));
    say("the difference", samples.iter().map(|sample| sample.enforced - sample.watched));
}

/// Milliseconds after the write began.
struct Sample {
    watched: f64,
    enforced: f64,
}

fn say(what: &str, values: impl Iterator<Item = f64>) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |percent: usize| values[(values.len() * percent / 100).min(values.len() - 1)];
    println!("  {what}: p50 {:.1}, p90 {:.1}, p99 {:.1}, most {:.1}", at(50), at(90), at(99), at(100));
}

/// Closes the server and opens it again, so many times in all.
async fn measure(kubeconfig: &Path, probe: &Probe, changes: u64) -> Vec<Sample> {
    let client = client(Some(kubeconfig), None).await.expect("the kubeconfig is usable");
    let policies: Api<NetworkPolicy> = Api::namespaced(client, "default");
    let (sender, mut seen) = mpsc::unbounded_channel();
    let watched = policies.clone();
    let watch = tokio::spawn(async move {
        let mut events = pin!(watcher(watched, Config::default()));
        while let Some(event) = events.next().await {
            let seen = Instant::now();
            if let Ok(event @ (Event::InitDone | Event::Apply(_) | Event::Delete(_))) = event {
                sender.send((seen, !matches!(event, Event::InitDone))).expect("somebody listens");
            }
        }
    });
    while next(&mut seen).await.1 {}
    let closed: NetworkPolicy = serde_json::from_value(json!({"metadata": {"name": "closed"},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]}}))
    .expect("a policy");
    let mut samples = Vec::new();
    for change in 0..changes {
        let begun = Instant::now();
        let closes = change % 2 == 0;
        let write = async {
            if closes {
                policies.create(&PostParams::default(), &closed).await.expect("it is written");
            } else {
                probe.awaits();
                policies.delete("closed", &DeleteParams::default()).await.expect("it is deleted");
            }
        };
        let told = async {
            loop {
                // A list again says nothing new.
                if let (moment, true) = next(&mut seen).await {
                    return moment;
                }
            }
        };
        let ((), watched) = future::join(write, told).await;
        let enforced = if closes { probe.closed().await } else { probe.opened().await };
        let since = |moment: Instant| moment.saturating_duration_since(begun).as_secs_f64() * 1e3;
        samples.push(Sample { watched: since(watched), enforced: since(enforced) });
    }
    watch.abort();
    samples
}

/// When the watch told something, and whether it is a change.
async fn next(seen: &mut mpsc::UnboundedReceiver<(Instant, bool)>) -> (Instant, bool) {
    timeout(PATIENCE, seen.recv()).await.expect("the watch tells it").expect("the watch goes on")
}

/// Numbered datagrams from the client to the server, all the time. They end with this value.
struct Probe {
    sent: Arc<AtomicU64>,
    arrived: Arc<Mutex<Arrived>>,
    stop: Arc<AtomicBool>,
}

/// What the server has got.
struct Arrived {
    /// The last datagram, and when it was read.
    last: (u64, Instant),
    /// There was none for [`QUIET`].
    quiet: bool,
    /// From which number on one that arrives says that it is open again, and when one did.
    awaited: Option<u64>,
    opened: Option<Instant>,
}

impl Probe {
    fn between(site: &Site) -> Self {
        let [server, client] = ["server", "client"].map(|pod| site.addresses(pod)[0]);
        let bind = |address: IpAddr, port| {
            let socket = site.cluster.in_pod(address, || UdpSocket::bind((address, port)));
            socket.expect("the pod's network").expect("a free port")
        };
        let (receiver, sender) = (bind(server, PORT), bind(client, 0));
        receiver.set_read_timeout(Some(QUIET)).expect("a socket");
        let arrived = Arrived { last: (0, Instant::now()), quiet: false, awaited: None, opened: None };
        let probe =
            Self { sent: Arc::default(), arrived: Arc::new(Mutex::new(arrived)), stop: Arc::default() };
        let (arrived, stop) = (Arc::clone(&probe.arrived), Arc::clone(&probe.stop));
        thread::spawn(move || {
            while !stop.load(Relaxed) {
                let mut number = [0; 8];
                let read = receiver.recv(&mut number);
                arrived.lock().expect("no panic").note(read.is_ok().then_some(u64::from_be_bytes(number)));
            }
        });
        let (sent, stop) = (Arc::clone(&probe.sent), Arc::clone(&probe.stop));
        thread::spawn(move || {
            while !stop.load(Relaxed) {
                let number = sent.fetch_add(1, Relaxed) + 1;
                // A queue that is full loses one.
                let _ = sender.send_to(&number.to_be_bytes(), SocketAddr::new(server, PORT));
                thread::sleep(PACE);
            }
        });
        probe
    }

    /// From now on the next datagram that is sent and arrives counts.
    fn awaits(&self) {
        let mut arrived = self.arrived.lock().expect("no panic");
        (arrived.awaited, arrived.opened) = (Some(self.sent.load(Relaxed) + 1), None);
    }

    /// When the last datagram arrived, after which many were sent and none did.
    async fn closed(&self) -> Instant {
        let is_closed = |arrived: &Arrived| {
            let lost = self.sent.load(Relaxed).saturating_sub(arrived.last.0);
            (arrived.quiet && lost > LOST).then_some(arrived.last.1)
        };
        self.until("datagrams still arrive", is_closed).await
    }

    /// When the first one arrived that was sent after [`Self::awaits`].
    async fn opened(&self) -> Instant {
        self.until("no datagram arrives", |arrived| arrived.opened).await
    }

    async fn until(&self, otherwise: &str, wanted: impl Fn(&Arrived) -> Option<Instant>) -> Instant {
        let begun = Instant::now();
        loop {
            let found = wanted(&self.arrived.lock().expect("no panic"));
            if let Some(moment) = found {
                return moment;
            }
            assert!(begun.elapsed() < PATIENCE, "{otherwise}");
            sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Arrived {
    /// A datagram, or none for a while.
    fn note(&mut self, number: Option<u64>) {
        self.quiet = number.is_none();
        let Some(number) = number else { return };
        self.last = (number, Instant::now());
        if self.awaited.is_some_and(|from| number >= from) {
            (self.awaited, self.opened) = (None, Some(self.last.1));
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}
