//! What the CNI plugin waits for: that the live revision has its pod.

use cellwall_agent::chain::Chained;
use cellwall_agent::node::Node;
use cellwall_agent::run::Input;
use cellwall_api::v1alpha1::Endpoint;
use cellwall_policy::model::{Announced, Change, Kind, ObjectKey};

use crate::fake::FakeKernel;
use crate::objects::{address, ifindex, link, listed, node, now, pod, policy};
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
