//! The metrics: one list in which name, help and where the value comes from stand together. `METRICS.md` beside
//! this crate is written from it, and `tests/run` shows that each is set by some path.

use std::fmt;
use std::sync::Arc;

use cellwall_api::Snapshot;
use cellwall_api::v1alpha1::{Direction, Endpoint};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::stats::Stats;

/// Before every name.
pub const PREFIX: &str = "cellwall";

/// What the values are taken from.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What gRPC answers.
    pub snapshot: &'a Snapshot,
    /// What the loop counts.
    pub stats: &'a Stats,
}

/// One value with the values of its labels, in the order of [`Metric::labels`].
#[derive(Clone, Debug, PartialEq)]
pub struct Sample(pub Vec<String>, pub f64);

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name, without prefix and without `_total`.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
    /// Its values now.
    pub samples: fn(View<'_>) -> Vec<Sample>,
}

/// Counters only grow; `_total` is added to their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the agent, or the pinned tables, live.
    Counter,
    /// Goes both ways.
    Gauge,
}

use Kind::{Counter, Gauge};

/// All but the [`HISTOGRAMS`].
pub const METRICS: &[Metric] = &[
    Metric {
        name: "build_info",
        kind: Gauge,
        labels: &["version", "kernel"],
        help: "Always 1",
        samples: |v| {
            let status = &v.snapshot.status;
            let kernel = status.kernel.as_ref().map(|kernel| kernel.release.clone()).unwrap_or_default();
            vec![Sample(vec![status.agent_version.clone(), kernel], 1.0)]
        },
    },
    Metric {
        name: "ready",
        kind: Gauge,
        labels: &[],
        help: "1 when the node is ready",
        samples: |v| one(u64::from(v.snapshot.status.ready)),
    },
    Metric {
        name: "condition",
        kind: Gauge,
        labels: &["type"],
        help: "1 when the condition is ok",
        samples: |v| {
            each(&v.snapshot.status.conditions, |c| Sample(vec![c.r#type.clone()], number(c.ok.into())))
        },
    },
    Metric {
        name: "revision",
        kind: Gauge,
        labels: &[],
        help: "Revision that is live in the kernel",
        samples: |v| one(v.snapshot.status.revision),
    },
    Metric {
        name: "endpoints",
        kind: Gauge,
        labels: &["enforcement"],
        help: "Interfaces of pods, by what is done there",
        samples: |v| {
            ["enforce", "audit", "unidentified", "none"]
                .map(|word| {
                    let count = v.snapshot.endpoints.iter().filter(|e| enforcement(e) == word).count();
                    Sample(vec![word.to_owned()], number(count as u64))
                })
                .to_vec()
        },
    },
    Metric {
        name: "unplaced_pods",
        kind: Gauge,
        labels: &["reason"],
        help: "Pods of this node that are not enforced",
        samples: |v| {
            tally(
                v.snapshot.status.unplaced_pods.iter().map(|pod| {
                    pod.reason().as_str_name().trim_start_matches("UNPLACED_REASON_").to_lowercase()
                }),
            )
        },
    },
    Metric {
        name: "policies",
        kind: Gauge,
        labels: &[],
        help: "Policies that are known",
        samples: |v| one(v.snapshot.status.policy_count.into()),
    },
    Metric {
        name: "problems",
        kind: Gauge,
        labels: &[],
        help: "Things about objects that a person should mend",
        samples: |v| one(v.snapshot.status.problem_count.into()),
    },
    Metric {
        name: "packets",
        kind: Counter,
        labels: &["reason", "direction", "verdict"],
        help: "Packets by what became of them; drop counts those, too, that passed in audit",
        samples: |v| each(&v.snapshot.status.counters, |c| Sample(fate(c), number(c.packets))),
    },
    Metric {
        name: "bytes",
        kind: Counter,
        labels: &["reason", "direction", "verdict"],
        help: "Bytes of whole frames by what became of them; drop counts those, too, that passed in audit",
        samples: |v| each(&v.snapshot.status.counters, |c| Sample(fate(c), number(c.bytes))),
    },
    Metric {
        name: "table_rows",
        kind: Gauge,
        labels: &["table"],
        help: "Rows in use",
        samples: |v| each(&v.snapshot.status.tables, |t| Sample(vec![t.name.clone()], number(t.used))),
    },
    Metric {
        name: "table_capacity_rows",
        kind: Gauge,
        labels: &["table"],
        help: "Rows that there is room for",
        samples: |v| each(&v.snapshot.status.tables, |t| Sample(vec![t.name.clone()], number(t.capacity))),
    },
    Metric {
        name: "source_objects",
        kind: Gauge,
        labels: &["kind"],
        help: "Objects that are known",
        samples: |v| each(&v.snapshot.status.sources, |s| Sample(vec![s.kind.clone()], number(s.objects))),
    },
    Metric {
        name: "source_listed",
        kind: Gauge,
        labels: &["kind"],
        help: "1 when the list was complete once",
        samples: |v| {
            each(&v.snapshot.status.sources, |s| Sample(vec![s.kind.clone()], number(s.listed.into())))
        },
    },
    Metric {
        name: "source_last_event_age_seconds",
        kind: Gauge,
        labels: &["kind"],
        help: "How long ago something was last heard",
        samples: |v| {
            let since_s = v.snapshot.taken.elapsed().as_secs_f64();
            v.snapshot
                .status
                .sources
                .iter()
                .filter_map(|s| {
                    Some(Sample(vec![s.kind.clone()], number(s.last_event_age_ms?) / 1000.0 + since_s))
                })
                .collect()
        },
    },
    Metric {
        name: "source_errors",
        kind: Counter,
        labels: &["kind"],
        help: "Failed attempts to list or watch",
        samples: |v| {
            v.stats
                .source_errors
                .iter()
                .map(|(kind, n)| Sample(vec![kind.name().to_owned()], number(*n)))
                .collect()
        },
    },
    Metric {
        name: "changes",
        kind: Counter,
        labels: &[],
        help: "Changes of objects and interfaces that arrived",
        samples: |v| one(v.stats.changes),
    },
    Metric {
        name: "compiles",
        kind: Counter,
        labels: &[],
        help: "Compilations",
        samples: |v| one(v.stats.compiles),
    },
    Metric {
        name: "plans",
        kind: Counter,
        labels: &["result"],
        help: "Plans by how they ended",
        samples: |v| {
            let stats = v.stats;
            [
                ("applied", stats.plans_applied),
                ("empty", stats.plans_empty),
                ("refused", stats.plans_refused),
                ("failed", stats.plans_failed),
            ]
            .map(|(result, n)| Sample(vec![result.to_owned()], number(n)))
            .to_vec()
        },
    },
    Metric {
        name: "writes",
        kind: Counter,
        labels: &[],
        help: "Writes of all plans",
        samples: |v| one(v.stats.writes),
    },
    Metric {
        name: "attachments",
        kind: Counter,
        labels: &["result"],
        help: "Interfaces that programs were put on or taken off",
        samples: |v| {
            let stats = v.stats;
            [("attached", stats.attached), ("detached", stats.detached), ("failed", stats.attach_failed)]
                .map(|(result, n)| Sample(vec![result.to_owned()], number(n)))
                .to_vec()
        },
    },
    Metric {
        name: "read_backs",
        kind: Counter,
        labels: &[],
        help: "Times the tables were read back",
        samples: |v| one(v.stats.read_backs),
    },
    Metric {
        name: "drifts",
        kind: Counter,
        labels: &[],
        help: "Times the tables were not what was written",
        samples: |v| one(v.stats.drifts),
    },
    Metric {
        name: "events",
        kind: Counter,
        labels: &[],
        help: "Events that the programs reported",
        samples: |v| one(v.stats.events),
    },
    Metric {
        name: "swept_connections",
        kind: Counter,
        labels: &[],
        help: "Ended connections that were removed",
        samples: |v| one(v.stats.swept),
    },
    Metric {
        name: "read_errors",
        kind: Counter,
        labels: &["what"],
        help: "Reads of the kernel that failed",
        samples: |v| {
            v.stats.read_errors.iter().map(|(what, n)| Sample(vec![(*what).to_owned()], number(*n))).collect()
        },
    },
];

/// One histogram; its buckets are in [`Stats`].
#[derive(Clone, Copy, Debug)]
pub struct HistogramMetric {
    /// Name, without prefix.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// The histogram, which shares its buckets with all clones.
    pub of: fn(&Stats) -> &Histogram,
}

/// All histograms.
pub const HISTOGRAMS: &[HistogramMetric] = &[
    HistogramMetric {
        name: "apply_seconds",
        help: "From the first change of a batch until it is live in the kernel",
        of: |stats| &stats.apply_seconds,
    },
    HistogramMetric {
        name: "unenforced_seconds",
        help: "From when the interface of a new pod is seen until the pod is enforced there",
        of: |stats| &stats.unenforced_seconds,
    },
];

fn one(value: u64) -> Vec<Sample> {
    vec![Sample(Vec::new(), number(value))]
}

fn each<T>(list: &[T], sample: fn(&T) -> Sample) -> Vec<Sample> {
    list.iter().map(sample).collect()
}

fn tally(words: impl Iterator<Item = String>) -> Vec<Sample> {
    let mut counts = std::collections::BTreeMap::<String, u64>::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    counts.into_iter().map(|(word, count)| Sample(vec![word], number(count))).collect()
}

fn fate(counter: &cellwall_api::v1alpha1::Counter) -> Vec<String> {
    let direction = match counter.direction() {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
        Direction::Unspecified => "",
    };
    let verdict = if counter.drop { "drop" } else { "pass" };
    vec![counter.reason.clone(), direction.to_owned(), verdict.to_owned()]
}

fn enforcement(endpoint: &Endpoint) -> &'static str {
    match (endpoint.attached, endpoint.pod.is_some(), endpoint.audit) {
        (false, ..) => "none",
        (true, false, _) => "unidentified",
        (true, true, true) => "audit",
        (true, true, false) => "enforce",
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus keeps every number as a double")]
fn number(value: u64) -> f64 {
    value as f64
}

/// The list, over the newest snapshot.
#[derive(Debug)]
struct Newest {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    stats: watch::Receiver<Stats>,
}

impl Collector for Newest {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let stats = self.stats.borrow().clone();
        for metric in METRICS {
            let kind = match metric.kind {
                Counter => MetricType::Counter,
                Gauge => MetricType::Gauge,
            };
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            for Sample(values, value) in (metric.samples)(View { snapshot: &snapshot, stats: &stats }) {
                let labels: Vec<(&str, String)> = metric.labels.iter().copied().zip(values).collect();
                if labels.is_empty() {
                    encode(metric.kind, value, family)?;
                    break;
                }
                encode(metric.kind, value, family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn encode(kind: Kind, value: f64, encoder: MetricEncoder<'_>) -> fmt::Result {
    match kind {
        Counter => ConstCounter::new(value).encode(encoder),
        Gauge => ConstGauge::new(value).encode(encoder),
    }
}

/// Everything that is exported.
#[derive(Debug)]
pub struct Metrics(Registry);

impl Metrics {
    /// Over what the loop publishes.
    pub fn new(snapshots: watch::Receiver<Arc<Snapshot>>, stats: watch::Receiver<Stats>) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        for HistogramMetric { name, help, of } in HISTOGRAMS {
            registry.register(*name, *help, of(&stats.borrow()).clone());
        }
        registry.register_collector(Box::new(Newest { snapshots, stats }));
        Self(registry)
    }

    /// In the text format of OpenMetrics 1.0.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn the_page_is_the_list() {
        let mut page = "| metric | labels | what it says |\n|---|---|---|\n".to_owned();
        for Metric { name, kind, labels, help, samples: _ } in METRICS {
            let total = if *kind == Counter { "_total" } else { "" };
            let labels = labels.join(", ");
            writeln!(page, "| `{PREFIX}_{name}{total}` | {labels} | {help} |")
                .expect("a string takes everything");
        }
        for HistogramMetric { name, help, of: _ } in HISTOGRAMS {
            writeln!(page, "| `{PREFIX}_{name}` (histogram) |  | {help} |")
                .expect("a string takes everything");
        }
        expect_test::expect_file!["../METRICS.md"].assert_eq(&page);
    }
}
