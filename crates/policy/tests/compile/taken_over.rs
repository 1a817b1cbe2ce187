//! Until when the connections of a pod are taken over: it is the plan that says so in the pod's record.

use cellwall_abi::ENDPOINT_IDENTIFIED;
use cellwall_policy::compile::Compiler;
use cellwall_policy::model::{Change, Cluster, Link, Touched};
use cellwall_policy::plan::{Capacities, plan};
use cellwall_policy::wanted::Observed;
use cellwall_testkit::memory::after;

use crate::world::{cluster, link, pod, policy, tell};

/// 60 s, in ticks.
const WHILE: u32 = 56;
/// The tick of the first plan.
const NOW: u32 = 1000;

/// The tables, and per interface of `first..=last` until when its pod is taken over; `None` where no pod is known there.
struct Tables {
    observed: Observed,
}

impl Tables {
    fn plan(&mut self, cluster: &Cluster, now: u32) -> Vec<Option<u32>> {
        let wanted = Compiler::new([1, 2]).compile(cluster, &Touched::default()).wanted;
        let ops = plan(&wanted, &self.observed, &Capacities::default(), now).expect("there is room");
        self.observed = after(&self.observed, &ops);
        let bank = self.observed.live.bank();
        let records = self.observed.endpoints.values().map(|slot| self.observed.records[&(*slot, bank)]);
        records.map(|r| (r.flags & ENDPOINT_IDENTIFIED != 0).then_some(r.midflow_until)).collect()
    }
}

fn preexisting(index: u32) -> Change {
    Change::Link(Link { preexisting: true, ..link(index, &pod("", index)) })
}

#[test]
fn a_pod_that_was_running_is_taken_over_once_and_a_new_one_never() {
    // The second pod's interface is new.
    let mut cluster = cluster(2);
    tell(&mut cluster, preexisting(0));
    tell(&mut cluster, preexisting(2));
    let mut tables = Tables { observed: Observed::default() };
    assert_eq!(tables.plan(&cluster, NOW), [Some(NOW + WHILE), Some(0), None]);

    tell(&mut cluster, policy("closed", None, Vec::new()));
    let before = tables.observed.live;
    assert_eq!(tables.plan(&cluster, NOW + 10), [Some(NOW + WHILE), Some(0), None], "the next plan keeps it");
    assert_ne!(tables.observed.live, before, "there was something to write");

    // Whom nobody knew at first is taken over when it is known, and nobody else with it.
    tell(&mut cluster, Change::Pod(pod("late", 2)));
    let late = NOW + 20;
    assert_eq!(tables.plan(&cluster, late), [Some(NOW + WHILE), Some(0), Some(late + WHILE)]);
    assert_eq!(tables.plan(&cluster, late + 100), [Some(NOW + WHILE), Some(0), Some(late + WHILE)]);
}

/// 0 says that nobody is taken over; the clock turns over.
#[test]
fn a_tick_that_turns_over_is_no_word_for_never() {
    let mut cluster = cluster(1);
    tell(&mut cluster, preexisting(0));
    let mut tables = Tables { observed: Observed::default() };
    assert_eq!(tables.plan(&cluster, 0_u32.wrapping_sub(WHILE)), [Some(1)]);
}
