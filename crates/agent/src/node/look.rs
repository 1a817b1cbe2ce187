//! Looking at the kernel: what it counted, what it reported, and whether it still holds what was written.

use std::time::Instant;

use cellwall_abi::{Direction, Reason, planted};
use cellwall_policy::wanted::Observed;
use tracing::{debug, error, warn};

use super::Node;
use crate::kernel::Kernel;

impl<K: Kernel> Node<K> {
    /// Reads counters and usage: some hundred microseconds.
    pub fn measure(&mut self) {
        match self.kernel.counters() {
            Ok(counters) => self.counters = counters,
            Err(error) => self.cannot_read("counters", &error),
        }
        match self.kernel.usage() {
            Ok(usage) => self.usage = usage,
            Err(error) => self.cannot_read("usage", &error),
        }
    }

    /// Takes the events of the programs.
    pub fn drain_events(&mut self) {
        let rules = self.compiled.as_ref().map(|compiled| &compiled.wanted.rules);
        let mut count = 0;
        self.kernel.events(&mut |event| {
            count += 1;
            debug!(
                reason = Reason::from_number(event.reason).map_or("unknown", Reason::name),
                direction = Direction::ALL.get(usize::from(event.direction)).map_or("unknown", |d| d.name()),
                ifindex = event.ifindex,
                revision = event.revision,
                rule = ?rules.and_then(|rules| rules.get(&event.rule)),
                "packet dropped"
            );
        });
        self.stats.events += count;
    }

    /// Removes connections that have ended.
    pub fn sweep(&mut self) {
        match self.kernel.sweep() {
            Ok(swept) => self.stats.swept += swept,
            Err(error) => self.cannot_read("connections", &error),
        }
    }

    /// Compares tables and links with what was written, and has them written again where they differ.
    pub fn read_back(&mut self, now: Instant) {
        self.look_at_hooks();
        let Some(expected) = self.observed.take() else { return };
        self.stats.read_backs += 1;
        match self.kernel.observe() {
            Ok(found) => {
                self.drift = differing(&expected, &found);
                self.observed = Some(found);
            }
            Err(error) => {
                self.observed = Some(expected);
                self.cannot_read("tables", &error);
                return;
            }
        }
        if !self.drift.is_empty() {
            self.stats.drifts += 1;
            error!(tables = ?self.drift, "somebody else wrote to the tables; they are written again");
            self.retry.at = Some(now);
        }
        let lost = self
            .compiled
            .iter()
            .flat_map(|c| c.wanted.endpoints.keys())
            .any(|at| !self.hooks.contains_key(at))
            || self.others().any(|at| !self.other_hooks.contains_key(&at))
                && !planted("what-was-taken-off-elsewhere-stays-off");
        if lost && self.attach_retry.at.is_none() {
            warn!("the programs are not on every interface; they are put there again");
            self.attach_retry.at = Some(now);
        }
    }

    pub(super) fn look_at_hooks(&mut self) {
        match self.kernel.attached() {
            Ok(hooks) => {
                self.lists_stale |= hooks != self.hooks;
                self.hooks = hooks;
            }
            Err(error) => self.cannot_read("links", &error),
        }
        match self.kernel.attached_node() {
            Ok(hooks) => self.other_hooks = hooks,
            Err(error) => self.cannot_read("links", &error),
        }
    }

    fn cannot_read(&mut self, what: &'static str, error: &dyn std::error::Error) {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        warn!("{error}{cause}");
        *self.stats.read_errors.entry(what).or_default() += 1;
    }
}

/// Names of the tables that differ.
fn differing(expected: &Observed, found: &Observed) -> Vec<&'static str> {
    let Observed {
        live,
        endpoints,
        records,
        addresses,
        classes,
        prefixes,
        policy,
        ports,
        services,
        service_records,
    } = expected;
    let tables = [
        ("LIVE", *live == found.live),
        ("ENDPOINTS", *endpoints == found.endpoints),
        ("RECORDS", *records == found.records),
        ("ADDRESSES", *addresses == found.addresses),
        ("CLASSES", *classes == found.classes),
        ("PREFIXES", *prefixes == found.prefixes),
        ("POLICY", *policy == found.policy),
        ("PORTS", *ports == found.ports),
        ("SERVICES", *services == found.services),
        ("SERVICE_RECORDS", *service_records == found.service_records),
    ];
    tables.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}
