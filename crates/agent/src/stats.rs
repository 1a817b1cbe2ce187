//! What the loop counts about itself.

use std::collections::BTreeMap;
use std::time::Instant;

use cellwall_policy::model::Kind;
use prometheus_client::metrics::histogram::Histogram;

/// A grace period is about 8 ms; a second is what people accept.
const SECONDS: [f64; 10] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0];

/// Numbers since the agent started; written by the loop, read by the metrics.
#[derive(Clone, Debug)]
pub struct Stats {
    /// When the loop last came around: what liveness looks at.
    pub alive: Instant,
    /// Changes of objects and interfaces that arrived.
    pub changes: u64,
    /// Failed attempts to list or watch.
    pub source_errors: BTreeMap<Kind, u64>,
    /// Compilations.
    pub compiles: u64,
    /// Plans that were performed to their end.
    pub plans_applied: u64,
    /// Plans with nothing to write.
    pub plans_empty: u64,
    /// Plans that did not fit.
    pub plans_refused: u64,
    /// Plans that the kernel stopped.
    pub plans_failed: u64,
    /// Writes of all plans.
    pub writes: u64,
    /// Interfaces that the programs were put on.
    pub attached: u64,
    /// Interfaces that the programs were taken off.
    pub detached: u64,
    /// Attempts that failed.
    pub attach_failed: u64,
    /// Times the tables were read back.
    pub read_backs: u64,
    /// Times they were not what was written.
    pub drifts: u64,
    /// Events of the programs.
    pub events: u64,
    /// Ended connections that were removed.
    pub swept: u64,
    /// Reads of the kernel that failed, by what was read.
    pub read_errors: BTreeMap<&'static str, u64>,
    /// From the first change of a batch until it is live, in seconds.
    pub apply_seconds: Histogram,
    /// From when the interface of a new pod is seen until the pod is enforced there, in seconds.
    pub unenforced_seconds: Histogram,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            alive: Instant::now(),
            changes: 0,
            source_errors: BTreeMap::new(),
            compiles: 0,
            plans_applied: 0,
            plans_empty: 0,
            plans_refused: 0,
            plans_failed: 0,
            writes: 0,
            attached: 0,
            detached: 0,
            attach_failed: 0,
            read_backs: 0,
            drifts: 0,
            events: 0,
            swept: 0,
            read_errors: BTreeMap::new(),
            apply_seconds: Histogram::new(SECONDS),
            unenforced_seconds: Histogram::new(SECONDS),
        }
    }
}
