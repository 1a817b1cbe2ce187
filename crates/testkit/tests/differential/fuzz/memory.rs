//! The decision on tables in memory, guided by the states it reaches.

use cellwall_abi::STAMP_DEFERRED;
use cellwall_policy::compile::Compiler;
use cellwall_policy::flow::Direction;
use cellwall_policy::model::Touched;
use cellwall_policy::wanted::Observed;
use cellwall_testkit::frame::{Frame, UPLINK};
use cellwall_testkit::fuzz::{
    Class, Coverage, Judge, Place, Sentence, keep_found, keep_reached, read_corpus, read_states,
};
use cellwall_testkit::memory::{MARK, Memory};
use cellwall_testkit::objects::Rng;
use cellwall_verdict::{Verdict, arrive, process};

use super::scene::{at_hook, back, hex, judge, next, usual_place, wrong};
use crate::cluster::{SECRET, planned};
use crate::report::number;

const IFINDEX: u32 = 77;
/// Connections are forgotten after so many frames: answers to them are then answers to nothing.
const MEMORY: u64 = 4096;

/// The pod in memory, and its judge.
pub(crate) struct Hook {
    memory: Memory,
    ifindex: u32,
    pub(crate) judge: Judge,
    pub(crate) place: Place,
    pub(crate) coverage: Coverage,
}

impl Hook {
    fn new() -> Self {
        let touched = Touched { policies: true, topology: true, ..Touched::default() };
        let wanted = Compiler::new(SECRET).compile(&at_hook(IFINDEX), &touched).wanted;
        Self::of(planned(&wanted, &Observed::default()), IFINDEX)
    }

    /// The pod behind an interface, on these tables.
    pub(crate) fn of(tables: Observed, ifindex: u32) -> Self {
        let place = usual_place();
        let (memory, judge) = (Memory::new(tables), judge(&place));
        let mut hook = Self { memory, ifindex, judge, place, coverage: Coverage::default() };
        hook.at(hook.memory.tick);
        hook
    }

    /// The same on other tables, with nothing that was before.
    pub(crate) fn renew(&mut self, tables: Observed) {
        self.memory = Memory::new(tables);
        self.judge.forget();
    }

    /// The next frame comes in this tick.
    pub(crate) fn at(&mut self, tick: u32) {
        self.memory.tick = tick;
        self.judge.at(tick);
    }

    pub(crate) fn forget(&mut self) {
        self.memory.forget();
        self.judge.forget();
    }

    pub(crate) fn verdict(&self, direction: Direction, bytes: &[u8]) -> Verdict {
        let mut frame = Frame::new(bytes, self.ifindex);
        frame.ingress_ifindex = if direction == Direction::Egress { self.ifindex } else { UPLINK };
        process(&frame, &self.memory, direction)
    }

    /// The verdict behind a translation on what the pod's own interface received, or nobody's, with a stamp that names
    /// nobody.
    pub(crate) fn verdict_behind(&self, bytes: &[u8], is_received_from_pod: bool) -> Verdict {
        self.arrived(bytes, is_received_from_pod, 0)
    }

    fn arrived(&self, bytes: &[u8], is_received_from_pod: bool, tc_index: u32) -> Verdict {
        let mut frame = Frame::new(bytes, UPLINK + 1);
        frame.ingress_ifindex = if is_received_from_pod { self.ifindex } else { UPLINK };
        frame.stamp.set((MARK, tc_index));
        arrive(&frame, &self.memory).verdict
    }

    /// Asks both, and says what is wrong.
    fn ask(&mut self, direction: Direction, bytes: &[u8]) -> Option<String> {
        let verdict = self.verdict(direction, bytes);
        self.coverage.saw(direction, verdict.reason, bytes);
        let sentence = self.judge.sentence(bytes, direction);
        let what = wrong(sentence, verdict.passes())?;
        keep_found(direction, bytes, &self.place, &self.place);
        Some(format!("{direction:?} {}: {:?}, {what}", hex(bytes), verdict.reason))
    }

    /// The same of a frame at the hook behind a translation, with a stamp.
    fn ask_behind(&mut self, bytes: &[u8], stamp: Stamp) -> Option<String> {
        let slot = self.memory.lookup.slot(self.ifindex).expect("the pod has a slot");
        let tc_index = if stamp.names_pod { slot + 1 } else { slot + 2 };
        let tc_index = tc_index | if stamp.is_deferred { STAMP_DEFERRED } else { 0 };
        let verdict = self.arrived(bytes, stamp.is_received_from_pod, tc_index);
        let is_pods = stamp.names_pod || stamp.is_received_from_pod;
        let sentence = if is_pods { self.judge.sentence_behind(bytes) } else { Sentence::Never };
        let what = wrong(sentence, verdict.passes())?;
        keep_found(Direction::Egress, bytes, &self.place, &self.place);
        Some(format!("with {stamp:?} {}: {:?}, {what}", hex(bytes), verdict.reason))
    }
}

/// What a frame carries behind a translation.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    /// Routed from the pod's own interface, and not come from a bridge.
    is_received_from_pod: bool,
    /// `tc_index` is that of the pod, and not of nobody.
    names_pod: bool,
    is_deferred: bool,
}

impl Stamp {
    /// All of them.
    fn all() -> impl Iterator<Item = Self> {
        (0..8).map(|bits| Self {
            is_received_from_pod: bits & 1 != 0,
            names_pod: bits & 2 == 0,
            is_deferred: bits & 4 != 0,
        })
    }
}

/// Frames of every class: their least number in one run of all tests.
const FRAMES: u64 = 20_000;

/// What is kept, through every hook that it is for. Returns how many frames and outcomes there are.
fn replay(hook: &mut Hook) -> (usize, usize) {
    let kept = read_corpus();
    for (direction, frame) in &kept {
        hook.forget();
        let mut wrong = hook.ask(*direction, frame);
        if *direction == Direction::Egress {
            wrong = Stamp::all().fold(wrong, |wrong, stamp| wrong.or(hook.ask_behind(frame, stamp)));
        }
        if let Some(wrong) = wrong {
            panic!("a kept frame: {wrong}");
        }
    }
    let outcomes = hook.coverage.outcomes();
    // They are no more than what this run would find anyway: a difference is one of its own.
    for (direction, frame) in read_states() {
        hook.forget();
        let verdict = hook.verdict(direction, &frame);
        hook.coverage.saw(direction, verdict.reason, &frame);
    }
    hook.forget();
    (kept.len(), outcomes)
}

#[test]
fn nothing_passes_that_the_judge_denies() {
    let mut hook = Hook::new();
    let (kept, from_corpus) = replay(&mut hook);
    let (seed, count) = (number("CELLWALL_SEED", 0), number("CELLWALL_FRAMES", FRAMES));
    let mut wrong = Vec::new();
    let (mut stamped, stamps) = (0_usize, Stamp::all().collect::<Vec<_>>());
    for (nth, class) in Class::ALL.into_iter().enumerate() {
        let seed = seed + nth as u64;
        let mut rng = Rng::new(seed);
        for round in 0..count {
            if round % MEMORY == 0 {
                hook.forget();
            }
            let (direction, frame) = next(&mut rng, class, &hook.place, &hook.coverage);
            let mut found = hook.ask(direction, &frame);
            if direction == Direction::Egress {
                stamped += 1;
                found = found.or(hook.ask_behind(&frame, stamps[stamped % stamps.len()]));
            }
            if round % 4 == 0 {
                found = found.or(hook.ask(direction.reverse(), &back(&frame)));
            }
            wrong.extend(found.map(|found| format!("seed {seed}, {class:?}, frame {round}: {found}")));
        }
    }
    wrong.truncate(20);
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!(
        "in memory: {} frames of {} classes and {stamped} with a stamp, {} states of the parser, {} outcomes ({from_corpus} of them from {kept} kept frames), 0 differences",
        count * Class::ALL.len() as u64,
        Class::ALL.len(),
        hook.coverage.states(),
        hook.coverage.outcomes(),
    );
    keep_reached(hook.coverage.least(), hook.coverage.pool().iter());
    assert!(from_corpus * 10 >= kept * 9, "what is kept reaches what it was kept for");
    assert!(hook.coverage.states() > 2000, "{} states", hook.coverage.states());
}
