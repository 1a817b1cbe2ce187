//! The decision on tables in memory, guided by the states it reaches.

use cellwall_policy::compile::Compiler;
use cellwall_policy::flow::Direction;
use cellwall_policy::model::Touched;
use cellwall_policy::wanted::Observed;
use cellwall_testkit::frame::{Frame, UPLINK};
use cellwall_testkit::fuzz::{Class, Coverage, Judge, Place, read_corpus, write_corpus};
use cellwall_testkit::memory::Memory;
use cellwall_testkit::objects::Rng;
use cellwall_verdict::{Verdict, process};

use super::scene::{at_hook, hex, judge, next, usual_place, wrong};
use crate::cluster::{SECRET, planned};
use crate::report::number;

const IFINDEX: u32 = 77;
/// Connections are forgotten after so many frames: answers to them are then answers to nothing.
const MEMORY: u64 = 4096;

/// The pod in memory, and its judge.
pub(crate) struct Hook {
    memory: Memory,
    judge: Judge,
    pub(crate) place: Place,
    pub(crate) coverage: Coverage,
}

impl Hook {
    pub(crate) fn new() -> Self {
        let place = usual_place();
        let touched = Touched { policies: true, topology: true, ..Touched::default() };
        let wanted = Compiler::new(SECRET).compile(&at_hook(IFINDEX), &touched).wanted;
        let memory = Memory::new(planned(&wanted, &Observed::default()));
        Self { memory, judge: judge(&place), place, coverage: Coverage::default() }
    }

    pub(crate) fn forget(&mut self) {
        self.memory.forget();
        self.judge.forget();
    }

    pub(crate) fn verdict(&self, direction: Direction, bytes: &[u8]) -> Verdict {
        let mut frame = Frame::new(bytes, IFINDEX);
        frame.ingress_ifindex = if direction == Direction::Egress { IFINDEX } else { UPLINK };
        process(&frame, &self.memory, direction)
    }

    /// Asks both, and says what is wrong.
    fn ask(&mut self, direction: Direction, bytes: &[u8]) -> Option<String> {
        let verdict = self.verdict(direction, bytes);
        self.coverage.saw(direction, verdict.reason, bytes);
        let sentence = self.judge.sentence(bytes, direction);
        let what = wrong(sentence, verdict.passes())?;
        Some(format!("{direction:?} {}: {:?}, {what}", hex(bytes), verdict.reason))
    }
}

/// Frames of every class: their least number in one run of all tests.
const FRAMES: u64 = 20_000;

#[test]
fn nothing_passes_that_the_judge_denies() {
    let mut hook = Hook::new();
    let kept = read_corpus();
    for (direction, frame) in &kept {
        hook.forget();
        if let Some(wrong) = hook.ask(*direction, frame) {
            panic!("a kept frame: {wrong}");
        }
    }
    let from_corpus = hook.coverage.outcomes();
    let (seed, count) = (number("CELLWALL_SEED", 0), number("CELLWALL_FRAMES", FRAMES));
    let mut wrong = Vec::new();
    for (nth, class) in Class::ALL.into_iter().enumerate() {
        let seed = seed + nth as u64;
        let mut rng = Rng::new(seed);
        for round in 0..count {
            if round % MEMORY == 0 {
                hook.forget();
            }
            let (direction, frame) = next(&mut rng, class, &hook.place, &hook.coverage);
            let found = hook.ask(direction, &frame);
            wrong.extend(found.map(|found| format!("seed {seed}, {class:?}, frame {round}: {found}")));
        }
    }
    wrong.truncate(20);
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!(
        "in memory: {} frames of {} classes, {} states of the parser, {} outcomes ({from_corpus} of them from {} kept frames), 0 differences",
        count * Class::ALL.len() as u64,
        Class::ALL.len(),
        hook.coverage.states(),
        hook.coverage.outcomes(),
        kept.len(),
    );
    if number("CELLWALL_KEEP", 0) == 1 {
        write_corpus(hook.coverage.least());
    }
    assert!(from_corpus * 10 >= kept.len() * 9, "what is kept reaches what it was kept for");
    assert!(hook.coverage.states() > 2000, "{} states", hook.coverage.states());
}
