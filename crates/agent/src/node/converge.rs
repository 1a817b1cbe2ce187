//! From what is known to what is live.

use std::collections::BTreeMap;
use std::error::Error;
use std::mem;
use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use cellwall_abi::planted;
use cellwall_policy::model::Touched;
use cellwall_policy::plan::{Op, Refusal, closing, plan, taken_over};
use cellwall_policy::wanted::Observed;
use tracing::{debug, error, info, warn};

use super::{Enforcing, LivePod, Node, Retry};
use crate::kernel::Kernel;

impl<K: Kernel> Node<K> {
    /// From what is known to what is live, and everything behind it: [`Self::advance`] and [`Self::finish`].
    pub fn converge(&mut self, now: Instant) {
        self.advance(now);
        self.finish(now);
    }

    /// Compiles what was touched, writes what differs up to the flip that makes it live, and puts the programs where
    /// records wait for them. Does nothing until everything is listed that may be in force, and little when nothing is
    /// new. Whoever waits for a revision can be told then; [`Self::finish`] has to follow.
    pub fn advance(&mut self, now: Instant) {
        self.finish(now);
        if !self.sources.all_listed() || !self.links_listed || self.holds().is_some() {
            return;
        }
        if mem::take(&mut self.touched.problems) {
            self.lists_stale = true;
        }
        let is_due = self.retry.is_due(now);
        let news = self.compiled.is_none() || !self.touched.is_empty();
        if news || is_due && !self.left_out.is_empty() {
            let touched = mem::take(&mut self.touched);
            self.compiled = Some(self.compiler.compile(&self.cluster, &touched));
            self.stats.compiles += 1;
            self.lists_stale = true;
        }
        let due = news || is_due;
        if due {
            self.write(now);
        }
        if due || self.attach_retry.is_due(now) {
            self.attach(now);
        }
        if self.enforcing == Enforcing::Applied && self.touched.is_empty()
            || planted("what-is-known-is-enforced")
        {
            self.sources.all_enforced();
        }
        if self.enforcing == Enforcing::Applied
            && self.confirm.as_mut().is_some_and(|confirm| confirm.settle(&self.cluster))
        {
            self.lists_stale = true;
        }
    }

    fn write(&mut self, now: Instant) {
        let written = self.stats.writes;
        let enforcing = self.try_write(now);
        match &enforcing {
            Enforcing::Refused(message) | Enforcing::Failed(message) => {
                self.retry.failed(now);
                if self.enforcing != enforcing {
                    error!("{message}");
                }
            }
            Enforcing::Applied | Enforcing::Waiting => {
                // What only waits for room that others have just left can have it now.
                let makes_room = !self.left_out.is_empty() && self.stats.writes != written;
                let at = (makes_room && !planted("what-waits-for-room-waits-for-ever")).then_some(now);
                self.retry = Retry { failures: 0, at };
                if !matches!(self.enforcing, Enforcing::Applied) {
                    info!(revision = self.live.0, "what is known is live");
                }
            }
        }
        self.enforcing = enforcing;
    }

    fn try_write(&mut self, now: Instant) -> Enforcing {
        // Whatever goes wrong from here, the tables are read again before the next plan.
        let observed = match self.observed.take().map_or_else(|| self.kernel.observe(), Ok) {
            Ok(observed) => observed,
            Err(error) => return self.failed(&error),
        };
        match self.fit(&observed) {
            Ok(ops) => self.run(observed, ops).unwrap_or_else(|| self.note_applied(now)),
            Err(refusal) => {
                self.stats.plans_refused += 1;
                let refused = Enforcing::Refused(refusal.to_string());
                let Some(compiled) = &self.compiled else { return refused };
                match closing(&compiled.wanted, &observed, &self.capacities, self.kernel.now_tick()) {
                    Ok(ops) if !ops.is_empty() => self.run(observed, ops).unwrap_or(refused),
                    Ok(_) | Err(_) => {
                        self.observed = Some(observed);
                        refused
                    }
                }
            }
        }
    }

    /// The plan for all that there is room for. Whoever asks for too much is left out, and named among the problems.
    fn fit(&mut self, observed: &Observed) -> Result<Vec<Op>, Refusal> {
        let before = mem::take(&mut self.left_out);
        loop {
            let compiled = self.compiled.get_or_insert_default();
            let refusal = match plan(&compiled.wanted, observed, &self.capacities, self.kernel.now_tick()) {
                Ok(ops) => {
                    for (object, why) in self.left_out.iter().filter(|(key, _)| !before.contains_key(key)) {
                        warn!("{object} is left out: {why}");
                    }
                    return Ok(ops);
                }
                Err(refusal) => refusal,
            };
            let known = self.left_out.len();
            for (object, rows) in &refusal.leave_out {
                self.left_out.entry(object.clone()).or_insert_with(|| refusal.why(*rows));
            }
            if self.left_out.len() == known || planted("what-does-not-fit-is-refused-whole") {
                return Err(refusal);
            }
            let touched = Touched::default();
            self.compiled = Some(self.compiler.compile_without(&self.cluster, &touched, &self.left_out));
            self.stats.compiles += 1;
        }
    }

    /// Runs a plan up to its flip; the result is what went wrong.
    fn run(&mut self, mut observed: Observed, mut ops: Vec<Op>) -> Option<Enforcing> {
        let compiled = self.compiled.as_ref()?;
        let pods_of_it = compiled.endpoints.iter().map(|(at, report)| (*at, LivePod::new(report))).collect();
        let pods = taken_over(&compiled.wanted, &observed);
        self.take_over(&pods);
        let flip = ops.iter().position(|op| matches!(op, Op::Flip { .. }));
        let live = usize::from(!planted("live-before-the-flip"));
        let rest = flip.map(|at| ops.split_off(at + live)).unwrap_or_default();
        if let Err(failed) = self.perform(&mut observed, &ops) {
            return Some(failed);
        }
        *(if ops.is_empty() { &mut self.stats.plans_empty } else { &mut self.stats.plans_applied }) += 1;
        self.live_pods = pods_of_it;
        self.lists_stale = true;
        self.went_live(observed.live);
        self.observed = Some(observed);
        self.rest = rest;
        None
    }

    /// Frees what nobody reads any more since the last flip, which takes a grace period or two. False when nothing was
    /// left to do.
    pub fn finish(&mut self, now: Instant) -> bool {
        let rest = mem::take(&mut self.rest);
        let Some(mut observed) = self.observed.take_if(|_| !rest.is_empty()) else { return false };
        match self.perform(&mut observed, &rest) {
            Ok(()) => self.observed = Some(observed),
            Err(failed) => {
                self.retry.failed(now);
                if let Enforcing::Failed(message) = &failed {
                    error!("{message}");
                }
                self.enforcing = failed;
            }
        }
        true
    }

    fn perform(&mut self, observed: &mut Observed, ops: &[Op]) -> Result<(), Enforcing> {
        if let Err(error) = self.kernel.run_all(ops) {
            self.look_at_live();
            return Err(self.failed(&error));
        }
        for op in ops {
            op.apply_to(observed);
        }
        self.stats.writes += ops.len() as u64;
        Ok(())
    }

    /// All that is known is live.
    fn note_applied(&mut self, now: Instant) -> Enforcing {
        if let Some(since) = self.waiting_since.take() {
            let took = now.elapsed() + now.saturating_duration_since(since);
            self.stats.apply_seconds.observe(took.as_secs_f64());
            debug!(revision = self.live.0, ?took, "applied");
        }
        Enforcing::Applied
    }

    /// Connections of pods that are about to be enforced for the first time. Without them nothing else is missing:
    /// what policy allows is opened again, and TCP is taken up where it is.
    fn take_over(&mut self, pods: &BTreeMap<IpAddr, u32>) {
        if pods.is_empty() {
            return;
        }
        match self.kernel.import(pods) {
            Ok(connections) => info!(connections, "running connections were taken over from nf_conntrack"),
            Err(error) if !mem::replace(&mut self.import_failed, true) => {
                warn!("running connections are not taken over: {}", with_causes(&error));
            }
            Err(_) => {}
        }
    }

    fn failed(&mut self, error: &dyn Error) -> Enforcing {
        self.stats.plans_failed += 1;
        Enforcing::Failed(with_causes(error))
    }

    fn went_live(&mut self, live: cellwall_abi::Live) {
        if mem::replace(&mut self.live, live) != live {
            self.live_since = SystemTime::now();
        }
    }

    /// After a failed write: it may have been one behind the flip.
    fn look_at_live(&mut self) {
        if let Ok(observed) = self.kernel.observe() {
            self.went_live(observed.live);
            self.observed = Some(observed);
        }
    }
}

pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    message
}
