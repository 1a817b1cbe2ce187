//! What the interfaces of pods say: each node's pods are compiled as its agent would, and the decision runs on the
//! tables.

use std::collections::{BTreeMap, BTreeSet};

use cellwall_policy::compile::{Compiled, Compiler, EndpointReport};
use cellwall_policy::flow::Flow;
use cellwall_policy::model::{Cluster, Link, ObjectKey, Touched};
use cellwall_policy::plan::{Capacities, plan};
use cellwall_policy::wanted::{Observed, Wanted};
use cellwall_verdict::process;

use crate::answer::{Outcome, Side, name};
use crate::frame::{Frame, pod_mac};
use crate::memory::{Memory, after};

/// Pods that are compiled together: as many as a kubelet takes, unless it is told otherwise.
const PODS_PER_NODE: usize = 110;
/// Only agents on one node need to agree about ids, and secrecy keeps away those who choose labels there.
const SECRET: [u64; 2] = [0; 2];

/// A flow at the interface of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) pod: ObjectKey,
    pub(crate) flow: Flow,
}

/// What the pods' interfaces say to the probes, in order, and what a person should know besides. `cluster` is left
/// as the node that was looked at last sees it.
pub(crate) fn judge(
    cluster: &mut Cluster,
    probes: &[Probe],
) -> (Vec<Result<Side, String>>, BTreeSet<String>) {
    let mut nodes: BTreeMap<String, BTreeMap<&ObjectKey, Vec<usize>>> = BTreeMap::new();
    for (i, probe) in probes.iter().enumerate() {
        let node = cluster.pods.get(&probe.pod).map(|pod| pod.node.clone()).unwrap_or_default();
        nodes.entry(node).or_default().entry(&probe.pod).or_default().push(i);
    }
    let mut sides = vec![Err(String::new()); probes.len()];
    let mut notes = BTreeSet::new();
    let mut compiler = Compiler::new(SECRET);
    for (node, pods) in nodes {
        let pods: Vec<_> = pods.into_iter().collect();
        for pods in pods.chunks(PODS_PER_NODE) {
            look_from(cluster, &node, pods.iter().map(|(pod, _)| *pod));
            let mut view = View::new(&mut compiler, cluster, &mut notes);
            for (ifindex, (_, asked)) in (1..).zip(pods) {
                for i in asked {
                    sides[*i] = view.side(cluster, &probes[*i], ifindex);
                }
            }
        }
    }
    (sides, notes)
}

/// Puts interfaces of these pods there, numbered from 1, as their node sees them.
fn look_from<'a>(cluster: &mut Cluster, node: &str, pods: impl Iterator<Item = &'a ObjectKey>) {
    node.clone_into(&mut cluster.node_name);
    let own = cluster.nodes.get(node).map(|node| node.addresses.iter().copied().collect());
    cluster.node_addresses = own.unwrap_or_default();
    let link = |(ifindex, key): (u32, &ObjectKey)| {
        let addresses = cluster.pods.get(key).map(|pod| pod.addresses.clone()).unwrap_or_default();
        let name = format!("veth{ifindex}");
        (ifindex, Link { ifindex, name, addresses, mac: pod_mac(), preexisting: false })
    };
    cluster.links = (1..).zip(pods).map(link).collect();
}

/// The tables of a node.
struct View {
    compiled: Compiled,
    memory: Memory,
}

impl View {
    fn new(compiler: &mut Compiler, cluster: &Cluster, notes: &mut BTreeSet<String>) -> Self {
        let compiled = compiler.compile(cluster, &Touched::default());
        notes.extend(compiled.problems.iter().map(ToString::to_string));
        let mut memory = Memory::new(tables(&compiled.wanted, notes));
        // Nobody translates here: an address is judged as what it is, and nothing waits for a backend.
        memory.mark = 0;
        Self { compiled, memory }
    }

    /// What the interface says about the first packet of a connection.
    fn side(&mut self, cluster: &Cluster, probe: &Probe, ifindex: u32) -> Result<Side, String> {
        let report = &self.compiled.endpoints[&ifindex];
        if let Some(other) = report.pod.as_ref().filter(|pod| **pod != probe.pod) {
            return Err(format!("{other} has the address of {}, and is newer", probe.pod));
        }
        self.memory.forget();
        let direction = probe.flow.direction;
        let verdict = process(&Frame::opening(&probe.flow, ifindex), &self.memory, direction);
        let rule = self.compiled.wanted.rules.get(&verdict.rule);
        let side = Side::new(verdict, isolating(cluster, report, &probe.flow), rule, report.audit);
        if report.pod.is_none() && side.verdict == Outcome::Deny {
            let reason =
                format!("closed: another pod has the address of {}, and neither is newer", probe.pod);
            return Ok(Side { reason, ..side });
        }
        Ok(side)
    }
}

/// The tables that the plan for an empty node leaves.
fn tables(wanted: &Wanted, notes: &mut BTreeSet<String>) -> Observed {
    let empty = Observed::default();
    let ops = plan(wanted, &empty, &Capacities::default(), 0).unwrap_or_else(|refusal| {
        notes.insert(format!("a node with all these pods would enforce nothing new: {refusal}"));
        let most = u32::MAX;
        let room = Capacities {
            endpoints: most,
            addresses: most,
            prefixes: most,
            policy: most,
            ports: most,
            services: most,
        };
        plan(wanted, &empty, &room, 0).expect("there is room for everything")
    });
    after(&empty, &ops)
}

/// The policies that isolate a pod in the direction of a flow.
fn isolating(cluster: &Cluster, report: &EndpointReport, flow: &Flow) -> Vec<String> {
    let direction = flow.direction as usize;
    let isolates =
        |key: &&ObjectKey| cluster.policies.get(*key).is_some_and(|policy| policy.isolates[direction]);
    report.policies[direction].iter().filter(isolates).map(name).collect()
}
