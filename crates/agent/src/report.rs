//! What the agent says about itself: the snapshot that is answered over gRPC.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use cellwall_abi::planted;
use cellwall_api::v1alpha1::{Condition, Endpoint, KernelFeatures, Link, NodeStatus, Policy, Source, Table};
use cellwall_api::{Snapshot, counter, endpoint, object, policy, problem, timestamp, unplaced};
use cellwall_policy::compile::{Compiled, EndpointReport, PolicyReport};
use cellwall_policy::model::{Cluster, Kind, ObjectKey, Problem};

use crate::chain::Chained;
use crate::kernel::Kernel;
use crate::node::{Enforcing, Lists, Node};
use crate::sources::PATIENCE;

/// How many problems a status holds.
const PROBLEMS: usize = 1000;

impl<K: Kernel> Node<K> {
    /// The state of the node now.
    pub fn snapshot(&mut self, now: Instant) -> Snapshot {
        if std::mem::take(&mut self.lists_stale) {
            self.lists = self.make_lists();
        }
        let conditions = self.conditions(now);
        let problems = self.problems();
        let status = NodeStatus {
            node: self.cluster.node_name.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: self.live.0,
            revision_since: Some(timestamp(self.live_since)),
            ready: conditions.iter().all(|condition| condition.ok || !condition.required),
            conditions,
            sources: self.source_states(now),
            kernel: Some(self.kernel_features()),
            tables: self.tables(),
            links: self.links(),
            problem_count: u32::try_from(problems.len()).unwrap_or(u32::MAX),
            problems: problems.into_iter().take(PROBLEMS).map(problem).collect(),
            counters: self
                .counters
                .iter()
                .map(|(reason, dir, count)| counter(*reason, *dir, *count))
                .collect(),
            unplaced_pods: self.compiled.iter().flat_map(|c| &c.unplaced).map(unplaced).collect(),
            endpoint_count: u32::try_from(self.lists.endpoints.len()).unwrap_or(u32::MAX),
            policy_count: u32::try_from(self.cluster.policies.len()).unwrap_or(u32::MAX),
            audit: self.cluster.audit_all,
        };
        Snapshot {
            taken: now,
            status,
            endpoints: Arc::clone(&self.lists.endpoints),
            policies: Arc::clone(&self.lists.policies),
        }
    }

    fn make_lists(&self) -> Lists {
        let Some(compiled) = &self.compiled else { return Lists::default() };
        let mut reports: Vec<_> = compiled.endpoints.values().collect();
        reports.sort_by(|a, b| (&a.pod, a.ifindex).cmp(&(&b.pod, b.ifindex)));
        let attached = |ifindex: u32| self.hooks.contains_key(&ifindex);
        let live = |report: &EndpointReport| {
            let pod = self.live_pods.get(&report.ifindex);
            pod.is_some_and(|pod| pod.is(report)) || planted("a-failed-write-is-live")
        };
        let unconfirmed = |report: &EndpointReport| {
            let confirm = self.confirm.as_ref();
            confirm.map(|confirm| confirm.missing(report.pod.as_ref(), &self.cluster)).unwrap_or_default()
        };
        let endpoints = reports
            .into_iter()
            .map(|report| Endpoint {
                unconfirmed: unconfirmed(report),
                ..endpoint(report, attached(report.ifindex), live(report))
            })
            .collect();
        Lists { endpoints: Arc::new(endpoints), policies: Arc::new(self.policies(compiled)) }
    }

    /// Those that could never be understood are listed too, with nothing but their problems.
    fn policies(&self, compiled: &Compiled) -> Vec<Policy> {
        let never = PolicyReport::default();
        let bad = self
            .cluster
            .problems
            .keys()
            .filter(|key| matches!(key.kind, Kind::NetworkPolicy | Kind::ClusterNetworkPolicy));
        let keys: BTreeSet<&ObjectKey> = compiled.policies.keys().chain(bad).collect();
        let mut problems: BTreeMap<&ObjectKey, Vec<Problem>> = BTreeMap::new();
        for problem in self.problems() {
            problems.entry(&problem.object).or_default().push(problem.clone());
        }
        let answer = |key: &ObjectKey| {
            let problems = problems.get(key).map_or(&[][..], Vec::as_slice);
            policy(key, compiled.policies.get(key).unwrap_or(&never), problems)
        };
        keys.into_iter().map(answer).collect()
    }

    fn problems(&self) -> Vec<&Problem> {
        let compiled = self.compiled.iter().flat_map(|compiled| &compiled.problems);
        let mut problems: Vec<&Problem> = self.cluster.problems.values().flatten().chain(compiled).collect();
        problems.sort();
        problems
    }

    fn source_states(&self, now: Instant) -> Vec<Source> {
        let state = |source: &crate::sources::Source| Source {
            kind: source.kind.name().to_owned(),
            served: source.served,
            listed: source.listed,
            objects: count(&self.cluster, source.kind) as u64,
            last_event_age_ms: source
                .last_event
                .map(|at| u64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(u64::MAX)),
            enforced_resource_version: source.enforced.clone(),
            error: source.failing.as_ref().map(|(_, error)| error.clone()).unwrap_or_default(),
        };
        self.sources.iter().map(state).collect()
    }

    fn kernel_features(&self) -> KernelFeatures {
        let features = self.features();
        KernelFeatures {
            release: features.kernel,
            tcx: features.tcx,
            batch: features.batch,
            membarrier: features.membarrier,
            btf: features.btf,
            jit: features.jit,
        }
    }

    fn tables(&self) -> Vec<Table> {
        let mut tables: Vec<Table> = self
            .usage
            .iter()
            .map(|usage| Table { name: usage.table.to_owned(), used: usage.used, capacity: usage.capacity })
            .collect();
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        tables
    }

    fn links(&self) -> Vec<Link> {
        let pod = |ifindex: &u32| self.compiled.as_ref()?.endpoints.get(ifindex)?.pod.as_ref().map(object);
        let link = |(ifindex, link): (&u32, &cellwall_policy::model::Link)| {
            let hook = self.hooks.get(ifindex);
            Link {
                ifindex: *ifindex,
                name: link.name.clone(),
                pod: pod(ifindex),
                hook: hook.map(|hook| hook.kind.to_owned()).unwrap_or_default(),
                first: hook.is_some_and(|hook| hook.first),
                error: self.attach_errors.get(ifindex).cloned().unwrap_or_default(),
            }
        };
        self.cluster.links.iter().map(link).collect()
    }

    fn conditions(&self, now: Instant) -> Vec<Condition> {
        vec![
            self.sources_listed(),
            self.sources_current(now),
            condition(
                "LinksListed",
                true,
                "Listed",
                (!self.links_listed)
                    .then(|| ("NotListed", "the interfaces of this node are not listed yet".to_owned())),
            ),
            self.enforcing_condition(),
            self.attached_condition(),
            self.first_on_hook(),
            self.chained_condition(),
            condition(
                "InStep",
                false,
                "InStep",
                (!self.drift.is_empty()).then(|| {
                    (
                        "Drift",
                        format!("somebody else wrote to {}; it was written again", self.drift.join(", ")),
                    )
                }),
            ),
        ]
    }

    fn sources_listed(&self) -> Condition {
        let missing: Vec<String> = self
            .sources
            .iter()
            .filter(|source| !source.listed)
            .map(|source| match &source.failing {
                None => format!("{} is not listed yet", source.kind.name()),
                Some((_, error)) => format!("{} cannot be listed: {error}", source.kind.name()),
            })
            .collect();
        condition(
            "SourcesListed",
            true,
            "Listed",
            (!missing.is_empty()).then(|| ("NotListed", missing.join("; "))),
        )
    }

    fn sources_current(&self, now: Instant) -> Condition {
        let failing: Vec<String> = self
            .sources
            .iter()
            .filter_map(|source| Some((source.kind, source.failing.as_ref()?)))
            .filter(|(_, (since, _))| now.saturating_duration_since(*since) > PATIENCE)
            .map(|(kind, (_, error))| format!("{} cannot be watched: {error}", kind.name()))
            .collect();
        condition(
            "SourcesCurrent",
            true,
            "Current",
            (!failing.is_empty()).then(|| ("Failing", failing.join("; "))),
        )
    }

    fn enforcing_condition(&self) -> Condition {
        let wrong = match &self.enforcing {
            Enforcing::Applied => None,
            Enforcing::Waiting => {
                let why = self.holds().map(|why| format!(" until this is mended: {why}")).unwrap_or_default();
                Some(("Waiting", format!("what an earlier agent left is in force{why}")))
            }
            Enforcing::Refused(message) => Some(("Refused", message.clone())),
            Enforcing::Failed(message) => Some(("WriteFailed", message.clone())),
        };
        condition("Enforcing", true, "Applied", wrong)
    }

    fn attached_condition(&self) -> Condition {
        let missing: Vec<String> = self
            .lists
            .endpoints
            .iter()
            .filter(|endpoint| !endpoint.attached)
            .map(|endpoint| match self.attach_errors.get(&endpoint.ifindex) {
                Some(error) => format!("{}: {error}", endpoint.interface),
                None => endpoint.interface.clone(),
            })
            .chain(self.unattached_others())
            .collect();
        condition(
            "Attached",
            true,
            "Attached",
            (!missing.is_empty()).then(|| ("NotAttached", format!("no programs on {}", missing.join(", ")))),
        )
    }

    /// Interfaces that are no pod's and have no program.
    fn unattached_others(&self) -> impl Iterator<Item = String> {
        let is_pod = |at: &u32| self.lists.endpoints.iter().any(|endpoint| endpoint.ifindex == *at);
        let others = self.attach_errors.iter().filter(move |(at, _)| !is_pod(at));
        others.map(|(ifindex, error)| format!("interface {ifindex}: {error}"))
    }

    fn chained_condition(&self) -> Condition {
        let (right, wrong) = match &self.chained {
            Chained::NotAsked => ("NotAsked", None),
            Chained::In(_) => ("Chained", None),
            Chained::Out(message) => ("", Some(("NotChained", message.clone()))),
        };
        condition("Chained", false, right, wrong)
    }

    fn first_on_hook(&self) -> Condition {
        let name = |ifindex: &u32| {
            let link = self.cluster.links.get(ifindex);
            link.map_or_else(|| format!("interface {ifindex}"), |link| link.name.clone())
        };
        // Of an interface that has become a pod's, the pod's hook counts.
        let others = self.other_hooks.iter().filter(|(at, _)| !self.hooks.contains_key(at));
        let others = others.filter(|_| !planted("nobody-says-who-is-first-elsewhere"));
        let behind: Vec<String> = self
            .hooks
            .iter()
            .chain(others)
            .filter(|(_, hook)| !hook.first)
            .map(|(ifindex, _)| name(ifindex))
            .collect();
        condition(
            "FirstOnHook",
            false,
            "First",
            (!behind.is_empty()).then(|| {
                ("Behind", format!("another program sees the packets first on {}", behind.join(", ")))
            }),
        )
    }
}

/// `right` is the reason when nothing is wrong; `wrong` is another, with its message.
fn condition(name: &str, required: bool, right: &str, wrong: Option<(&str, String)>) -> Condition {
    let ok = wrong.is_none();
    let (reason, message) = wrong.unwrap_or((right, String::new()));
    Condition { r#type: name.to_owned(), ok, reason: reason.to_owned(), message, required }
}

fn count(cluster: &Cluster, kind: Kind) -> usize {
    match kind {
        Kind::Namespace => cluster.namespaces.len(),
        Kind::Node => cluster.nodes.len(),
        Kind::Pod => cluster.pods.len(),
        Kind::Service => cluster.services.len(),
        Kind::EndpointSlice => cluster.slices.len(),
        Kind::NetworkPolicy | Kind::ClusterNetworkPolicy => {
            cluster.policies.keys().filter(|key| key.kind == kind).count()
        }
    }
}
