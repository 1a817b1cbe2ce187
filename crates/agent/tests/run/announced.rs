//! What the CNI plugin waits for: that the live revision has its pod.

use cellwall_agent::chain::Chained;
use cellwall_agent::node::Node;
use cellwall_agent::node::confirm::Stored;
use cellwall_agent::run::Input;
use cellwall_api::v1alpha1::Endpoint;
use cellwall_kube::source::StoredPolicy;
use cellwall_policy::model::{Announced, Change, Kind, ObjectKey, Pod};

use crate::fake::FakeKernel;
use crate::objects::{address, ifindex, link, listed, node, now, pod, pod_gone, policy, policy_key};
use crate::{LATER, condition};

/// The pod as it is before the kubelet writes its status.
fn starting(n: u8) -> Input {
    let Input::Change(Change::Pod(mut pod)) = pod(n) else { unreachable!("a pod") };
    pod.addresses.clear();
    Input::Change(Change::Pod(pod))
}

fn announced(n: u8) -> Input {
    Input::Change(Change::Announced(Announced {
        pod: ObjectKey::namespaced(Kind::Pod, "default", &format!("p{n}")),
        uid: format!("uid-{n}"),
        interfaces: vec![(ifindex(n), format!("veth{n}"))],
        addresses: vec![address(n)],
    }))
}

/// What is answered of the pod's interface.
fn endpoint(node: &mut Node<FakeKernel>, n: u8) -> Endpoint {
    let snapshot = node.snapshot(now());
    snapshot.endpoints.iter().find(|endpoint| endpoint.ifindex == ifindex(n)).expect("it is listed").clone()
}

#[test]
fn a_pod_is_live_when_its_revision_is_written_and_not_before() {
    let mut node = node(FakeKernel::default());
    listed(&mut node);
    for input in [policy("deny", 80, 3), starting(1), link(1)] {
        node.take(input, now());
    }
    node.converge(now());
    let before = endpoint(&mut node, 1);
    assert_eq!((before.pod, before.live, before.attached), (None, true, true), "nobody's, and written so");

    node.kernel().writes_left = Some(0);
    node.take(announced(1), now());
    node.converge(now());
    let failed = endpoint(&mut node, 1);
    assert_eq!((failed.pod_uid.as_str(), failed.live), ("uid-1", false), "{failed:?}");
    node.kernel().writes_left = None;
    node.converge(now() + LATER);
    let healed = endpoint(&mut node, 1);
    assert!(healed.live && healed.attached, "{healed:?}");
    assert_eq!(healed.addresses, [address(1).to_string()]);
    assert_eq!(healed.ingress.expect("there").policies.len(), 1);

    let writes = node.kernel().writes.get();
    node.take(announced(1), now());
    node.take(pod(1), now());
    node.converge(now() + LATER);
    assert_eq!(node.kernel().writes.get(), writes, "asked again, and told by the status: nothing is new");
    assert!(endpoint(&mut node, 1).live);
}

/// A policy of the pods' namespace, as the API server has it.
fn stored(name: &str, port: u16) -> StoredPolicy {
    StoredPolicy { key: policy_key(name), uid: String::new(), generation: port.into() }
}

/// What the API server says of the namespace of all that is to be asked for.
fn answer(node: &Node<FakeKernel>, policies: Result<&[StoredPolicy], &str>) -> Input {
    let policies = policies.map(<[_]>::to_vec).map_err(str::to_owned);
    Input::Stored(Stored { pods: node.unconfirmed(), policies })
}

/// The watch on policies may be behind the one on pods.
#[test]
fn a_pod_waits_for_the_policies_that_were_there_before_it() {
    let mut node = node(FakeKernel::default()).with_confirmation();
    listed(&mut node);
    let mut take = |inputs: Vec<Input>| {
        for input in inputs {
            node.take(input, now());
        }
        node.converge(now() + LATER);
        let endpoint = endpoint(&mut node, 1);
        assert!(endpoint.live && endpoint.attached, "{endpoint:?}");
        (endpoint.unconfirmed, node.unconfirmed().len())
    };
    let (why, open) = take(vec![policy("old", 80, 1), starting(1), link(1), announced(1)]);
    assert!(why.contains("was not asked yet") && open == 1, "{why}");
    let one = || (ObjectKey::namespaced(Kind::Pod, "default", "p1"), "uid-1".to_owned());
    let said = |policies: Result<Vec<StoredPolicy>, &str>| {
        Input::Stored(Stored { pods: [one()].into(), policies: policies.map_err(str::to_owned) })
    };
    let (why, open) = take(vec![said(Err("it is away"))]);
    assert!(why.contains("it is away") && open == 1, "{why}");
    let (why, open) =
        take(vec![said(Ok(vec![stored("old", 80), stored("late", 81), stored("deleted", 82)]))]);
    assert!(why.contains("default/late, ") && why.contains("default/deleted") && open == 1, "{why}");
    // An earlier version of it does not count, nor does one of that name that was there before.
    let Input::Change(Change::Policy(mut before, _)) = policy("late", 99, 1) else { unreachable!() };
    before.uid = "of the one before".to_owned();
    for earlier in [policy("late", 80, 1), Input::Change(Change::Policy(before, Vec::new()))] {
        let (why, _) = take(vec![earlier]);
        assert!(why.contains("default/late"), "{why}");
    }
    let (why, _) = take(vec![policy("late", 81, 1)]);
    assert!(!why.contains("default/late") && why.contains("default/deleted"), "{why}");
    // Asked again: what is not there any more never comes, and what came since is not what was there before.
    assert_eq!(
        take(vec![said(Ok(vec![stored("old", 80), stored("late", 83), stored("new", 84)]))]),
        (String::new(), 0)
    );
    // The same pod is not asked for twice.
    assert_eq!(take(vec![pod(1)]), (String::new(), 0));
}

/// What is heard of and could not be written is not in force.
#[test]
fn a_policy_that_could_not_be_written_confirms_nothing() {
    let mut node = node(FakeKernel::default()).with_confirmation();
    listed(&mut node);
    for input in [starting(1), link(1), announced(1)] {
        node.take(input, now());
    }
    node.converge(now());
    node.kernel().writes_left = Some(0);
    node.take(answer(&node, Ok(&[stored("deny", 80)])), now());
    node.take(policy("deny", 80, 3), now());
    node.converge(now());
    assert_ne!(endpoint(&mut node, 1).unconfirmed, "");
    node.kernel().writes_left = None;
    node.converge(now() + LATER);
    assert_eq!(endpoint(&mut node, 1).unconfirmed, "");
}

#[test]
fn it_is_asked_for_pods_of_this_node_and_again_for_a_later_one_of_the_name() {
    let mut node = node(FakeKernel::default()).with_confirmation();
    listed(&mut node);
    let pod_with = |change: &dyn Fn(&mut Pod)| {
        let Input::Change(Change::Pod(mut pod)) = starting(1) else { unreachable!("a pod") };
        change(&mut pod);
        Input::Change(Change::Pod(pod))
    };
    let mut open = |input: Input| {
        node.take(input, now());
        node.converge(now() + LATER);
        node.unconfirmed().into_iter().map(|(_, uid)| uid).collect::<Vec<_>>()
    };
    assert!(open(pod_with(&|pod| pod.node = String::new())).is_empty());
    assert_eq!(open(starting(1)), ["uid-1"], "scheduled");
    assert_eq!(open(pod_with(&|pod| pod.uid = "later".to_owned())), ["later"]);
    assert!(open(pod_gone(1)).is_empty());
    assert!(open(pod_with(&|pod| pod.host_network = true)).is_empty());
    assert_eq!(open(starting(1)), ["uid-1"]);
    let earlier = Stored {
        pods: [(ObjectKey::namespaced(Kind::Pod, "default", "p1"), "later".to_owned())].into(),
        policies: Ok(Vec::new()),
    };
    assert_eq!(open(Input::Stored(earlier)), ["uid-1"], "asked for the one before");
    assert!(open(Input::Change(Change::Listed(Kind::Pod, Vec::new()))).is_empty());
}

#[test]
fn the_place_of_the_plugin_is_a_condition() {
    let mut node = node(FakeKernel::default());
    listed(&mut node);
    node.converge(now());
    let mut chained = |chained| {
        node.take(Input::Chained(chained), now());
        let snapshot = node.snapshot(now());
        let found = condition(&snapshot, "Chained");
        (found.ok, found.reason, found.message, snapshot.status.ready)
    };
    let words = |ok, reason: &str, message: &str| (ok, reason.to_owned(), message.to_owned(), true);
    assert_eq!(chained(Chained::NotAsked), words(true, "NotAsked", ""));
    assert_eq!(chained(Chained::Out("why".to_owned())), words(false, "NotChained", "why"));
    assert_eq!(chained(Chained::In("/etc/cni/net.d/10-x.conflist".into())), words(true, "Chained", ""));
}
