//! Agents are killed and replaced, and the API server stands still, while connections run and denied packets come: none of
//! the connections breaks, and none of the packets arrives. `CELLWALL_KILLS`, `CELLWALL_UPGRADES` and
//! `CELLWALL_STANDSTILL_S` make it longer.

use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use cellwall_e2e::helm::{NAMESPACE, ask, chart, said};
use cellwall_testkit::traffic::{Run, Stop, never_seen};

use crate::process::agents;
use crate::rig::{self, Rig};
use crate::site::{self, PATIENCE, Site};
use crate::{roll_out, run};

/// Of each protocol.
const FLOWS: usize = 100;

pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn connections_outlive_agents_and_nothing_denied_passes_meanwhile() {
    let Some(site) = Site::new() else { return };
    roll_out(&site.cluster, &["install", NAMESPACE, &chart(), "--create-namespace"]);
    let rig = Rig::new(&site);
    let traffic = Run::new(FLOWS, rig::SENDERS);
    scope(|scope| {
        let _stop = Stop(&traffic.end.stop);
        traffic.start(scope, &rig.ends());
        traffic.go_on(PATIENCE);
        part("kills", number("CELLWALL_KILLS", 4), &rig, &traffic, |nth| kill(&site, nth));
        let rounds = number("CELLWALL_UPGRADES", 1);
        part("upgrades and rollbacks", rounds, &rig, &traffic, |_| upgrade(&site));
        part("standstill of the API server", 1, &rig, &traffic, |_| stand_still(&site));
        the_rig_sees_what_breaks_and_what_leaks(&site, &rig, &traffic);
    });
}

/// Does it so many times; no flow breaks, and nothing leaks.
fn part(what: &str, times: u64, rig: &Rig, traffic: &Run, step: impl Fn(u64)) {
    let (start, denied, answered) = (Instant::now(), traffic.denied(), traffic.answered());
    let (unseen, again) = (never_seen(), rig.sent_again());
    (0..times).for_each(step);
    traffic.go_on(PATIENCE);
    let took_s = start.elapsed().as_secs_f64();
    let denied = traffic.denied() - denied;
    println!(
        "{times} {what} in {took_s:.1} s: {} flows, {} exchanges, {} flows broken, {} TCP segments sent again, \
         {} packets lost by the machine before any program saw them; {denied} denied packets sent ({:.0} a second), {:?} leaked",
        traffic.flows.len(),
        traffic.answered() - answered,
        traffic.broken(),
        rig.sent_again() - again,
        never_seen() - unseen,
        f64::from(u32::try_from(denied).expect("a few millions")) / took_s,
        rig.leaked(),
    );
    assert_eq!((traffic.broken(), rig.leaked()), (0, [0, 0]), "{what}: {:?}", traffic.late());
    assert!(denied > 1000, "a stream: {denied}");
}

/// Kills the agent, at rest or while it starts, and has another pod run the next one, since a kubelet waits longer with each
/// container that ends. Returns when that one is ready.
fn kill(site: &Site, nth: u64) {
    let mut killed = ready(site, 0);
    end(site, killed);
    if !nth.is_multiple_of(2) {
        let start = Instant::now();
        let next = loop {
            if let Some(next) = agents(&site.cluster).into_iter().find(|pid| *pid != killed) {
                break next;
            }
            assert!(start.elapsed() < PATIENCE, "no agent starts\n{}", site::state(&site.cluster));
            sleep(Duration::from_millis(10));
        };
        sleep(Duration::from_millis(nth * 37 % 500));
        end(site, next);
        killed = next;
    }
    ready(site, killed);
}

/// Kills an agent and deletes its pod.
fn end(site: &Site, agent: u32) {
    let kill = said(site.cluster.command("kill").args(["-KILL", &agent.to_string()]));
    // The kubelet may have ended it, whose pod is deleted.
    assert!(kill.is_ok() || !agents(&site.cluster).contains(&agent), "{kill:?}");
    site.kubectl(&format!("-n {NAMESPACE} delete pods --all --force --grace-period=0"));
}

/// Waits until one agent runs, which is ready and not `killed`; its process.
fn ready(site: &Site, killed: u32) -> u32 {
    let start = Instant::now();
    loop {
        if let [agent] = agents(&site.cluster)[..]
            && agent != killed
            && ask(&site.cluster, "status").is_ok_and(|status| status["ready"] == true)
            && agents(&site.cluster) == [agent]
        {
            return agent;
        }
        assert!(start.elapsed() < PATIENCE, "no agent is ready\n{}", site::state(&site.cluster));
        sleep(Duration::from_millis(50));
    }
}

/// Another configuration, and back.
fn upgrade(site: &Site) {
    let before = ready(site, 0);
    roll_out(&site.cluster, &["upgrade", NAMESPACE, &chart(), "--set", "log.level=debug"]);
    let upgraded = ready(site, before);
    roll_out(&site.cluster, &["rollback", NAMESPACE]);
    ready(site, upgraded);
}

/// The API server takes connections and answers nobody, and the agent is killed meanwhile: the kubelet starts it again, and
/// it stays.
fn stand_still(site: &Site) {
    let cluster = &site.cluster;
    let signal = |name: &str| said(cluster.command("pkill").args([name, "-x", "kube-apiserver"]));
    let killed = ready(site, 0);
    signal("-STOP").expect("it runs");
    let start = Instant::now();
    said(cluster.command("kill").args(["-KILL", &killed.to_string()])).expect("it runs");
    let next = loop {
        if let Some(next) = agents(cluster).into_iter().find(|pid| *pid != killed) {
            break next;
        }
        assert!(start.elapsed() < PATIENCE, "the kubelet starts no agent");
        sleep(Duration::from_millis(100));
    };
    println!("another agent ran {} ms after the last was killed", start.elapsed().as_millis());
    let until = Duration::from_secs(number("CELLWALL_STANDSTILL_S", 15));
    sleep(until.saturating_sub(start.elapsed()));
    assert_eq!(agents(cluster), [next], "it does without the API server");
    signal("-CONT").expect("it runs");
    let start = Instant::now();
    assert_eq!(ready(site, killed), next);
    println!("ready {} ms after the API server went on", start.elapsed().as_millis());
}

/// The test can fail: a policy that cuts the flows breaks them, and without the chart all passes.
fn the_rig_sees_what_breaks_and_what_leaks(site: &Site, rig: &Rig, traffic: &Run) {
    rig::close(site);
    let start = Instant::now();
    while traffic.broken() < traffic.flows.len() {
        assert!(start.elapsed() < PATIENCE, "{} flows are broken", traffic.broken());
        sleep(Duration::from_millis(100));
    }
    assert_eq!(rig.leaked(), [0, 0]);
    run(&site.cluster, &["uninstall", NAMESPACE, "--wait", "--timeout", "2m"]);
    let start = Instant::now();
    while rig.leaked().contains(&0) {
        assert!(start.elapsed() < PATIENCE, "{:?} passed although nobody enforces policies", rig.leaked());
        sleep(Duration::from_millis(10));
    }
}
