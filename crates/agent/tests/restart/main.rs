//! The agent ends, in every way and at every moment, and starts again; policy is edited meanwhile. Traffic that is
//! allowed throughout does not notice, and traffic that is denied throughout does not arrive. Needs root.

mod edits;
mod hostile;
mod places;
mod rig;
mod world;

use std::fs;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant, SystemTime};

use cellwall_api::v1alpha1::NodeStatus;
use cellwall_testkit::traffic::{self, Stop};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rig::{FLOWS, Rig};
use world::{SOON, World};

const KILLS: usize = 20;

/// In force for all five pods of the rig, and nobody is known behind the sixth interface.
pub(crate) fn ready(status: &NodeStatus) -> bool {
    status.ready && status.endpoint_count == 6 && status.unplaced_pods.is_empty()
}

/// A number that differs from run to run; it is printed, so that a run can be had again.
fn seed() -> u64 {
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    std::env::var("CELLWALL_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(age.subsec_nanos().into())
}

/// Starts an agent and kills it while it starts, while it writes an edit, or at rest.
fn start_and_kill(rig: &Rig, number: usize, random: &mut StdRng) {
    let agent = rig.world.agent(&[]);
    let until_ms = match number % 3 {
        0 => 500,
        kind => {
            rig.world.until("ready", ready);
            if kind == 1 {
                rig.edit(number / 3);
            }
            60
        }
    };
    sleep(Duration::from_micros(random.random_range(0..until_ms * 1000)));
    // SIGKILL.
    drop(agent);
}

#[test]
fn twenty_kills_break_no_flow_and_leak_no_packet() {
    let Some(rig) = Rig::new("kills") else { return };
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    drop({
        let agent = rig.world.agent(&[]);
        rig.world.until("ready", ready);
        agent
    });
    let run = Rig::traffic();
    let (start, never_seen) = (Instant::now(), traffic::never_seen());
    let counters = scope(|scope| {
        let _stop = Stop(&run.end.stop);
        run.start(scope, &rig.ends());
        run.go_on(SOON);
        for number in 0..KILLS {
            start_and_kill(&rig, number, &mut random);
        }
        run.go_on(SOON);
        let _agent = rig.world.agent(&[]);
        rig.world.until("ready", ready);
        run.go_on(SOON);
        rig.world.metrics("cellwall_packets_total")
    });
    println!(
        "seed {seed}, {KILLS} kills in {:.1} s: {} flows, {} exchanges, {} answered, {} flows broken, \
         {} TCP segments sent again, {} packets lost by the machine before any program saw them; \
         {} denied packets sent, {} leaked",
        start.elapsed().as_secs_f64(),
        2 * FLOWS,
        run.sent(),
        run.answered(),
        run.broken(),
        traffic::sent_again(rig.client.host()) + traffic::sent_again(rig.server.host()),
        traffic::never_seen() - never_seen,
        run.denied(),
        rig.leaked(),
    );
    assert_eq!((run.broken(), rig.leaked()), (0, 0), "{:?}\n{counters}\n{}", run.late(), rig.world.log());
    assert_eq!(run.sent(), run.answered());
    assert!(run.denied() > 1000, "a stream");
}

/// The test above can fail: with the pins of the links gone, packets leak, and the rig sees it; when a policy cuts
/// the flows, it sees that, too.
#[test]
fn the_rig_sees_what_leaks_and_what_breaks() {
    let Some(rig) = Rig::new("planted") else { return };
    let agent = rig.world.agent(&[]);
    rig.world.until("ready", ready);
    drop(agent);
    let run = Rig::traffic();
    scope(|scope| {
        let _stop = Stop(&run.end.stop);
        run.start(scope, &rig.ends());
        run.go_on(SOON);
        assert_eq!((run.broken(), rig.leaked()), (0, 0));
        for pin in rig.world.pins().keys().filter(|pin| pin.parent().is_some_and(|p| p.ends_with("links"))) {
            fs::remove_file(pin).expect("it is there");
        }
        let start = Instant::now();
        while rig.leaked() == 0 {
            assert!(start.elapsed() < SOON, "nothing leaks although nothing is attached");
            sleep(Duration::from_millis(10));
        }
        let _agent = rig.world.agent(&[]);
        rig.world.until("ready again", ready);
        sleep(Duration::from_millis(100));
        let leaked = rig.leaked();
        let sent = run.denied();
        while run.denied() < sent + 500 {
            sleep(Duration::from_millis(10));
        }
        assert_eq!(rig.leaked(), leaked, "it was repaired");
        assert_eq!(run.broken(), 0, "and no flow noticed");
        rig.world.policy("allow-clients", "server", "ingress: []");
        let start = Instant::now();
        while run.broken() < 2 * FLOWS {
            assert!(start.elapsed() < SOON, "{} flows are broken", run.broken());
            sleep(Duration::from_millis(10));
        }
        println!("planted: {leaked} packets leaked, {} flows broken", run.broken());
    });
}

fn plans(world: &World, result: &str) -> f64 {
    world.metric(&format!("cellwall_plans_total{{result=\"{result}\"}}")).parse().expect("a number")
}

#[test]
fn a_restart_over_an_unchanged_folder_writes_nothing_and_a_changed_one_flips_once() {
    let Some(rig) = Rig::new("adopt") else { return };
    let world = &rig.world;
    let mut agent = world.agent(&[]);
    let before = world.until("ready", ready);
    let run = Rig::traffic();
    scope(|scope| {
        let _stop = Stop(&run.end.stop);
        run.start(scope, &rig.ends());
        run.go_on(SOON);
        let pins = world.pins();
        assert!(pins.keys().any(|pin| pin.ends_with("maps/LIVE")), "{pins:?}");
        assert_eq!(agent.terminate().expect("it runs").code(), Some(0), "SIGTERM is no error");
        assert_eq!(world.pins(), pins, "SIGTERM leaves everything in place");
        run.go_on(SOON);

        agent = world.agent(&[]);
        let same = world.until("ready again", ready);
        assert_eq!(same.revision, before.revision);
        assert_eq!(world.pins(), pins, "the same programs, links and tables");
        assert!(plans(world, "applied") < 0.5, "an agent that finds what it wants writes nothing");
        assert!(plans(world, "empty") > 0.5);
        agent.terminate().expect("it runs");

        rig.edit(0);
        rig.edit(1);
        rig.edit(3);
        agent = world.agent(&[]);
        let changed = world.until("ready with the edits", |s| ready(s) && s.policy_count == 5);
        assert_eq!(changed.revision, before.revision + 1, "all of it in one flip");
        assert_eq!(world.pins(), pins, "the same programs, links and tables");
        run.go_on(SOON);
    });
    assert_eq!((run.broken(), rig.leaked()), (0, 0), "{}", world.log());
}

#[test]
fn of_two_agents_one_acts_and_the_other_waits_or_ends() {
    let Some(rig) = Rig::new("two") else { return };
    let world = &rig.world;
    let mut first = world.agent(&[]);
    let before = world.until("ready", ready);
    let mut second = world.agent(&["--wait", "0"]);
    assert_eq!(second.wait().expect("it ends").code(), Some(1));
    assert!(world.log().contains("another agent holds"), "{}", world.log());
    assert!(ready(&world.ask().expect("the first still answers")));

    // An upgrade that starts the new one before the old one has ended.
    let mut second = world.agent(&["--wait", "60"]);
    sleep(Duration::from_millis(500));
    assert!(second.child().try_wait().expect("it is ours").is_none(), "{}", world.log());
    let pins = world.pins();
    assert_eq!(first.terminate().expect("it runs").code(), Some(0));
    let after = world.until("ready after the hand-over", ready);
    assert_eq!(after.revision, before.revision);
    assert_eq!(world.pins(), pins);
    assert_eq!(second.terminate().expect("it runs").code(), Some(0));
}
