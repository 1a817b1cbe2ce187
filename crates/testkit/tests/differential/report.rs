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
    /// Sets of which something was asked.
    sets: u64,
    /// The fewest flows of one.
    fewest: Option<u64>,
    /// Sets without a flow, for each of which another was drawn.
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
        let asked = other.asked();
        if asked == 0 {
            self.empty += 1;
        } else {
            self.sets += 1;
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

    /// How many clusters were judged.
    pub(crate) const fn sets(&self) -> u64 {
        self.sets
    }

    /// How many flows both were asked about.
    pub(crate) const fn asked(&self) -> u64 {
        self.allowed + self.denied
    }

    /// What one cluster has come to, given the first difference.
    pub(crate) fn outcome(&self, wrong: Option<String>) -> Outcome {
        match wrong {
            Some(message) => Outcome::Wrong(message),
            None if self.asked() == 0 => Outcome::Empty,
            None => Outcome::Judged,
        }
    }

    /// Fails when the run has shown too little to mean anything: a set with fewer flows than `enough` among it.
    pub(crate) fn check(&self, enough: u64) {
        let fewest = self.fewest.unwrap_or_default();
        assert!(fewest >= enough, "{fewest} flows in one set");
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
            "{} judged sets ({} more were drawn and have no flow), {} flows, {} in the smallest, {} % allowed, {} of {} statements exercised, 0 differences",
            self.sets,
            self.empty,
            self.asked(),
            self.fewest.unwrap_or_default(),
            self.share_allowed(),
            self.statements.len(),
            Self::askable().len(),
        )?;
        for (reason, count) in &self.skipped {
            write!(f, "\nskipped {count} flows: {reason}")?;
        }
        Ok(())
    }
}

pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// What one cluster has come to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Something was asked, and all agreed.
    Judged,
    /// Nothing could be asked of it. It does not count.
    Empty,
    /// A difference, in words.
    Wrong(String),
}

/// A long run says how far it is after so many sets.
const TOLD: u64 = 50_000;

/// Which sets are drawn, and when there were enough. An empty one is replaced by the next seed, so that as many are judged as
/// were asked for, and always the same ones.
struct Draw<'a> {
    kept: &'a [u64],
    first: u64,
    wanted: u64,
    /// Sets that somebody has promised to judge.
    promised: AtomicU64,
    drawn: AtomicU64,
    judged: AtomicU64,
    empty: AtomicU64,
    failure: Mutex<Option<String>>,
}

impl Draw<'_> {
    /// Judges one set after the other until there were enough.
    fn work(&self, test: &(impl Fn(u64) -> Outcome + Sync)) {
        while self.promised.fetch_add(1, Ordering::Relaxed) < self.wanted {
            while let Outcome::Empty = self.next(test) {}
        }
    }

    fn next(&self, test: &(impl Fn(u64) -> Outcome + Sync)) -> Outcome {
        let index = self.drawn.fetch_add(1, Ordering::Relaxed);
        let kept = usize::try_from(index).ok().and_then(|index| self.kept.get(index));
        let seed = kept.copied().unwrap_or_else(|| self.first + index - self.kept.len() as u64);
        let outcome = test(seed);
        match &outcome {
            Outcome::Judged => {
                let judged = self.judged.fetch_add(1, Ordering::Relaxed) + 1;
                if judged.is_multiple_of(TOLD) {
                    let empty = self.empty.load(Ordering::Relaxed);
                    eprintln!("{judged} of {} sets judged; {empty} more have no flow", self.wanted);
                }
            }
            // Only a generator that makes nothing else gets there.
            Outcome::Empty => {
                let empty = self.empty.fetch_add(1, Ordering::Relaxed);
                assert!(empty < self.wanted + 1000, "more sets without a flow than with one");
            }
            Outcome::Wrong(message) => {
                self.promised.fetch_add(self.wanted, Ordering::Relaxed);
                self.failure
                    .lock()
                    .expect("no panic while it is held")
                    .get_or_insert_with(|| message.clone());
            }
        }
        outcome
    }
}

/// Runs `test` until as many sets were judged as are kept and were asked for, the kept seeds first; panics with the first
/// message.
pub(crate) fn for_each_seed(sets: u64, kept: &[u64], test: impl Fn(u64) -> Outcome + Sync) {
    let sets = number("CELLWALL_SETS", sets);
    judge_sets(sets, kept, thread::available_parallelism().map_or(1, usize::from), &test);
}

/// The same by `threads` threads, and with this count whatever is asked for.
pub(crate) fn judge_sets(sets: u64, kept: &[u64], threads: usize, test: &(impl Fn(u64) -> Outcome + Sync)) {
    let draw = Draw {
        kept,
        first: number("CELLWALL_SEED", 0),
        wanted: kept.len() as u64 + sets,
        promised: AtomicU64::new(0),
        drawn: AtomicU64::new(0),
        judged: AtomicU64::new(0),
        empty: AtomicU64::new(0),
        failure: Mutex::new(None),
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| draw.work(test));
        }
    });
    if let Some(message) = draw.failure.into_inner().expect("no panic while it is held") {
        panic!("{message}");
    }
}

/// A statement that names the comparison with the judge is one that a long run of it must have exercised.
#[test]
fn what_is_said_to_be_compared_is_exercised() {
    let rows = include_str!("../../../../docs/statements.md").lines();
    let named = rows.filter(|row| row.contains("testkit: judged::tables_decide_as_the_judge_does"));
    let number = |row: &str| row.strip_prefix("| S")?.split(' ').next()?.parse().ok();
    let named: Vec<u8> = named.map(|row| number(row).expect("a row of a statement")).collect();
    let unseen = Statements::of(&named).minus(Report::askable());
    assert!(named.len() > 50 && unseen.is_empty(), "named and never exercised: {unseen}");
}

#[test]
fn an_empty_set_is_replaced_by_another() {
    let (judged, seen) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    judge_sets(100, &[], 4, &|seed| {
        seen.fetch_add(1, Ordering::Relaxed);
        if seed % 3 == 0 {
            return Outcome::Empty;
        }
        judged.lock().expect("no panic while it is held").push(seed - number("CELLWALL_SEED", 0));
        Outcome::Judged
    });
    assert_eq!(judged.into_inner().expect("no panic while it is held").len(), 100);
    assert!(seen.into_inner() >= 149, "those without a flow were drawn, and do not count");
}
