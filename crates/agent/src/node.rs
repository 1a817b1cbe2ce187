//! The state of the agent, owned by the loop: what is known, what it compiles to, what the kernel holds.

mod attach;
pub mod confirm;
mod converge;
mod look;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use cellwall_abi::{Addr6, Be32, ENDPOINT_AUDIT, ENDPOINT_IDENTIFIED, Live, planted};
use cellwall_api::v1alpha1::{Endpoint, Policy};
use cellwall_datapath::TableError;
use cellwall_policy::compile::{Compiled, Compiler, EndpointReport, LeftOut};
use cellwall_policy::model::{Change, Cluster, Kind, Left, ObjectKey, Touched};
use cellwall_policy::plan::{Capacities, Op};
use cellwall_policy::wanted::Observed;
use tracing::warn;

use crate::chain::Chained;
use crate::kernel::{Count, Hook, Kernel, Usage};
use crate::run::Input;
use crate::sources::Sources;
use crate::stats::Stats;

use self::confirm::{Confirm, Unconfirmed};

/// Whether what is known is what is live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enforcing {
    /// Something is not listed yet, or may not be: what an earlier agent left stays in force.
    Waiting,
    /// It is.
    Applied,
    /// It does not fit; the state before stays.
    Refused(String),
    /// The kernel stopped a write; the live state is the one before or the new one, never one between.
    Failed(String),
}

/// When to try again: at once, then ever later.
#[derive(Clone, Copy, Debug, Default)]
struct Retry {
    failures: u32,
    at: Option<Instant>,
}

impl Retry {
    fn failed(&mut self, now: Instant) {
        let delay_ms = 100 << self.failures.min(8);
        self.failures += 1;
        self.at = Some(now + Duration::from_millis(delay_ms));
    }

    fn is_due(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| at <= now)
    }
}

/// A pod that the live revision was compiled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LivePod {
    pod: Option<ObjectKey>,
    uid: String,
    addresses: Vec<IpAddr>,
}

impl LivePod {
    fn new(report: &EndpointReport) -> Self {
        Self { pod: report.pod.clone(), uid: report.uid.clone(), addresses: report.addresses.clone() }
    }

    /// True when it is the pod of `report`.
    pub(crate) fn is(&self, report: &EndpointReport) -> bool {
        self.pod == report.pod && self.uid == report.uid && self.addresses == report.addresses
    }
}

/// The answers that are made of a compilation, kept until the next one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lists {
    pub(crate) endpoints: Arc<Vec<Endpoint>>,
    pub(crate) policies: Arc<Vec<Policy>>,
}

/// The state of the agent.
#[derive(Debug)]
pub struct Node<K> {
    kernel: K,
    capacities: Capacities,
    pub(crate) cluster: Cluster,
    pub(crate) sources: Sources,
    pub(crate) links_listed: bool,
    pub(crate) chained: Chained,
    /// `None` where nobody can be asked.
    pub(crate) confirm: Option<Confirm>,
    touched: Touched,
    compiler: Compiler,
    pub(crate) compiled: Option<Compiled>,
    /// The pods of the live revision, by interface index; empty until something was written.
    pub(crate) live_pods: BTreeMap<u32, LivePod>,
    /// What the tables hold, kept in step with every write; `None` when that is not known and must be read.
    observed: Option<Observed>,
    /// The last plan behind its flip.
    rest: Vec<Op>,
    pub(crate) live: Live,
    pub(crate) live_since: SystemTime,
    pub(crate) enforcing: Enforcing,
    retry: Retry,
    /// Objects of `compiled` for which there is no room.
    left_out: LeftOut,
    /// When the first change arrived that is not live yet.
    waiting_since: Option<Instant>,
    /// When the interface of a pod that is not enforced yet was first seen.
    unenforced_since: BTreeMap<u32, Instant>,
    pub(crate) hooks: BTreeMap<u32, Hook>,
    /// All interfaces of this node but the loopback, those of pods among them.
    interfaces: BTreeSet<u32>,
    /// Where the program of the interfaces is that are no pod's.
    pub(crate) other_hooks: BTreeMap<u32, Hook>,
    pub(crate) attach_errors: BTreeMap<u32, String>,
    attach_retry: Retry,
    /// It was said that running connections cannot be taken over.
    import_failed: bool,
    /// Tables that were not what was written when they were last read back.
    pub(crate) drift: Vec<&'static str>,
    pub(crate) counters: Vec<Count>,
    pub(crate) usage: Vec<Usage>,
    pub(crate) lists: Lists,
    pub(crate) lists_stale: bool,
    /// Numbers about the loop.
    pub stats: Stats,
}

impl<K: Kernel> Node<K> {
    /// A node that knows nothing yet, before the tables as they are.
    pub fn new(mut kernel: K, mut cluster: Cluster, capacities: Capacities) -> Result<Self, TableError> {
        let observed = kernel.observe()?;
        if !planted("a-restart-frees-who-is-gone") {
            cluster.left = left(&observed);
        }
        let mut node = Self {
            compiler: Compiler::new(kernel.secret()),
            kernel,
            capacities,
            cluster,
            sources: Sources::default(),
            links_listed: false,
            chained: Chained::default(),
            confirm: None,
            touched: Touched::default(),
            compiled: None,
            live_pods: BTreeMap::new(),
            live: observed.live,
            live_since: SystemTime::now(),
            observed: Some(observed),
            rest: Vec::new(),
            enforcing: Enforcing::Waiting,
            retry: Retry::default(),
            left_out: LeftOut::new(),
            waiting_since: None,
            unenforced_since: BTreeMap::new(),
            hooks: BTreeMap::new(),
            interfaces: BTreeSet::new(),
            other_hooks: BTreeMap::new(),
            attach_errors: BTreeMap::new(),
            attach_retry: Retry::default(),
            import_failed: false,
            drift: Vec::new(),
            counters: Vec::new(),
            usage: Vec::new(),
            lists: Lists::default(),
            lists_stale: true,
            stats: Stats::default(),
        };
        node.look_at_hooks();
        node.measure();
        Ok(node)
    }

    /// Takes one input.
    pub fn take(&mut self, input: Input, now: Instant) {
        match input {
            Input::Change(change) => {
                match &change {
                    Change::Listed(kind, _) => self.sources.listed(*kind, now),
                    change => {
                        if let Some(kind) = kind(change) {
                            self.sources.heard(kind, now);
                        }
                    }
                }
                self.apply(change, now);
            }
            Input::Current(kind) => self.sources.heard(kind, now),
            Input::Version(kind, version) => self.sources.known(kind, version),
            Input::Partial(kind, why) => {
                if let Some(why) = &why {
                    warn!(kind = kind.name(), "{why}");
                }
                self.sources.partial(kind, why);
            }
            Input::NotServed(kind) => {
                self.apply(Change::Listed(kind, Vec::new()), now);
                self.sources.not_served(kind);
            }
            Input::Failed(kind, error) => {
                *self.stats.source_errors.entry(kind).or_default() += 1;
                // It is tried again and again: once in the log is enough.
                if self.sources.failed(kind, error.clone(), now) {
                    warn!(kind = kind.name(), "{error}");
                }
            }
            Input::Interfaces(interfaces) => {
                self.other_hooks.retain(|at, _| interfaces.contains(at));
                self.interfaces = interfaces;
                self.attach_retry.at = Some(now);
            }
            Input::LinksListed => {
                self.links_listed = true;
                // What was there and is not any more says nothing about a later interface.
                let Cluster { left, links, .. } = &mut self.cluster;
                left.retain(|ifindex, _| links.contains_key(ifindex));
            }
            Input::Chained(chained) => self.chained = chained,
            Input::Stored(stored) => {
                self.confirm.iter_mut().for_each(|confirm| confirm.answered(&stored));
                self.lists_stale = true;
            }
            // The loop's matter.
            Input::Ended(_) => {}
        }
    }

    fn apply(&mut self, change: Change, now: Instant) {
        self.stats.changes += 1;
        match &change {
            // Before anything else: the next interface may get the same index.
            Change::LinkGone(ifindex) => {
                self.detach(*ifindex);
                self.unenforced_since.remove(ifindex);
            }
            Change::Link(link) if !link.preexisting && !self.cluster.links.contains_key(&link.ifindex) => {
                self.unenforced_since.insert(link.ifindex, now);
            }
            _ => {}
        }
        if let Some(confirm) = &mut self.confirm {
            confirm.heard(&change, &self.cluster);
        }
        self.cluster.apply(change, &mut self.touched);
        if !self.touched.is_empty() {
            self.waiting_since.get_or_insert(now);
        }
    }

    /// Why what an earlier agent left stays in force although everything is listed: what is not known may be what it
    /// enforces. Once this agent has applied something it knows the last version of all, and where nothing is in force
    /// the rest is better than nothing.
    pub(crate) fn holds(&self) -> Option<&str> {
        let nothing_is_in_force = self.live.0 == 0 && !self.kernel.has_others();
        let has_started = self.enforcing != Enforcing::Waiting || nothing_is_in_force;
        let why = || self.sources.iter().find_map(|source| source.partial.as_deref());
        if has_started || planted("partial-lists-are-believed") { None } else { why() }
    }

    /// From now on a new pod counts as enforced only when the API server was asked for its policies: see [`confirm`].
    #[must_use]
    pub fn with_confirmation(mut self) -> Self {
        self.confirm = Some(Confirm::default());
        self
    }

    /// The pods that the API server is to be asked for.
    pub fn unconfirmed(&self) -> Unconfirmed {
        self.confirm.as_ref().map(Confirm::open).unwrap_or_default()
    }

    /// The kernel, for tests.
    pub fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// What the kernel offers.
    pub(crate) fn features(&self) -> cellwall_datapath::Features {
        self.kernel.features()
    }

    /// When the loop should come around although nothing arrived.
    pub fn next_try(&self) -> Option<Instant> {
        [self.retry.at, self.attach_retry.at].into_iter().flatten().min()
    }
}

/// What an earlier agent knew of interfaces. What is audited is not cut later either.
fn left(observed: &Observed) -> BTreeMap<u32, Left> {
    let live = |slot: &u32| observed.records.get(&(*slot, observed.live.bank()));
    let endpoints = observed.endpoints.iter().filter_map(|(ifindex, slot)| Some((*ifindex, live(slot)?)));
    endpoints
        .filter(|(_, record)| record.flags & ENDPOINT_IDENTIFIED != 0)
        .map(|(ifindex, record)| {
            let four = (record.address4 != Be32::ZERO).then(|| IpAddr::from(record.address4));
            let six = (record.address6 != Addr6::ZERO).then(|| IpAddr::from(record.address6));
            let is_enforced = record.flags & ENDPOINT_AUDIT == 0;
            let isolated = record.image.map(|image| is_enforced && image != 0);
            let addresses = four.into_iter().chain(six).collect();
            (ifindex, Left { addresses, mac: record.mac, isolated })
        })
        .collect()
}

/// The kind that a change tells of; none for interfaces.
fn kind(change: &Change) -> Option<Kind> {
    match change {
        Change::Namespace(_) => Some(Kind::Namespace),
        Change::Node(_) => Some(Kind::Node),
        Change::Pod(_) => Some(Kind::Pod),
        Change::Service(_) => Some(Kind::Service),
        Change::EndpointSlice(_) => Some(Kind::EndpointSlice),
        Change::Policy(policy, _) => Some(policy.key.kind),
        Change::Bad(problem) => Some(problem.object.kind),
        Change::Gone(key) => Some(key.kind),
        Change::Listed(kind, _) => Some(*kind),
        Change::Link(_) | Change::LinkGone(_) | Change::Announced(_) | Change::NodeAddresses(_) => None,
    }
}
