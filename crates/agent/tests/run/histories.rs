//! Random histories of a node, with failures.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cellwall_agent::node::Node;
use cellwall_agent::run::Input;
use cellwall_policy::model::Change;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::LATER;
use crate::fake::FakeKernel;
use crate::objects::{ifindex, link, link_gone, listed, node, now, pod, pod_gone, policy, policy_key};

/// What is there at the end of a history.
#[derive(Default)]
struct There {
    pods: BTreeSet<u8>,
    links: BTreeSet<u8>,
    policies: BTreeMap<&'static str, u8>,
}

/// What happens to a node in one step of a seeded history.
fn step(node: &mut Node<FakeKernel>, there: &mut There, random: &mut StdRng) {
    let n = random.random_range(1..6);
    let name = ["a", "b"][usize::from(n % 2)];
    let input = match random.random_range(0..10) {
        0 | 1 => {
            there.pods.insert(n);
            pod(n)
        }
        2 => {
            there.pods.remove(&n);
            pod_gone(n)
        }
        3 | 4 => {
            there.links.insert(n);
            link(n)
        }
        5 => {
            there.links.remove(&n);
            link_gone(n)
        }
        6 => {
            there.policies.insert(name, n);
            numbered(name, n)
        }
        7 => {
            there.policies.remove(name);
            Input::Change(Change::Gone(policy_key(name)))
        }
        8 => {
            node.kernel().writes_left = Some(random.random_range(0..30));
            return;
        }
        _ => {
            node.kernel().refuse = BTreeSet::from([ifindex(n)]);
            return;
        }
    };
    node.take(input, now());
}

fn numbered(name: &str, n: u8) -> Input {
    policy(name, u16::from(n), n * 2)
}

/// A node that was told all of it at once.
fn afresh(there: &There) -> Node<FakeKernel> {
    let mut node = node(FakeKernel::default());
    listed(&mut node);
    let pods = there.pods.iter().map(|n| pod(*n));
    let links = there.links.iter().map(|n| link(*n));
    let policies = there.policies.iter().map(|(name, n)| numbered(name, *n));
    for input in pods.chain(links).chain(policies) {
        node.take(input, now());
    }
    node.converge(now());
    node
}

#[test]
fn after_any_history_a_quiet_node_is_as_if_it_had_known_all_from_the_start() {
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut node = node(FakeKernel::default());
        let mut there = There::default();
        listed(&mut node);
        let mut time = now();
        for _ in 0..random.random_range(1..60) {
            step(&mut node, &mut there, &mut random);
            if random.random_bool(0.5) {
                time += Duration::from_millis(random.random_range(0..2000));
                node.converge(time);
                if random.random_bool(0.2) {
                    node.read_back(time);
                }
                assert!(node.snapshot(time).status.revision <= node.kernel().tables.live.0, "seed {seed}");
            }
        }
        // Who left an interface behind is remembered there, which is a matter of history (S83).
        let left: Vec<u8> = there.links.difference(&there.pods).copied().collect();
        for n in left {
            there.links.remove(&n);
            node.take(link_gone(n), time);
        }
        node.kernel().writes_left = None;
        node.kernel().refuse.clear();
        for _ in 0..3 {
            time += LATER;
            node.converge(time);
            node.read_back(time);
        }
        let mut other = afresh(&there);
        let (snapshot, expected) = (node.snapshot(time), other.snapshot(now()));
        assert!(snapshot.status.ready, "seed {seed}: {:?}", snapshot.status.conditions);
        assert_eq!(snapshot.endpoints, expected.endpoints, "seed {seed}");
        assert_eq!(snapshot.policies, expected.policies, "seed {seed}");
        assert_eq!(snapshot.status.unplaced_pods, expected.status.unplaced_pods, "seed {seed}");
        assert_eq!(node.kernel().hooks, other.kernel().hooks, "seed {seed}");
        let (tables, expected) = (&node.kernel().tables, &other.kernel().tables);
        assert_eq!(tables.policy, expected.policy, "seed {seed}");
        assert!(tables.endpoints.keys().eq(expected.endpoints.keys()), "seed {seed}");
        assert!(tables.addresses.keys().eq(expected.addresses.keys()), "seed {seed}");

        let writes = node.kernel().writes.get();
        node.read_back(time);
        node.converge(time);
        assert_eq!(node.kernel().writes.get(), writes, "seed {seed}: a quiet node writes nothing");
    }
}
