//! The same frames through the loaded programs (`BPF_PROG_TEST_RUN`). Needs root.
//!
//! Beside the judge they have the decision in memory to agree with, on the tables that are read back from the kernel:
//! about each frame whether it passes, and in the counters of the programs why. What differs is made to stay out of
//! it: frames come while the clock is in the middle of a tick, which both are then told alike, and no more of them
//! than the pod may have remembered in one (in memory that is counted for each family by itself).

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use cellwall_abi::{Bucket, Reason, TICK_SHIFT};
use cellwall_datapath::{At, Datapath, Settings, TestRunError, now_ns, now_tick, remove};
use cellwall_policy::compile::Compiler;
use cellwall_policy::flow::Direction;
use cellwall_policy::model::{Cluster, Touched};
use cellwall_policy::plan::plan;
use cellwall_testkit::bpffs;
use cellwall_testkit::fuzz::{Class, Part, Seen, Sentence, keep_found, read_corpus, see};
use cellwall_testkit::memory::MARK;
use cellwall_testkit::net::{Namespace, is_root};
use cellwall_testkit::objects::Rng;
use cellwall_verdict::Verdict;

use super::memory::Hook;
use super::scene::{at_hook, hex, next, wrong};
use crate::cluster::ROOM;
use crate::report::number;

const POD: u32 = 100;
const UPLINK: u32 = 101;
const FRAMES: u64 = 4000;
/// Frames after which the counters are looked at.
const STRETCH: u64 = 250;
/// Rows of PENDING and of FRAGMENTS. Of the least recently used ones the kernel forgets some before a table is full, so only
/// half of them are used.
const ROOM_OF: [u32; 2] = [1 << 16, 1 << 13];
/// Nanoseconds of a tick, and what is left out at its beginning, where the clock of the programs may be behind by as
/// much as a timer is late, and at its end.
const TICK: u64 = 1 << TICK_SHIFT;
const EDGE: u64 = 30_000_000;
/// What frames must be dropped for in a run, or it shows little.
const REASONS: [Reason; 13] = [
    Reason::DefaultDeny,
    Reason::SourceRoute,
    Reason::Extension,
    Reason::Malformed,
    Reason::Truncated,
    Reason::EtherType,
    Reason::Tunnel,
    Reason::NeighbourForged,
    Reason::Unrelated,
    Reason::NoConnection,
    Reason::TinyFragment,
    Reason::NotAddressed,
    Reason::Spoofed,
];

/// Of a BPF file system of this thread's own.
pub(crate) fn settings(tag: &str) -> Settings {
    Settings {
        bpffs: bpffs::private(),
        pin_name: format!("cellwall-fuzz-{tag}"),
        capacities: ROOM,
        flows: ROOM_OF[0] / 2,
        pending: ROOM_OF[0],
        fragments: ROOM_OF[1],
        events_bytes: 1 << 16,
        ..Settings::default()
    }
}

/// A data path of this process's own whose tables say what the cluster says.
pub(crate) fn datapath(cluster: &Cluster, settings: &Settings) -> Datapath {
    let mut datapath = Datapath::open(settings).expect("the data path opens");
    let touched = Touched { policies: true, topology: true, ..Touched::default() };
    let wanted = Compiler::new(datapath.secret()).compile(cluster, &touched).wanted;
    let observed = datapath.observe().expect("the tables can be read");
    let ops = plan(&wanted, &observed, &ROOM, now_tick()).expect("there is room");
    datapath.run_all(&ops).expect("the kernel takes the plan");
    datapath
}

/// Packets and bytes by reason and direction, of those that there were.
type Counts = BTreeMap<(u8, usize), [u64; 2]>;

/// The programs, the decision in memory and the judge.
struct Programs {
    datapath: Datapath,
    settings: Settings,
    hook: Hook,
    /// Into the pod, out of it, and behind a translation.
    counts: [Count; 3],
    stamped: u64,
    refused: u64,
    pace: Pace,
    /// What the counters said last, and what memory has said since.
    counted: Counts,
    guessed: Counts,
    /// Reasons so far.
    reasons: BTreeMap<u8, u64>,
    /// Stretches of which the counters were compared, and others.
    stretches: [u64; 2],
}

/// When the next frame may come.
#[derive(Debug, Default)]
struct Pace {
    tick: u32,
    /// What may have been remembered in this tick, connections and first fragments, and since the tables were new.
    in_tick: [u32; 2],
    in_all: [u32; 2],
    /// A frame came at the edge of a tick after all: memory and kernel need not agree any more.
    slipped: bool,
}

impl Pace {
    /// Waits until the clock is in the middle of a tick in which more may be remembered.
    fn wait(&mut self) {
        // Denied fragments have the least room; and a fragment that leaves the pod counts once more behind a translation.
        let most = [Bucket::UNANSWERED / 2, Bucket::DENIED_FRAGMENTS - 2];
        loop {
            let now = now_tick();
            if now != self.tick {
                (self.tick, self.in_tick) = (now, [0; 2]);
            }
            let has_room = self.in_tick.iter().zip(most).all(|(count, most)| *count < most);
            if has_room && (EDGE..TICK - 2 * EDGE).contains(&(now_ns() % TICK)) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// A frame was asked about; returns whether that took no longer than its tick.
    fn asked(&mut self, frame: &[u8], guess: Verdict) -> bool {
        let is_first = matches!(see(frame), Seen::Packet { part: Part::First, .. });
        let rows = [u32::from(guess.passes() && guess.reason != Reason::Established), u32::from(is_first)];
        for (kind, count) in rows.into_iter().enumerate() {
            self.in_tick[kind] += count;
            self.in_all[kind] += count;
        }
        let held = now_tick() == self.tick;
        self.slipped |= !held;
        held
    }

    fn is_over(&self) -> bool {
        self.slipped || self.in_all.iter().zip(ROOM_OF).any(|(count, room)| *count > room / 2)
    }
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
    fn add(&mut self, sentence: Sentence, passes: bool) -> Option<String> {
        self.asked += 1;
        self.due += u64::from(sentence == Sentence::Must && passes);
        self.denied += u64::from(sentence == Sentence::Never && !passes);
        wrong(sentence, passes).map(str::to_owned)
    }
}

fn differ(guess: Verdict, passes: bool) -> Option<String> {
    (guess.passes() != passes).then(|| format!("passes: {passes}, in memory: {:?}", guess.reason))
}

impl Programs {
    fn new() -> Self {
        let settings = settings("programs-0");
        let datapath = datapath(&at_hook(POD), &settings);
        let hook = Hook::of(datapath.observe().expect("the tables can be read"), POD);
        let mut programs = Self {
            datapath,
            settings,
            hook,
            counts: Default::default(),
            stamped: 0,
            refused: 0,
            pace: Pace::default(),
            counted: Counts::new(),
            guessed: Counts::new(),
            reasons: BTreeMap::new(),
            stretches: [0; 2],
        };
        programs.counted = programs.counters();
        programs
    }

    /// Programs and tables that have seen nothing yet.
    fn renew(&mut self) {
        let name = format!("cellwall-fuzz-programs-{}", self.stretches.iter().sum::<u64>());
        let settings = Settings { pin_name: name, ..self.settings.clone() };
        self.datapath = datapath(&at_hook(POD), &settings);
        remove(&self.settings).expect("nobody uses what was there");
        self.settings = settings;
        self.hook.renew(self.datapath.observe().expect("the tables can be read"));
        self.counted = self.counters();
        self.pace = Pace::default();
    }

    fn counters(&self) -> Counts {
        let all = self.datapath.counters().expect("the counters can be read").into_iter();
        let seen = all.filter(|(.., counter)| counter.packets > 0);
        seen.map(|(reason, direction, c)| ((reason as u8, direction as usize), [c.packets, c.bytes]))
            .collect()
    }

    /// What the programs count is what memory said, and why; `None` when there is nothing to say about it.
    fn compare(&mut self) -> Option<String> {
        let counted = self.counters();
        let mut since = counted.clone();
        for (key, before) in &self.counted {
            let row = since.get_mut(key).expect("counters only grow");
            *row = [row[0] - before[0], row[1] - before[1]];
        }
        since.retain(|_, row| row[0] > 0);
        let guessed = std::mem::take(&mut self.guessed);
        for ((reason, _), [packets, _]) in &since {
            *self.reasons.entry(*reason).or_default() += packets;
        }
        self.counted = counted;
        self.stretches[usize::from(self.pace.slipped)] += 1;
        let wrong = (since != guessed && !self.pace.slipped).then(|| {
            format!("(reason, direction), packets and bytes: counted {since:?}, guessed {guessed:?}")
        });
        if self.pace.is_over() {
            self.renew();
        }
        wrong
    }

    fn guess(&mut self, guess: Verdict, direction: Direction, frame: &[u8]) {
        let row = self.guessed.entry((guess.reason as u8, direction as usize)).or_default();
        *row = [row[0] + 1, row[1] + frame.len() as u64];
    }

    /// Asks all three about a frame at a hook of the pod, and, when it is for the way out, behind a translation as well.
    fn ask(&mut self, direction: Direction, frame: &[u8]) -> Option<String> {
        self.pace.wait();
        self.hook.at(self.pace.tick);
        let ingress_ifindex = if direction == Direction::Egress { POD } else { UPLINK };
        let at = At { ifindex: POD, ingress_ifindex, mark: 0 };
        let ran = self.datapath.test_run(direction, frame, at);
        let passes = self.ran(ran, frame)?;
        let guess = self.hook.verdict(direction, frame);
        self.hook.coverage.saw(direction, guess.reason, frame);
        self.guess(guess, direction, frame);
        let held = self.pace.asked(frame, guess);
        let mut what = differ(guess, passes).filter(|_| held);
        let sentence = self.hook.judge.sentence(frame, direction);
        what = self.counts[direction as usize].add(sentence, passes).or(what);
        if direction == Direction::Egress {
            what = what.or(self.ask_behind(frame));
        }
        let what = what?;
        keep_found(direction, frame, &self.hook.place, &self.hook.place);
        Some(format!("{direction:?} {}: {what}; in memory {guess:?}", hex(frame)))
    }

    /// A test run takes no `tc_index`: the pod is named by the interface that received the frame, or nobody is.
    fn ask_behind(&mut self, frame: &[u8]) -> Option<String> {
        self.stamped += 1;
        let is_pods = !self.stamped.is_multiple_of(8);
        let ingress_ifindex = if is_pods { POD } else { UPLINK };
        let at = At { ifindex: UPLINK, ingress_ifindex, mark: MARK };
        let ran = self.datapath.test_run_node(frame, at);
        let passes = self.ran(ran, frame)?;
        let guess = self.hook.verdict_behind(frame, is_pods);
        // What passes was counted when it left its pod.
        if guess.reason.is_drop() {
            self.guess(guess, Direction::Egress, frame);
        }
        let held = self.pace.asked(frame, guess);
        let differs = differ(guess, passes).filter(|_| held);
        let sentence = if is_pods { self.hook.judge.sentence_behind(frame) } else { Sentence::Never };
        let what = self.counts[2].add(sentence, passes).or(differs);
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

    /// Frames of a class; what is wrong with them.
    fn class(&mut self, class: Class, seed: u64, count: u64) -> Vec<String> {
        let mut rng = Rng::new(seed);
        let mut wrong = Vec::new();
        for round in 0..count {
            let (direction, frame) = next(&mut rng, class, &self.hook.place, &self.hook.coverage);
            let mut found = self.ask(direction, &frame);
            if (round + 1) % STRETCH == 0 || round + 1 == count {
                found = found.or(self.compare());
            }
            wrong.extend(found.map(|found| format!("seed {seed}, {class:?}, frame {round}: {found}")));
        }
        wrong
    }

    fn assert_much_was_seen(&self, count: u64) {
        let asked: u64 = self.counts.iter().map(|count| count.asked).sum();
        assert!(self.refused * 10 < asked, "{} refused, {asked} asked", self.refused);
        for Count { asked, due, denied } in self.counts {
            assert!(asked > count && due * 50 > asked && denied * 5 > asked, "{:?}", self.counts);
        }
        let missing: Vec<&str> = REASONS
            .into_iter()
            .filter(|reason| !self.reasons.contains_key(&(*reason as u8)))
            .map(Reason::name)
            .collect();
        assert!(missing.is_empty() || count < FRAMES, "nothing was dropped for {missing:?}");
        let [compared, others] = self.stretches;
        assert!(others * 10 < compared, "the clock moved in {others} stretches, and did not in {compared}");
    }
}

fn run() {
    let namespace = Namespace::new().expect("a namespace");
    let links = [POD, UPLINK].map(|n| format!("link add cw{n} index {n} type bridge"));
    namespace.ip(&links.each_ref().map(String::as_str)).expect("interfaces");
    namespace.enter().expect("it is alive");
    let mut programs = Programs::new();
    for (direction, frame) in read_corpus() {
        if let Some(wrong) = programs.ask(direction, &frame).or(programs.compare()) {
            panic!("a kept frame: {wrong}");
        }
    }
    let (seed, count) = (number("CELLWALL_SEED", 0), number("CELLWALL_FRAMES", FRAMES));
    let mut wrong = Vec::new();
    for (nth, class) in Class::ALL.into_iter().enumerate() {
        wrong.extend(programs.class(class, 1000 + seed + nth as u64, count));
    }
    wrong.truncate(20);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let names: Vec<String> = programs
        .reasons
        .iter()
        .map(|(reason, count)| format!("{} {count}", Reason::from_number(*reason).map_or("?", Reason::name)))
        .collect();
    println!(
        "through the programs: {:?}, {} that the kernel did not take, {} states of the parser, 0 differences; {} reasons: {}; the clock moved in {} of {} stretches",
        programs.counts,
        programs.refused,
        programs.hook.coverage.states(),
        names.len(),
        names.join(", "),
        programs.stretches[1],
        programs.stretches.iter().sum::<u64>()
    );
    programs.assert_much_was_seen(count);
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
