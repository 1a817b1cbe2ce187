//! The loop over a kernel in memory.

mod announced;
mod chain;
mod fake;
mod histories;
mod metrics;
mod objects;
mod restart;
mod room;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cellwall_agent::kernel::Hook;
use cellwall_agent::node::Node;
use cellwall_agent::run::{Input, Outputs, run};
use cellwall_agent::sources::PATIENCE;
use cellwall_api::v1alpha1::Condition;
use cellwall_api::{Publisher, Snapshot};
use cellwall_policy::model::{Change, Kind, Problem};
use tokio::sync::{mpsc, oneshot, watch};

use fake::FakeKernel;
use objects::{address, ifindex, link, link_gone, listed, node, now, old_link, pod, policy, policy_key};

/// Long enough for every back-off of a few failures.
const LATER: Duration = Duration::from_secs(30);

fn condition(snapshot: &Snapshot, name: &str) -> Condition {
    let found = snapshot.status.conditions.iter().find(|condition| condition.r#type == name);
    found.unwrap_or_else(|| panic!("no condition {name}")).clone()
}

/// A node with two pods and a policy that cuts them off.
fn busy() -> Node<FakeKernel> {
    let mut node = node(FakeKernel::default());
    for input in [pod(1), pod(2), link(1), link(2), policy("deny", 80, 3)] {
        node.take(input, now());
    }
    node
}

/// As [`busy`], and everything is listed, except that the lists keep what is there.
fn settled() -> Node<FakeKernel> {
    let mut node = node(FakeKernel::default());
    listed(&mut node);
    for input in [pod(1), pod(2), link(1), link(2), policy("deny", 80, 3)] {
        node.take(input, now());
    }
    node.converge(now());
    node
}

#[test]
fn nothing_is_written_until_everything_is_listed() {
    let mut node = busy();
    let steps = Kind::ALL.map(|kind| {
        let present = match kind {
            Kind::Pod => vec!["p1", "p2"],
            Kind::NetworkPolicy => vec!["deny"],
            _ => Vec::new(),
        };
        let key = |name: &&str| cellwall_policy::model::ObjectKey::namespaced(kind, "default", name);
        Input::Change(Change::Listed(kind, present.iter().map(key).collect()))
    });
    for step in steps.into_iter().chain([Input::LinksListed]) {
        node.converge(now());
        assert_eq!(node.kernel().writes.get(), 0, "before {step:?}");
        assert!(node.kernel().hooks.is_empty());
        let snapshot = node.snapshot(now());
        assert!(!snapshot.status.ready);
        assert_eq!(condition(&snapshot, "Enforcing").reason, "Waiting");
        node.take(step, now());
    }
    node.converge(now());
    let snapshot = node.snapshot(now());
    assert!(snapshot.status.ready, "{:?}", snapshot.status.conditions);
    assert_eq!(snapshot.endpoints.len(), 2);
    assert!(snapshot.endpoints.iter().all(|endpoint| endpoint.attached));
    assert_eq!(node.kernel().hooks.len(), 2);
    assert!(node.kernel().writes.get() > 0);
}

#[test]
fn a_resource_that_is_not_served_counts_as_listed_and_one_that_is_forbidden_does_not() {
    let mut node = busy();
    listed(&mut node);
    node.take(Input::Failed(Kind::Pod, "403".to_owned()), now());
    assert!(condition(&node.snapshot(now()), "SourcesCurrent").ok, "a hiccup is no state");
    let late = node.snapshot(now() + PATIENCE + Duration::from_secs(1));
    assert!(condition(&late, "SourcesCurrent").message.contains("Pod cannot be watched: 403"));
    assert!(!late.status.ready);
    node.take(Input::Current(Kind::Pod), now());
    let back = node.snapshot(now() + PATIENCE + Duration::from_secs(1));
    assert!(condition(&back, "SourcesCurrent").ok, "a quiet resource is back although nothing changed");

    let mut node = busy();
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::ClusterNetworkPolicy) {
        node.take(Input::Change(Change::Listed(kind, Vec::new())), now());
    }
    node.take(Input::LinksListed, now());
    node.take(Input::Failed(Kind::ClusterNetworkPolicy, "403".to_owned()), now());
    node.converge(now());
    let snapshot = node.snapshot(now());
    assert_eq!(condition(&snapshot, "SourcesListed").message, "ClusterNetworkPolicy cannot be listed: 403");
    assert_eq!(node.kernel().writes.get(), 0);
    node.take(Input::NotServed(Kind::ClusterNetworkPolicy), now());
    node.converge(now());
    assert!(node.snapshot(now()).status.ready);
}

/// What is in force may be what a partial list lacks; on a node where nothing is, the rest of it is better than nothing.
#[test]
fn a_partial_list_lifts_nothing_that_an_earlier_agent_enforces() {
    let partial = |why: Option<&str>| Input::Partial(Kind::NetworkPolicy, why.map(str::to_owned));
    let mut first = node(FakeKernel::default());
    first.take(partial(Some("a.yaml: cannot be parsed")), now());
    listed(&mut first);
    for input in [pod(1), link(1), policy("deny", 80, 3)] {
        first.take(input, now());
    }
    first.converge(now());
    assert!(first.snapshot(now()).status.ready, "nothing was in force");
    let kernel = std::mem::take(first.kernel());
    let before = kernel.tables.clone();
    assert_ne!(before.live.0, 0);

    let mut second = node(kernel);
    second.take(partial(Some("a.yaml: cannot be parsed")), now());
    listed(&mut second);
    for input in [pod(1), link(1)] {
        second.take(input, now());
    }
    second.converge(now());
    assert_eq!(second.kernel().tables, before);
    let waiting = condition(&second.snapshot(now()), "Enforcing");
    assert_eq!(waiting.reason, "Waiting");
    assert!(waiting.message.contains("until this is mended: a.yaml: cannot be parsed"), "{waiting:?}");

    second.take(partial(None), now());
    second.converge(now());
    assert_ne!(second.kernel().tables, before, "the policy is gone after all");
    // Of what this agent has applied it knows the last version.
    second.take(partial(Some("b.yaml: cannot be parsed")), now());
    second.take(policy("deny", 80, 3), now());
    second.converge(now());
    assert_eq!(condition(&second.snapshot(now()), "Enforcing").reason, "Applied");
}

#[test]
fn an_agent_that_finds_what_it_wants_writes_nothing() {
    let mut first = settled();
    let kernel = std::mem::take(first.kernel());
    let before = kernel.tables.clone();
    kernel.writes.set(0);
    let mut second = node(kernel);
    listed(&mut second);
    for input in [pod(1), pod(2), link(1), link(2), policy("deny", 80, 3)] {
        second.take(input, now());
    }
    second.converge(now());
    assert_eq!(second.kernel().writes.get(), 0);
    assert_eq!(second.kernel().tables, before);
    assert_eq!(second.stats.plans_empty, 1);
    assert_eq!(second.stats.attached, 0, "links are adopted");
    assert!(second.snapshot(now()).status.ready);
}

/// A pod that starts waits for the answer, and what follows a flip takes a grace period.
#[test]
fn a_revision_is_told_when_it_is_live_and_before_what_it_frees() {
    let mut node = settled();
    let before = node.kernel().tables.clone();
    node.take(policy("deny", 81, 3), now());
    node.advance(now());
    let told = node.snapshot(now());
    assert!(told.status.ready, "{:?}", told.status.conditions);
    let live = node.kernel().tables.clone();
    assert_eq!((told.status.revision, live.live.0), (before.live.0 + 1, before.live.0 + 1));
    assert!(live.policy.len() > before.policy.len(), "what nobody names any more is still there");
    assert!(node.finish(now()));
    assert_eq!(node.kernel().tables.policy.len(), before.policy.len(), "and now it is not");
    assert!(!node.finish(now()), "nothing is left to do");

    node.take(policy("deny", 82, 3), now());
    node.advance(now());
    // Whoever forgets it loses nothing.
    node.advance(now());
    assert_eq!(node.kernel().tables.policy.len(), before.policy.len());
    node.read_back(now());
    assert_eq!(condition(&node.snapshot(now()), "Enforcing").reason, "Applied");
}

#[test]
fn a_version_is_enforced_when_its_revision_is_live() {
    let mut node = settled();
    let enforced = |node: &mut Node<FakeKernel>| {
        let source =
            node.snapshot(now()).status.sources.into_iter().find(|source| source.kind == "NetworkPolicy");
        source.expect("it is watched").enforced_resource_version
    };
    let version = |text: &str| Input::Version(Kind::NetworkPolicy, text.to_owned());
    node.take(version("7"), now());
    assert_eq!(enforced(&mut node), "", "nobody has looked yet");
    node.converge(now());
    assert_eq!(enforced(&mut node), "7", "there was nothing to write for it");

    node.kernel().writes_left = Some(0);
    node.take(policy("deny", 81, 3), now());
    node.take(version("8"), now());
    node.converge(now());
    assert_eq!(enforced(&mut node), "7", "the kernel has refused the revision with it");
    node.kernel().writes_left = None;
    node.converge(now() + LATER);
    assert_eq!(enforced(&mut node), "8");
}

#[test]
fn a_write_that_fails_anywhere_is_told_and_healed() {
    let mut whole = settled();
    let goal = whole.kernel().tables.clone();
    let writes = whole.kernel().writes.get();
    assert!(writes > 10);
    for failing in 0..writes {
        let mut node = busy();
        node.kernel().writes_left = Some(failing);
        for kind in Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Pod | Kind::NetworkPolicy)) {
            node.take(Input::Change(Change::Listed(kind, Vec::new())), now());
        }
        let pods = [1, 2]
            .map(|n| cellwall_policy::model::ObjectKey::namespaced(Kind::Pod, "default", &format!("p{n}")));
        node.take(Input::Change(Change::Listed(Kind::Pod, pods.to_vec())), now());
        node.take(Input::Change(Change::Listed(Kind::NetworkPolicy, vec![policy_key("deny")])), now());
        node.take(Input::LinksListed, now());
        node.converge(now());
        let snapshot = node.snapshot(now());
        let enforcing = condition(&snapshot, "Enforcing");
        assert_eq!(enforcing.reason, "WriteFailed");
        assert!(enforcing.message.contains("Input/output error"), "{}", enforcing.message);
        assert_eq!(snapshot.status.revision, node.kernel().tables.live.0, "the live one is told");
        assert!(!snapshot.status.ready);

        node.kernel().writes_left = None;
        node.converge(now());
        assert!(!node.snapshot(now()).status.ready, "it waits before it tries again");
        node.converge(node.next_try().expect("a time is set"));
        let healed = node.snapshot(now());
        assert!(healed.status.ready, "write {failing}: {:?}", healed.status.conditions);
        assert_eq!(node.next_try(), None);
        assert_eq!(node.kernel().tables.policy, goal.policy);
        assert_eq!(node.kernel().hooks.len(), 2);
    }
}

#[test]
fn the_connections_of_a_running_pod_are_taken_over_once_and_before_it_is_enforced() {
    let mut node = node(FakeKernel::default());
    listed(&mut node);
    for input in [pod(1), old_link(1), old_link(2), pod(3), link(3)] {
        node.take(input, now());
    }
    node.converge(now());
    let first = (BTreeMap::from([(address(1), ifindex(1))]), 0);
    assert_eq!(
        node.kernel().imports,
        std::slice::from_ref(&first),
        "not of a new interface, nor of one without a pod"
    );

    node.take(policy("deny", 80, 3), now());
    node.converge(now());
    assert_eq!(node.kernel().imports.len(), 1, "not again with the next plan");
    let live = node.kernel().tables.live.0;
    node.kernel().no_conntrack = true;
    node.take(pod(2), now());
    node.converge(now());
    let second = (BTreeMap::from([(address(2), ifindex(2))]), live);
    assert_eq!(node.kernel().imports, [first, second], "when its pod is known");
    assert!(node.snapshot(now()).status.ready, "what cannot be taken over stops nothing");

    let kernel = std::mem::take(node.kernel());
    let mut next = objects::node(FakeKernel { imports: Vec::new(), ..kernel });
    listed(&mut next);
    for input in [pod(1), pod(2), pod(3), old_link(1), old_link(2), old_link(3), policy("deny", 80, 3)] {
        next.take(input, now());
    }
    next.converge(now());
    assert_eq!(next.kernel().imports, [], "what an earlier agent enforced is adopted");
}

#[test]
fn an_interface_that_refuses_programs_is_named_and_tried_again() {
    let mut node = node(FakeKernel::default());
    node.kernel().refuse.insert(ifindex(1));
    listed(&mut node);
    for input in [pod(1), pod(2), link(1), link(2)] {
        node.take(input, now());
    }
    node.converge(now());
    let snapshot = node.snapshot(now());
    assert!(
        condition(&snapshot, "Attached").message.contains("veth1"),
        "{:?}",
        condition(&snapshot, "Attached")
    );
    assert!(condition(&snapshot, "Enforcing").ok);
    assert!(node.kernel().hooks.contains_key(&ifindex(2)), "the others are enforced");
    node.kernel().refuse.clear();
    node.converge(node.next_try().expect("a time is set"));
    assert!(node.snapshot(now()).status.ready);
}

#[test]
fn interfaces_that_are_no_pods_get_a_program_of_their_own() {
    let mut node = node(FakeKernel::default());
    let others = |node: &mut Node<FakeKernel>| node.kernel().node_hooks.keys().copied().collect::<Vec<_>>();
    listed(&mut node);
    let (bridge, uplink) = (1077, 1078);
    let all = BTreeSet::from([ifindex(1), ifindex(2), bridge, uplink]);
    for input in [pod(1), link(1), Input::Interfaces(all.clone())] {
        node.take(input, now());
    }
    node.converge(now());
    assert_eq!(others(&mut node), [ifindex(2), bridge, uplink], "one of them becomes a pod's");
    assert_eq!(node.kernel().hooks.keys().copied().collect::<Vec<_>>(), [ifindex(1)]);
    let order = [ifindex(2), bridge, uplink, ifindex(1)];
    assert_eq!(
        node.kernel().attached,
        order,
        "what a pod sends is judged where it leaves from its first packet"
    );
    node.take(link(2), now());
    node.converge(now());
    assert!(node.kernel().hooks.contains_key(&ifindex(2)));
    assert_eq!(others(&mut node), [bridge, uplink], "and then has those of a pod");

    node.kernel().node_hooks.remove(&bridge);
    node.read_back(now());
    node.converge(now());
    assert_eq!(others(&mut node), [bridge, uplink], "what was taken off is put there again");

    node.kernel().refuse.insert(1079);
    node.take(Input::Interfaces(all.into_iter().chain([1079]).collect()), now());
    node.converge(now());
    let attached = condition(&node.snapshot(now()), "Attached").clone();
    assert!(!attached.ok && attached.message.contains("1079"), "{attached:?}");
    node.kernel().refuse.clear();
    node.converge(node.next_try().expect("a time is set"));
    assert!(node.snapshot(now()).status.ready);
    assert_eq!(others(&mut node), [bridge, uplink, 1079]);
}

#[test]
fn an_interface_that_goes_and_comes_back_under_its_index_gets_programs_anew() {
    let mut node = settled();
    node.take(link_gone(1), now());
    assert!(!node.kernel().hooks.contains_key(&ifindex(1)), "at once, before the next plan");
    node.take(link(1), now());
    node.converge(now());
    assert_eq!(node.kernel().hooks.len(), 2);
    node.take(link_gone(1), now());
    node.converge(now());
    assert!(!node.kernel().tables.endpoints.contains_key(&ifindex(1)));
    let snapshot = node.snapshot(now());
    assert_eq!(snapshot.status.unplaced_pods.len(), 1, "its pod is named");
    assert!(snapshot.status.ready);
}

#[test]
fn drift_is_seen_told_and_repaired() {
    let mut node = settled();
    node.read_back(now());
    assert!(condition(&node.snapshot(now()), "InStep").ok, "{:?}", node.snapshot(now()).status.conditions);
    let goal = node.kernel().tables.clone();
    node.kernel().tables.policy.pop_first().expect("the policy has rows");
    node.kernel().hooks.clear();

    node.read_back(now());
    let snapshot = node.snapshot(now());
    assert!(condition(&snapshot, "InStep").message.contains("POLICY"));
    assert!(!condition(&snapshot, "Attached").ok);
    node.converge(now());
    assert_eq!(node.kernel().tables.policy.len(), goal.policy.len());
    assert_eq!(node.kernel().hooks.len(), 2);
    node.read_back(now());
    assert!(condition(&node.snapshot(now()), "InStep").ok);
}

#[test]
fn problems_come_and_go_without_a_revision() {
    let mut node = settled();
    let revision = node.snapshot(now()).status.revision;
    let problem = Problem {
        object: policy_key("deny"),
        field: "spec".to_owned(),
        message: "it is not understood".to_owned(),
    };
    node.take(Input::Change(Change::Bad(problem)), now());
    node.converge(now());
    let snapshot = node.snapshot(now());
    assert_eq!(snapshot.status.problem_count, 1);
    assert_eq!(snapshot.policies[0].problems.len(), 1, "it stands beside its policy");
    assert_eq!(snapshot.status.revision, revision);
    node.take(policy("deny", 80, 3), now());
    node.converge(now());
    let snapshot = node.snapshot(now());
    assert_eq!(snapshot.status.problem_count, 0);
    assert!(snapshot.policies[0].problems.is_empty());

    let problem =
        Problem { object: policy_key("odd"), field: String::new(), message: "never understood".to_owned() };
    node.take(Input::Change(Change::Bad(problem)), now());
    node.converge(now());
    let snapshot = node.snapshot(now());
    assert_eq!(snapshot.policies.len(), 2, "a policy that was never understood is listed with its problem");
}

#[tokio::test(start_paused = true)]
async fn the_loop_publishes_changes_and_ends_by_request() {
    let mut node = settled();
    let outputs = Outputs {
        publisher: Publisher::new(node.snapshot(now())),
        stats: watch::Sender::new(node.stats.clone()),
        unconfirmed: watch::Sender::default(),
    };
    let mut snapshots = outputs.publisher.subscribe();
    let (inputs, mut received) = mpsc::channel(16);
    let (stop, stopped) = oneshot::channel::<()>();
    let looped = async {
        run(&mut node, &mut received, &outputs, async {
            let _ = stopped.await;
        })
        .await
    };
    let test = async {
        // The first turn fills in what only the timers know.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let first = snapshots.borrow_and_update().status.revision;
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(!snapshots.has_changed().expect("open"), "a quiet minute changes nothing");

        inputs.send(policy("deny", 443, 3)).await.expect("the loop takes it");
        snapshots.changed().await.expect("open");
        assert_eq!(snapshots.borrow().status.revision, first + 1);
        stop.send(()).expect("the loop runs");
    };
    let (ended, ()) = tokio::join!(looped, test);
    ended.expect("ended by request");

    inputs.send(Input::Ended("the watch on interfaces ended".to_owned())).await.expect("there is room");
    let ended = run(&mut node, &mut received, &outputs, std::future::pending()).await;
    assert_eq!(ended.expect_err("it is half blind").to_string(), "the watch on interfaces ended");
    drop(inputs);
    let ended = run(&mut node, &mut received, &outputs, std::future::pending()).await;
    assert!(ended.expect_err("it is blind").to_string().contains("nobody watches"));
}

#[test]
fn a_program_before_ours_is_told_and_does_not_end_readiness() {
    let mut node = settled();
    node.kernel().hooks.insert(ifindex(1), Hook { kind: "clsact", first: false });
    node.read_back(now());
    node.converge(now());
    let snapshot = node.snapshot(now());
    assert!(condition(&snapshot, "FirstOnHook").message.contains("veth1"));
    assert!(snapshot.status.ready);
    assert_eq!(snapshot.endpoints[0].addresses, [address(1).to_string()]);
}

/// What stands before ours where packets leave the node may take the stamp off that they are judged by.
#[test]
fn a_program_before_ours_is_told_of_interfaces_that_are_no_pods_too() {
    let mut node = settled();
    let bridge = 1077;
    node.take(Input::Interfaces(BTreeSet::from([ifindex(1), ifindex(2), bridge])), now());
    node.converge(now());
    assert!(condition(&node.snapshot(now()), "FirstOnHook").ok);
    let behind = Hook { kind: "tcx", first: false };
    node.kernel().node_hooks.insert(bridge, behind);
    node.read_back(now());
    let told = condition(&node.snapshot(now()), "FirstOnHook");
    assert!(!told.ok && told.message.ends_with("on interface 1077"), "{told:?}");
    assert!(node.snapshot(now()).status.ready);
    node.take(Input::Interfaces(BTreeSet::from([ifindex(1), ifindex(2)])), now());
    assert!(condition(&node.snapshot(now()), "FirstOnHook").ok, "gone with its interface");
    // One that has become a pod's has its hooks, whatever is still there of the other program.
    node.kernel().node_hooks = BTreeMap::from([(ifindex(1), behind)]);
    node.read_back(now());
    assert!(condition(&node.snapshot(now()), "FirstOnHook").ok);
}
