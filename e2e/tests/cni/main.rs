//! The chained CNI plugin where it has to prove itself: a real kubelet, containerd and pods. What a pod sends from its first
//! instruction on, and what is sent to it before it is there, meets the policies that were there before it.

mod cost;
mod scene;
mod traffic;

use std::thread;
use std::time::{Duration, Instant};

use cellwall_e2e::agent::Agent;
use cellwall_e2e::node::CNI_CONF_DIR;

use crate::scene::{PATIENCE, Scene, is_chained};
use crate::traffic::{Leaks, Traffic};

/// Pods that start at once, half of each kind.
const AT_ONCE: usize = 10;
/// How long pods are without an agent: several times what the kubelet takes to start them with one.
const REBOOT: Duration = Duration::from_secs(8);
/// Flags of an agent that keeps the plugin in the configuration.
const CHAINED: [&str; 2] = ["--cni-conf-dir", CNI_CONF_DIR];

/// How many pods are started with the plugin, a multiple of [`AT_ONCE`].
fn starts() -> usize {
    std::env::var("CELLWALL_STARTS").map_or(50, |text| text.parse().expect("CELLWALL_STARTS is a number"))
}

/// Row C1: 0 payloads delivered and 0 connections made that policy denies, either way.
#[test]
fn from_its_first_instruction_a_pod_is_enforced() {
    let Some(scene) = Scene::new() else { return };
    let traffic = Traffic::start(&scene);

    // Where no policy is, all of it passes: what is counted below can be seen.
    let agent = scene.agent(&[]);
    scene.start_pods("open", "control", AT_ONCE, &traffic);
    let began = Instant::now();
    while !traffic.have_all_passed() {
        assert!(began.elapsed() < PATIENCE, "{:?}", traffic.take());
        thread::sleep(Duration::from_millis(50));
    }
    scene.end_pods("open");
    traffic.take();
    // And without the plugin the very same starts leak, for as long as the agent takes: here all the time.
    agent.kill().expect("it was running");
    scene.start_pods("start", "before", AT_ONCE, &traffic);
    let before = traffic.take();
    println!("without the plugin and an agent, of {AT_ONCE} starts: {before:?}");
    assert!(before.datagrams_out > 0 && before.connections_in > 0, "{before:?}");
    scene.end_pods("start");

    scene.install_plugin();
    let agent = scene.agent(&CHAINED);
    scene.until("status", is_chained);
    traffic.take();
    let began = Instant::now();
    let mut leaks = Vec::new();
    for round in 0..starts() / AT_ONCE {
        scene.start_pods("start", &format!("r{round}"), AT_ONCE, &traffic);
        let while_they_ran = traffic.take();
        scene.end_pods("start");
        leaks.extend([while_they_ran, traffic.take()]);
    }
    println!("with the plugin, {} starts in {} s", starts(), began.elapsed().as_secs());
    assert!(leaks.iter().all(|l| *l == Leaks::default()), "while pods ran and while they ended: {leaks:#?}");

    // Row C10: without an agent a pod waits, one that is exempt starts, and pods end.
    agent.kill().expect("it was running");
    scene.make_pod("default", "waits");
    scene.make_pod("kube-system", "exempt");
    scene.kubectl("-n kube-system wait --for=condition=Ready pod/exempt --timeout=120s");
    scene.kubectl("-n kube-system delete pod exempt --timeout=120s");
    let events = "get events --field-selector involvedObject.name=waits -o jsonpath={.items[*].message}";
    let began = Instant::now();
    while !scene.kubectl(events).contains("network policy is not enforced on Pod default/waits") {
        assert!(began.elapsed() < PATIENCE, "{}", scene.kubectl(events));
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(scene.kubectl("get pod waits -o jsonpath={.status.phase}"), "Pending");
    let _agent = after_a_reboot(&scene, &traffic);
    scene.kubectl("wait --for=condition=Ready pod/waits --timeout=120s");
}

/// Row C9: the node comes up with an empty BPF file system, and its pods before its agent. They wait for it, and nothing leaks.
fn after_a_reboot(scene: &Scene, traffic: &Traffic) -> Agent {
    scene.forget_everything();
    assert!(!scene.has_pins());
    let names = scene.make_pods("start", "reboot", AT_ONCE, traffic);
    thread::sleep(REBOOT);
    let phases = scene.kubectl("-n start get pods -o jsonpath={.items[*].status.phase}");
    assert_eq!(phases, ["Pending"; AT_ONCE].join(" "), "they wait");
    // Each attempt to start one has taken addresses.
    traffic.expect(scene.next_addresses(), AT_ONCE);
    let agent = scene.agent(&CHAINED);
    scene.until_all_have_done_theirs("start", &names);
    let leaks = traffic.take();
    println!("after a reboot, of {AT_ONCE} starts: {leaks:?}");
    assert_eq!(leaks, Leaks::default());
    scene.end_pods("start");
    agent
}

/// Another tool writes the configuration without us; ours comes back, and nothing of the tool's is lost. `cellwall node
/// disable` leaves the file as the tool wrote it, and asks neither an API server nor an agent.
#[test]
fn a_rewritten_configuration_gets_the_plugin_back_and_the_switch_takes_it_out() {
    let Some(scene) = Scene::new() else { return };
    let original = scene.conflist();
    scene.install_plugin();
    let agent = scene.agent(&CHAINED);
    scene.until("status", is_chained);
    let mut written = original.clone();
    for _ in 0..2 {
        written.push('\n');
        scene.write_conflist(&written);
        let began = Instant::now();
        while !scene.conflist().contains("cellwall-cni") {
            assert!(began.elapsed() < PATIENCE, "{}", scene.conflist());
            thread::sleep(Duration::from_millis(20));
        }
    }
    scene.until("status", is_chained);
    scene.make_pod("default", "one");
    scene.kubectl("wait --for=condition=Ready pod/one --timeout=120s");

    let said = scene.on_node(&["node", "disable"]);
    assert!(said.contains("nothing is enforced on this node any more"), "{said}");
    assert_eq!(scene.conflist(), written, "byte for byte as the tool wrote it");
    assert!(!scene.has_pins());
    scene.make_pod("default", "two");
    scene.kubectl("wait --for=condition=Ready pod/two --timeout=120s");
    // It outlives the agent.
    agent.kill().expect("it was running");
    let _agent = scene.agent_that_may_not_be_ready(&CHAINED);
    scene.make_pod("default", "three");
    scene.kubectl("wait --for=condition=Ready pod/three --timeout=120s");
    assert!(!scene.has_pins());

    let said = scene.on_node(&["node", "enable"]);
    assert!(said.contains("enforces again"), "{said}");
    scene.until("status", |status| status["ready"] == true && is_chained(status));
    assert!(scene.has_pins());
    assert!(scene.conflist().contains("cellwall-cni"));
}
