//! What is exported, and that something sets it.

use cellwall_agent::metrics::{HISTOGRAMS, HistogramMetric, METRICS, Metrics, Sample, View};
use cellwall_agent::node::Node;
use cellwall_agent::run::Input;
use cellwall_api::{Publisher, Snapshot};
use cellwall_policy::model::{Change, Kind, Problem};
use tokio::sync::watch;

use crate::fake::FakeKernel;
use crate::objects::{ifindex, link, link_gone, listed, node, now, old_link, pod, policy, policy_key};
use crate::{LATER, settled};

/// A history in which everything happens once.
fn eventful() -> Node<FakeKernel> {
    let mut node = settled();
    node.take(Input::Failed(Kind::Node, "503".to_owned()), now());
    let problem = Problem { object: policy_key("deny"), field: String::new(), message: "unclear".to_owned() };
    node.take(Input::Change(Change::Bad(problem)), now());
    node.take(pod(9), now());
    node.kernel().writes_left = Some(0);
    node.take(pod(3), now());
    node.take(link(3), now());
    node.converge(now());
    node.kernel().writes_left = None;
    node.kernel().refuse.insert(ifindex(3));
    node.converge(now() + LATER);
    node.take(link_gone(2), now());
    node.kernel().blind = true;
    node.measure();
    node.kernel().blind = false;
    node.kernel().tables.policy.pop_first();
    node.read_back(now());
    node.converge(now() + LATER);
    node.measure();
    node.sweep();
    node.drain_events();
    node.converge(now() + LATER);
    node
}

#[test]
fn every_metric_is_set_by_some_path() {
    let mut node = eventful();
    let mut snapshot = node.snapshot(now());
    let ready = settled().snapshot(now());
    // Seconds have to pass before an age is one.
    for source in &mut snapshot.status.sources {
        source.last_event_age_ms = source.last_event_age_ms.map(|_| 1500);
    }
    for metric in METRICS {
        let mut samples = (metric.samples)(View { snapshot: &snapshot, stats: &node.stats });
        samples.extend((metric.samples)(View { snapshot: &ready, stats: &node.stats }));
        assert!(samples.iter().any(|Sample(_, value)| *value > 0.0), "{} is never set", metric.name);
        for Sample(labels, _) in &samples {
            assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
        }
    }

    let text = page(&node, snapshot);
    assert!(text.contains(
        "cellwall_packets_total{reason=\"default_deny\",direction=\"ingress\",verdict=\"drop\"} 3"
    ));
    assert!(text.contains("cellwall_source_errors_total{kind=\"Node\"} 1"), "{text}");
    assert!(text.contains("cellwall_apply_seconds_count 3"), "{text}");
    for HistogramMetric { name, .. } in HISTOGRAMS {
        assert!(!text.contains(&format!("cellwall_{name}_count 0\n")), "{name} is never set");
    }
    assert!(text.ends_with("# EOF\n"));
}

/// The page of metrics.
fn page(node: &Node<FakeKernel>, snapshot: Snapshot) -> String {
    let snapshots = Publisher::new(snapshot).subscribe();
    let stats = watch::Sender::new(node.stats.clone()).subscribe();
    Metrics::new(snapshots, stats).text().expect("strings take everything")
}

#[test]
fn the_time_before_a_new_pod_is_enforced_is_told() {
    let mut node = node(FakeKernel::default());
    listed(&mut node);
    for (input, enforced) in [
        (old_link(1), 0),
        (pod(1), 0),
        (link(2), 0),
        (pod(2), 1),
        (policy("deny", 80, 3), 1),
        (link_gone(2), 1),
    ] {
        node.take(input.clone(), now());
        node.converge(now());
        let snapshot = node.snapshot(now());
        let count = format!("cellwall_unenforced_seconds_count {enforced}\n");
        assert!(page(&node, snapshot).contains(&count), "{input:?}");
    }
    // A link that is gone before its pod is known was never enforced.
    for input in [link(2), link_gone(2), old_link(2)] {
        node.take(input, now());
    }
    node.converge(now());
    let snapshot = node.snapshot(now());
    assert!(page(&node, snapshot).contains("cellwall_unenforced_seconds_count 1\n"));
}
