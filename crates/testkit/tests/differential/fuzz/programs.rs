//! The same frames through the loaded programs (`BPF_PROG_TEST_RUN`). Needs root.

use std::thread;

use cellwall_datapath::{At, Datapath, Settings, now_tick};
use cellwall_policy::compile::Compiler;
use cellwall_policy::flow::Direction;
use cellwall_policy::model::{Cluster, Touched};
use cellwall_policy::plan::plan;
use cellwall_testkit::bpffs;
use cellwall_testkit::fuzz::{Class, read_corpus};
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

fn run() {
    let namespace = Namespace::new().expect("a namespace");
    let links = [POD, UPLINK].map(|n| format!("link add cw{n} index {n} type bridge"));
    namespace.ip(&links.each_ref().map(String::as_str)).expect("interfaces");
    namespace.enter().expect("it is alive");
    let datapath = datapath(&at_hook(POD), "programs");
    let mut hook = Hook::new();
    let mut judge = judge(&hook.place);
    let (mut asked, mut refused) = (0_u64, 0_u64);
    let mut ask = |direction: Direction, frame: &[u8]| {
        let ingress_ifindex = if direction == Direction::Egress { POD } else { UPLINK };
        let at = At { ifindex: POD, ingress_ifindex, mark: 0 };
        let passes = match datapath.test_run(direction, frame, at) {
            Ok(passes) => passes,
            // Of less than its headers the kernel makes no packet to run a program on.
            Err(_) if frame.len() < 14 + 40 => {
                refused += 1;
                return None;
            }
            Err(error) => panic!("{error}: {}", hex(frame)),
        };
        asked += 1;
        let what = wrong(judge.sentence(frame, direction), passes)?;
        Some(format!("{direction:?} {}: {what}", hex(frame)))
    };
    for (direction, frame) in read_corpus() {
        if let Some(wrong) = ask(direction, &frame) {
            panic!("a kept frame: {wrong}");
        }
    }
    let (seed, count) = (number("CELLWALL_SEED", 0), number("CELLWALL_FRAMES", FRAMES));
    let mut wrong = Vec::new();
    for (nth, class) in Class::ALL.into_iter().enumerate() {
        let seed = 1000 + seed + nth as u64;
        let mut rng = Rng::new(seed);
        for round in 0..count {
            if round % 4096 == 0 {
                hook.forget();
            }
            let (direction, frame) = next(&mut rng, class, &hook.place, &hook.coverage);
            let guess = hook.verdict(direction, &frame);
            hook.coverage.saw(direction, guess.reason, &frame);
            let found = ask(direction, &frame);
            wrong.extend(
                found.map(|found| {
                    format!("seed {seed}, {class:?}, frame {round}: {found}; in memory {guess:?}")
                }),
            );
        }
    }
    wrong.truncate(20);
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!(
        "through the programs: {asked} frames ({refused} that the kernel did not take), {} states of the parser, 0 differences",
        hook.coverage.states()
    );
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
