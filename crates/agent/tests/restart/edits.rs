//! Policy is edited while connections run.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use cellwall_testkit::traffic::{self, Stop, Tally};

use crate::rig::{FLOWS, Rig};
use crate::{ready, world::SOON};

const EDITS: usize = 102;

#[test]
fn edits_cut_what_becomes_denied_and_nothing_else() {
    let Some(rig) = Rig::new("edits") else { return };
    let world = &rig.world;
    let _agent = world.agent(&[]);
    let mut revision = world.until("ready", ready).revision;
    let (run, cut) = (Rig::traffic(), <[Tally; 4]>::default());
    let over = AtomicBool::new(false);
    scope(|scope| {
        let (_stop, _over) = (Stop(&run.end.stop), Stop(&over));
        run.start(scope, &rig.ends());
        let start = Instant::now();
        for number in 0..EDITS {
            rig.edit(number);
            revision = world.until("a new revision", |s| s.ready && s.revision > revision).revision;
        }
        println!("{EDITS} edits live in {:.1} s", start.elapsed().as_secs_f64());

        // The stranger becomes a client, connects, and is one no more.
        world.tell("stranger", &rig.stranger, "client");
        world.until("a client more", |s| s.ready && s.revision > revision);
        for (number, tally) in cut.iter().enumerate() {
            let way = (rig.stranger.host(), rig.server.addresses()[number % 2]);
            if number < 2 {
                traffic::tcp(scope, way, (&over, &run.end), tally);
            } else {
                traffic::udp(scope, way, (&over, &run.end), tally);
            }
        }
        let answered = || cut.each_ref().map(|tally| tally.answered.load(Relaxed));
        let start = Instant::now();
        while answered().iter().any(|count| *count < 10) {
            assert!(start.elapsed() < SOON, "{:?}", answered());
            sleep(Duration::from_millis(10));
        }
        let revision = world.ask().expect("it answers").revision;
        let start = Instant::now();
        world.tell("stranger", &rig.stranger, "stranger");
        world.until("a client less", |s| s.ready && s.revision > revision);
        let took = start.elapsed();
        // What was on its way at that moment has arrived by then.
        sleep(Duration::from_millis(200));
        let last = answered();
        run.go_on(SOON);
        assert_eq!(answered(), last, "connections that became denied are cut");
        println!("4 connections cut {} ms after the edit", took.as_millis());
        run.go_on(SOON);
    });
    println!(
        "{} flows, {} exchanges, {} answered, {} broken; {} denied packets sent, {} leaked",
        2 * FLOWS,
        run.sent(),
        run.answered(),
        run.broken(),
        run.denied(),
        rig.leaked(),
    );
    assert_eq!((run.broken(), rig.leaked()), (0, 0), "{}", world.log());
}
