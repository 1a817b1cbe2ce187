//! What the agent reads objects with, over a real API server: what it says is printed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use cellwall_kube::source::{SourceEvent, api, client};
use cellwall_policy::model::{Change, Kind};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;

use crate::Node;

/// A list of a large cluster takes a while.
const LONG: Duration = Duration::from_mins(2);

#[test]
fn a_real_api_server_lists_every_kind_and_tells_what_is_new() {
    let Some(node) = Node::take() else { return };
    let node = node.as_ref().expect("just made");
    let kubeconfig = node.cluster.folder().join("kubeconfig");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let read = read(&kubeconfig, || drop(node.kubectl("create namespace fresh", "")));
    // Its sockets are made on the thread that it runs on.
    let (listed, unserved) = node.cluster.on_node(|| runtime.block_on(read)).expect("the node's network");
    node.kubectl("delete namespace fresh --wait=false", "");

    for object in [
        "Namespace kube-system",
        "Node node-1",
        "Service default/kubernetes",
        "EndpointSlice default/kubernetes",
    ] {
        assert!(listed.contains(object), "{object}: {listed:?}");
    }
    assert_eq!(unserved, [Kind::ClusterNetworkPolicy]);
}

/// All that is listed, and the kinds that are not served. When all are there it does what makes the namespace `fresh`,
/// and waits for it.
async fn read(kubeconfig: &Path, make: impl FnOnce()) -> (BTreeSet<String>, Vec<Kind>) {
    let client = client(Some(kubeconfig), None).await.expect("the kubeconfig is usable");
    let (sender, mut events) = channel(64);
    let source = tokio::spawn(api(client, sender));
    let mut missing = BTreeSet::from(Kind::ALL);
    let (mut listed, mut unserved) = (BTreeSet::new(), Vec::new());
    while !missing.is_empty() {
        match next(&mut events).await {
            SourceEvent::Change(Change::Listed(kind, keys)) => {
                missing.remove(&kind);
                listed.extend(keys.iter().map(ToString::to_string));
            }
            SourceEvent::NotServed(kind) => {
                missing.remove(&kind);
                unserved.push(kind);
            }
            _ => {}
        }
    }
    make();
    let is_fresh =
        |event: &SourceEvent| matches!(event, SourceEvent::Change(Change::Namespace(n)) if n.name == "fresh");
    while !is_fresh(&next(&mut events).await) {}
    source.abort();
    (listed, unserved)
}

async fn next(events: &mut Receiver<SourceEvent>) -> SourceEvent {
    let event = timeout(LONG, events.recv()).await.expect("it answers").expect("it never ends by itself");
    println!("{event:?}");
    assert!(!matches!(event, SourceEvent::Failed(..)), "{event:?}");
    event
}
