//! How a pod starts: the plugin as the runtime would run it, on the node, before a real agent.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread::{self, JoinHandle};

use cellwall_api::client::Client;
use cellwall_api::v1alpha1::{Endpoint, NodeStatus};
use cellwall_cni::command::{self, Answer};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::health::get;
use crate::place::{Agent, Place};
use crate::{POLICY, condition};

const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp"}]}"#;
const PREVIOUS: &str = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"veth0"},{"name":"eth0","sandbox":"/run/netns/x"}],"ips":[{"address":"10.9.0.2/32","interface":1}]}"#;
/// Namespace and node, and no pod.
const NO_PODS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
";
/// The pod as it is before the kubelet writes its status.
const STARTING: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, uid: 5b3c, labels: {app: web}}
spec: {nodeName: n1}
";

/// An agent that keeps the plugin in a configuration, on a node whose pod is about to start and waits so many seconds.
fn start(place: &Place, timeout_s: &str) -> Agent {
    let folder = place.folder().join("net.d");
    if !folder.exists() {
        fs::create_dir(&folder).expect("the folder is ours");
        fs::write(folder.join("10-pods.conflist"), LIST).expect("the folder is ours");
    }
    let folder = folder.display().to_string();
    place.agent(&["--cni-conf-dir", &folder, "--cni-timeout", timeout_s])
}

/// ADD for the pod, with the entry that stands in the configuration, in the network namespace of the node.
fn add(place: &Place) -> JoinHandle<Answer> {
    let list = fs::read_to_string(place.folder().join("net.d/10-pods.conflist")).expect("there");
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let mut entry = list["plugins"].as_array().and_then(|plugins| plugins.last()).expect("ours").clone();
    entry["cniVersion"] = list["cniVersion"].clone();
    entry["prevResult"] = serde_json::from_str(PREVIOUS).expect("JSON");
    let node = Path::new("/run/netns").join(&place.name);
    thread::spawn(move || {
        // Interfaces are those of the thread that asks.
        let node = File::open(node).expect("the namespace is there");
        move_into_link_name_space(node.as_fd(), Some(LinkNameSpaceType::Network)).expect("root");
        command::run(entry.to_string().as_bytes(), |name| {
            let value = match name {
                "CNI_COMMAND" => "ADD",
                "CNI_ARGS" => "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=5b3c",
                _ => return None,
            };
            Some(OsString::from(value))
        })
    })
}

async fn endpoints(place: &Place) -> Vec<Endpoint> {
    Client::connect(&place.socket()).await.expect("listens").endpoints("shop").await.expect("answers")
}

fn is_chained(status: &NodeStatus) -> bool {
    status.ready && status.conditions.iter().any(|c| c.r#type == "Chained" && c.reason == "Chained")
}

#[tokio::test]
async fn a_pod_starts_when_its_policies_are_in_the_kernel() {
    let Some(place) = Place::new() else { return };
    place.write("objects.yaml", NO_PODS);
    place.write("policy.yaml", POLICY);
    let agent = start(&place, "50");
    place.status("ready, and in the configuration", is_chained).await;
    assert!(!place.sends(), "nobody knows whose interface it is, so nothing passes");

    // The API server's word comes late.
    let added = add(&place);
    place.status("seen", |s| s.links.len() == 1).await;
    assert!(!added.is_finished(), "the pod is not known");
    place.write("pod.yaml", STARTING);
    let answer = added.join().expect("no panic");
    assert!(!answer.failed, "{answer:?}\n{}", place.log());
    let endpoint = endpoints(&place).await.pop().expect("known at this very moment");
    assert!(endpoint.live && endpoint.attached, "{endpoint:?}");
    assert_eq!((endpoint.pod_uid.as_str(), endpoint.addresses), ("5b3c", vec!["10.9.0.2".to_owned()]));
    assert_eq!(endpoint.egress.expect("there").policies.len(), 1);
    assert!(!place.sends());

    fs::remove_file(place.manifests().join("policy.yaml")).expect("ours");
    place.status("without the policy", |s| s.ready && s.policy_count == 0).await;
    assert!(place.sends(), "it is known by its addresses\n{}", place.log());

    // The kubelet has not written its status yet, and nobody announces it a second time.
    place.write("policy.yaml", POLICY);
    let before = place.status("with the policy", |s| s.ready && s.policy_count == 1).await;
    drop(agent);
    let _agent = start(&place, "50");
    let after = place.status("ready again", |s| s.ready && s.endpoint_count == 1).await;
    assert_eq!(after.revision, before.revision, "{}", place.log());
    assert_eq!(endpoints(&place).await.len(), 1, "the pod is not forgotten");
}

#[tokio::test]
async fn a_pod_that_nobody_knows_does_not_start() {
    let Some(place) = Place::new() else { return };
    place.write("objects.yaml", NO_PODS);
    let _agent = start(&place, "1");
    let ready = place.status("ready, and in the configuration", is_chained).await;
    assert_eq!(condition(&ready, "Chained"), "");
    let answer = add(&place).join().expect("no panic");
    assert!(answer.failed && answer.text.contains("\"code\":11"), "{answer:?}");
    assert!(answer.text.contains("has not told the agent of this pod"), "{answer:?}");
}

#[tokio::test]
async fn a_disabled_node_lets_go_of_everything_until_it_is_enabled() {
    let Some(place) = Place::new() else { return };
    place.write("policy.yaml", POLICY);
    let file = place.folder().join("net.d/cellwall.disabled");
    let agent = start(&place, "50");
    place.status("ready, and in the configuration", is_chained).await;
    assert!(!place.sends());

    // As `cellwall node disable` does, which has tests of its own.
    fs::write(&file, "").expect("ours");
    place.gone(&place.socket());
    let settings = cellwall_datapath::Settings {
        bpffs: place.bpffs(),
        pin_name: place.name.clone(),
        wait: Some(std::time::Duration::from_mins(1)),
        ..cellwall_datapath::Settings::default()
    };
    let node = Path::new("/run/netns").join(&place.name);
    let removed = thread::spawn(move || {
        let node = File::open(node).expect("the namespace is there");
        move_into_link_name_space(node.as_fd(), Some(LinkNameSpaceType::Network)).expect("root");
        cellwall_datapath::remove(&settings).expect("the agent lets go")
    });
    assert!(removed.join().expect("no panic").interfaces >= 1);
    assert!(place.sends(), "{}", place.log());
    assert!(!place.socket().exists(), "it does nothing");
    assert_eq!(get(&place, "/livez").0, 200, "nobody has to start it again");
    let (code, why) = get(&place, "/readyz");
    assert!(code == 503 && why.contains("`cellwall node enable`"), "{code}: {why}");

    fs::remove_file(&file).expect("ours");
    place.status("ready again", |s| s.ready && s.endpoint_count == 1).await;
    assert!(!place.sends(), "{}", place.log());
    agent.stop();
}
