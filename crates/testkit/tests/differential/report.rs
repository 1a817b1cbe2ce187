//! What a run has shown, and running it over seeds on all CPUs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use cellwall_oracle::{Ruling, Statements};
use cellwall_policy::flow::Decision;

/// Counts of what was asked.
#[derive(Debug, Default)]
pub(crate) struct Report {
    sets: u64,
    /// Of the sets with a flow at all, the fewest flows of one.
    fewest: Option<u64>,
    /// Sets without a flow.
    empty: u64,
    allowed: u64,
    denied: u64,
    statements: Statements,
    skipped: BTreeMap<&'static str, u64>,
}

impl Report {
    pub(crate) fn judged(&mut self, ruling: &Ruling<'_>) {
        match ruling.decision {
            Decision::Allow => self.allowed += 1,
            Decision::Deny => self.denied += 1,
        }
        self.statements = self.statements.union(ruling.statements);
    }

    pub(crate) fn skip(&mut self, reason: &'static str) {
        *self.skipped.entry(reason).or_default() += 1;
    }

    /// Adds what one cluster has shown.
    pub(crate) fn add(&mut self, other: Self) {
        self.sets += 1;
        let asked = other.allowed + other.denied;
        if asked == 0 {
            self.empty += 1;
        } else {
            self.fewest = Some(self.fewest.map_or(asked, |fewest| fewest.min(asked)));
        }
        self.allowed += other.allowed;
        self.denied += other.denied;
        self.statements = self.statements.union(other.statements);
        for (reason, count) in other.skipped {
            *self.skipped.entry(reason).or_default() += count;
        }
    }

    /// Every statement but S48 and S55, which are about Services, and S65: it is about flows with no pod at this end, and
    /// those pass no interface of a pod.
    fn askable() -> Statements {
        Statements::JUDGED.minus(Statements::of(&[48, 55, 65]))
    }

    fn share_allowed(&self) -> u64 {
        100 * self.allowed / (self.allowed + self.denied).max(1)
    }

    /// How many clusters there were.
    pub(crate) const fn sets(&self) -> u64 {
        self.sets
    }

    /// How many flows both were asked about.
    pub(crate) const fn asked(&self) -> u64 {
        self.allowed + self.denied
    }

    /// Fails when the run has shown too little to mean anything: a set with fewer flows than `enough` among it.
    pub(crate) fn check(&self, enough: u64) {
        let fewest = self.fewest.unwrap_or_default();
        assert!(fewest >= enough, "{fewest} flows in one set");
        assert!(self.empty < self.sets / 10, "{} of {} sets without a flow", self.empty, self.sets);
        assert!((20..=80).contains(&self.share_allowed()), "{} % allowed", self.share_allowed());
        if self.sets >= 10_000 {
            let missing = Self::askable().minus(self.statements);
            assert!(missing.is_empty(), "no flow has exercised {missing}");
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sets, {} flows, {} in the smallest, {} % allowed, {} of {} statements exercised, 0 differences",
            self.sets,
            self.allowed + self.denied,
            self.fewest.unwrap_or_default(),
            self.share_allowed(),
            self.statements.len(),
            Self::askable().len(),
        )?;
        if self.empty > 0 {
            write!(f, "\nskipped {} sets: no pod of the node has an address of its own", self.empty)?;
        }
        for (reason, count) in &self.skipped {
            write!(f, "\nskipped {count} flows: {reason}")?;
        }
        Ok(())
    }
}

pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// A long run says how far it is after so many sets.
const TOLD: u64 = 50_000;

/// Runs `test` for the kept seeds and for as many as were asked for; panics with the first message.
pub(crate) fn for_each_seed(sets: u64, kept: &[u64], test: impl Fn(u64) -> Option<String> + Sync) {
    let (first, sets) = (number("CELLWALL_SEED", 0), number("CELLWALL_SETS", sets));
    let next = AtomicU64::new(0);
    let kept_count = kept.len() as u64;
    let failure = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= kept_count + sets {
                        return;
                    }
                    if index > 0 && index.is_multiple_of(TOLD) {
                        eprintln!("{index} of {sets} sets");
                    }
                    let seed = match usize::try_from(index).ok().and_then(|index| kept.get(index)) {
                        Some(seed) => *seed,
                        None => first + index - kept_count,
                    };
                    if let Some(message) = test(seed) {
                        next.fetch_add(kept_count + sets, Ordering::Relaxed);
                        failure.lock().expect("no panic while it is held").get_or_insert(message);
                    }
                }
            });
        }
    });
    if let Some(message) = failure.into_inner().expect("no panic while it is held") {
        panic!("{message}");
    }
}
