//! The same frames through the loaded programs (`BPF_PROG_TEST_RUN`). Needs root.

use std::thread;

use cellwall_datapath::{At, Datapath, Settings, TestRunError, now_tick};
use cellwall_policy::compile::Compiler;
use cellwall_policy::flow::Direction;
use cellwall_policy::model::{Cluster, Touched};
use cellwall_policy::plan::plan;
use cellwall_testkit::bpffs;
use cellwall_testkit::fuzz::{Class, Judge, Sentence, keep_found, read_corpus};
use cellwall_testkit::memory::MARK;
use cellwall_testkit::net::{Namespace, is_root};
use cellwall_testkit::objects::Rng;

use super::memory::Hook;
use super::scene::{at_hook, hex, judge, next, wrong};
use crate::cluster::ROOM;
use crate::report::number;

const POD: u32 = 100;
const UPLINK: u32 = 101;
const FRAMES: u64 = 4000;

/// A data path of this process's own whose tables say what the cluster says.
pub(crate) fn datapath(cluster: &Cluster, tag: &str) -> Datapath {
    let settings = Settings {
        bpffs: bpffs::private(),
        pin_name: format!("cellwall-fuzz-{tag}"),
        capacities: ROOM,
        flows: 4096,
        pending: 4096,
        fragments: 1024,
        events_bytes: 1 << 16,
        ..Settings::default()
    };
    let mut datapath = Datapath::open(&settings).expect("the data path opens");
    let touched = Touched { policies: true, topology: true, ..Touched::default() };
    let wanted = Compiler::new(datapath.secret()).compile(cluster, &touched).wanted;
    let observed = datapath.observe().expect("the tables can be read");
    let ops = plan(&wanted, &observed, &ROOM, now_tick()).expect("there is room");
    datapath.run_all(&ops).expect("the kernel takes the plan");
    datapath
}

/// The programs and their judge.
struct Programs {
    datapath: Datapath,
    judge: Judge,
    hook: Hook,
    /// Into the pod, out of it, and behind a translation.
    counts: [Count; 3],
    stamped: u64,
    refused: u64,
}

/// What became of the frames of one hook.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    asked: u64,
    /// Frames that had to pass, and did.
    due: u64,
    /// Frames that must never pass, and did not.
    denied: u64,
}

impl Count {
    /// What is wrong, if anything is.
    fn add(&mut self, sentence: Sentence, passes: bool) -> Option<&'static str> {
        self.asked += 1;
        self.due += u64::from(sentence == Sentence::Must && passes);
        self.denied += u64::from(sentence == Sentence::Never && !passes);
        wrong(sentence, passes)
    }
}

impl Programs {
    /// Asks both about a frame at a hook of the pod, and, when it is for the way out, behind a translation as well.
    fn ask(&mut self, direction: Direction, frame: &[u8]) -> Option<String> {
        let ingress_ifindex = if direction == Direction::Egress { POD } else { UPLINK };
        let at = At { ifindex: POD, ingress_ifindex, mark: 0 };
        let ran = self.datapath.test_run(direction, frame, at);
        let passes = self.ran(ran, frame)?;
        let sentence = self.judge.sentence(frame, direction);
        let mut what = self.counts[direction as usize].add(sentence, passes).map(str::to_owned);
        if direction == Direction::Egress {
            what = what.or(self.ask_behind(frame));
        }
        let what = what?;
        keep_found(direction, frame, &self.hook.place, &self.hook.place);
        Some(format!("{direction:?} {}: {what}", hex(frame)))
    }

    /// A test run takes no `tc_index`: the pod is named by the interface that received the frame, or nobody is.
    fn ask_behind(&mut self, frame: &[u8]) -> Option<String> {
        self.stamped += 1;
        let is_pods = !self.stamped.is_multiple_of(8);
        let ingress_ifindex = if is_pods { POD } else { UPLINK };
        let at = At { ifindex: UPLINK, ingress_ifindex, mark: MARK };
        let ran = self.datapath.test_run_node(frame, at);
        let passes = self.ran(ran, frame)?;
        let sentence = if is_pods { self.judge.sentence_behind(frame) } else { Sentence::Never };
        let what = self.counts[2].add(sentence, passes);
        what.map(|what| format!("stamped, received by {ingress_ifindex}, {what}"))
    }

    fn ran(&mut self, ran: Result<bool, TestRunError>, frame: &[u8]) -> Option<bool> {
        match ran {
            Ok(passes) => Some(passes),
            // Of less than its headers the kernel makes no packet to run a program on.
            Err(_) if frame.len() < 14 + 40 => {
                self.refused += 1;
                None
            }
            Err(error) => panic!("{error}: {}", hex(frame)),
        }
    }
}

fn run() {
    let namespace = Namespace::new().expect("a namespace");
    let links = [POD, UPLINK].map(|n| format!("link add cw{n} index {n} type bridge"));
    namespace.ip(&links.each_ref().map(String::as_str)).expect("interfaces");
    namespace.enter().expect("it is alive");
    let hook = Hook::new();
    let judge = judge(&hook.place);
    let datapath = datapath(&at_hook(POD), "programs");
    let mut programs = Programs { datapath, judge, hook, counts: Default::default(), stamped: 0, refused: 0 };
    for (direction, frame) in read_corpus() {
        if let Some(wrong) = programs.ask(direction, &frame) {
            panic!("a kept frame: {wrong}");
        }
    }
    let (seed, count) = (number("CELLWALL_SEED", 0), number("CELLWALL_FRAMES", FRAMES));
    let mut wrong = Vec::new();
    for (nth, class) in Class::ALL.into_iter().enumerate() {
        let seed = 1000 + seed + nth as u64;
        let mut rng = Rng::new(seed);
        for round in 0..count {
            let hook = &mut programs.hook;
            if round % 4096 == 0 {
                hook.forget();
            }
            let (direction, frame) = next(&mut rng, class, &hook.place, &hook.coverage);
            let guess = hook.verdict(direction, &frame);
            hook.coverage.saw(direction, guess.reason, &frame);
            let found = programs.ask(direction, &frame);
            wrong.extend(
                found.map(|found| {
                    format!("seed {seed}, {class:?}, frame {round}: {found}; in memory {guess:?}")
                }),
            );
        }
    }
    wrong.truncate(20);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let Programs { counts, refused, .. } = programs;
    println!(
        "through the programs: {counts:?}, {refused} that the kernel did not take, {} states of the parser, 0 differences",
        programs.hook.coverage.states()
    );
    let asked: u64 = counts.iter().map(|count| count.asked).sum();
    assert!(refused * 10 < asked, "{refused} refused, {asked} asked");
    for Count { asked, due, denied } in counts {
        assert!(asked > count && due * 50 > asked && denied * 5 > asked, "{counts:?}");
    }
}

#[test]
fn nothing_passes_the_programs_that_the_judge_denies() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    thread::scope(|scope| {
        scope.spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}
