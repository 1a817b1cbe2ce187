//! Where the programs belong, and how they get there.

use std::time::Instant;

use cellwall_abi::planted;
use cellwall_datapath::AttachError;
use tracing::{debug, warn};

use super::converge::with_causes;
use super::{Node, Retry};
use crate::kernel::Kernel;

impl<K: Kernel> Node<K> {
    /// Interfaces that are no pod's, neither wanted nor still enforced as one.
    pub(super) fn others(&self) -> impl Iterator<Item = u32> {
        let wanted = self.compiled.as_ref().map(|compiled| &compiled.wanted.endpoints);
        let placed = self.observed.as_ref().map(|observed| &observed.endpoints);
        self.interfaces
            .iter()
            .filter(move |at| {
                wanted.is_some_and(|w| !w.contains_key(at)) && placed.is_some_and(|p| !p.contains_key(at))
            })
            .filter(|_| !planted("what-leaves-the-node-is-not-looked-at"))
            .copied()
    }

    /// Programs come after the records that they look for, and leave interfaces that have none and shall have none.
    /// Those of the interfaces that are no pod's come first: what pods send is then judged where it leaves.
    pub(super) fn attach(&mut self, now: Instant) {
        let (Some(compiled), Some(observed)) = (&self.compiled, &self.observed) else { return };
        let (wanted, placed) = (&compiled.wanted.endpoints, &observed.endpoints);
        self.attach_errors.retain(|at, _| wanted.contains_key(at) || self.interfaces.contains(at));
        let missing: Vec<u32> = wanted
            .keys()
            .filter(|at| placed.contains_key(at) && !self.hooks.contains_key(at))
            .copied()
            .collect();
        let leave: Vec<u32> = self
            .hooks
            .keys()
            .filter(|at| !wanted.contains_key(at) && !placed.contains_key(at))
            .copied()
            .collect();
        let others: Vec<u32> = self.others().filter(|at| !self.other_hooks.contains_key(at)).collect();
        for ifindex in leave {
            self.detach(ifindex);
        }
        if planted("pods-come-before-what-leaves-the-node") {
            self.attach_all(&missing, K::attach);
        }
        self.attach_all(&others, K::attach_node);
        self.attach_all(&missing, K::attach);
        if !missing.is_empty() || !others.is_empty() {
            self.look_at_hooks();
            self.lists_stale = true;
        }
        self.leave_pods();
        self.note_enforced(now);
        if self.attach_errors.is_empty() && self.remove_others() {
            self.attach_retry = Retry::default();
        } else {
            self.attach_retry.failed(now);
        }
    }

    /// What programs of another ABI version enforce goes when ours enforce all that shall be, and not before. False when it
    /// is to be tried again.
    fn remove_others(&mut self) -> bool {
        let wanted = self.compiled.iter().flat_map(|compiled| compiled.wanted.endpoints.keys());
        let is_enforced = wanted.into_iter().all(|at| self.hooks.contains_key(at))
            && self.others().all(|at| self.other_hooks.contains_key(&at));
        if !is_enforced && !planted("another-version-goes-early") {
            return true;
        }
        let removed = self.kernel.remove_others();
        if let Err(error) = &removed {
            warn!("what another version had stays: {}", with_causes(error));
        }
        removed.is_ok()
    }

    fn attach_all(&mut self, interfaces: &[u32], attach: fn(&mut K, u32) -> Result<(), AttachError>) {
        for ifindex in interfaces {
            let result = attach(&mut self.kernel, *ifindex);
            self.note(*ifindex, result);
        }
    }

    fn note(&mut self, ifindex: u32, result: Result<(), AttachError>) {
        match result {
            Ok(()) => {
                self.stats.attached += 1;
                self.attach_errors.remove(&ifindex);
            }
            // The watch on interfaces will say so, too.
            Err(error) if error.is_gone() => debug!(ifindex, "gone before it was enforced"),
            Err(error) => {
                self.stats.attach_failed += 1;
                let message = format!("{error}: {}", error.source);
                warn!("{message}");
                self.attach_errors.insert(ifindex, message);
            }
        }
    }

    /// Closes the time in which packets of new pods passed.
    fn note_enforced(&mut self, now: Instant) {
        let Some(compiled) = &self.compiled else { return };
        let identified = |at: &u32| compiled.endpoints.get(at).is_some_and(|report| report.pod.is_some());
        for (_, since) in
            self.unenforced_since.extract_if(.., |at, _| identified(at) && self.hooks.contains_key(at))
        {
            let took = now.elapsed() + now.saturating_duration_since(since);
            self.stats.unenforced_seconds.observe(took.as_secs_f64());
        }
    }

    /// Takes the program of the other interfaces off those that have become a pod's.
    fn leave_pods(&mut self) {
        let pods: Vec<u32> =
            self.other_hooks.keys().filter(|at| self.hooks.contains_key(at)).copied().collect();
        for ifindex in pods {
            match self.kernel.detach_node(ifindex) {
                Ok(()) => drop(self.other_hooks.remove(&ifindex)),
                Err(error) => warn!("{error}: {}", error.source),
            }
        }
    }

    pub(super) fn detach(&mut self, ifindex: u32) {
        match self.kernel.detach(ifindex) {
            Ok(()) => self.stats.detached += u64::from(self.hooks.remove(&ifindex).is_some()),
            Err(error) => {
                self.stats.attach_failed += 1;
                warn!("{error}: {}", error.source);
            }
        }
        self.attach_errors.remove(&ifindex);
        self.lists_stale = true;
    }
}
