//! The agent itself on the real kernel: in a network namespace of its own, with pins of its own, over a folder of
//! manifests. Needs root and a BPF file system.

mod health;
mod place;
mod said;
mod start;

use std::fs;

use cellwall_api::client::Client;
use cellwall_api::v1alpha1::{NodeStatus, ObjectReference};
use cellwall_datapath::Settings;
use place::{Place, ip};

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
";

#[tokio::test]
async fn a_policy_in_a_folder_becomes_a_revision_that_outlives_the_agent() {
    let Some(place) = Place::new() else { return };
    let agent = place.agent(&[]);
    let ready = place.status("ready with one pod", |s| s.ready && s.endpoint_count == 1).await;
    assert_eq!(ready.links.len(), 1, "{ready:?}");
    assert_eq!(ready.links[0].name, "veth0");
    assert!(!ready.links[0].hook.is_empty());
    let counted = |s: &NodeStatus| s.tables.iter().any(|table| table.name == "ENDPOINTS" && table.used == 1);
    place.status("counted", counted).await;
    assert!(place.reaches(), "{}", place.log());

    place.write("policy.yaml", POLICY);
    let denied = place.status("a new revision", |s| s.ready && s.policy_count == 1).await;
    assert!(denied.revision > ready.revision);
    let endpoints =
        Client::connect(&place.socket()).await.expect("listens").endpoints("shop").await.expect("answers");
    assert_eq!(endpoints.len(), 1);
    assert!(endpoints[0].attached);
    assert!(
        endpoints[0].ingress.as_ref().is_some_and(|ingress| ingress.isolated && ingress.policies.len() == 1)
    );
    assert!(place.reaches(), "the pod's own node may always reach it");

    agent.stop();
    assert!(!place.socket().exists(), "it removes its socket");
    let agent = place.agent(&[]);
    let adopted = place.status("ready again", |s| s.ready).await;
    assert_eq!(adopted.revision, denied.revision, "an agent that finds what it wants writes nothing");
    assert_eq!(adopted.counters.is_empty(), denied.counters.is_empty());

    ip(&format!("-n {} link delete veth0", place.name));
    let gone = place.status("without the interface", |s| s.endpoint_count == 0).await;
    assert_eq!(gone.unplaced_pods.len(), 1, "its pod is named: {gone:?}");
    drop(agent);
}

fn condition<'a>(status: &'a NodeStatus, name: &str) -> &'a str {
    status.conditions.iter().find(|c| c.r#type == name).map_or("", |condition| &condition.message)
}

#[tokio::test]
async fn a_folder_that_is_missing_is_named_and_one_that_is_empty_is_a_cluster_of_nothing() {
    let Some(place) = Place::new() else { return };
    fs::remove_dir_all(place.manifests()).expect("it is ours");
    let agent = place.agent(&[]);
    let path = place.manifests().display().to_string();
    let waiting = place.status("named", |s| condition(s, "SourcesListed").contains(&path)).await;
    assert!(!waiting.ready);
    assert_eq!(waiting.revision, 0, "nothing is written before everything is listed");
    fs::create_dir(place.manifests()).expect("it is ours");
    let ready = place.status("ready", |s| s.ready).await;
    assert_eq!(ready.policy_count, 0);
    assert!(ready.problems.iter().any(|p| p.message.contains("no manifest")), "it is said: {ready:?}");
    agent.stop();
}

#[tokio::test]
async fn two_pods_with_one_address_are_named_and_their_interface_is_nobodys() {
    let Some(place) = Place::new() else { return };
    let other = "
apiVersion: v1
kind: Pod
metadata: {name: twin, namespace: shop, uid: 77aa, labels: {app: twin}}
spec: {nodeName: n1}
status: {phase: Running, podIP: 10.9.0.2, podIPs: [{ip: 10.9.0.2}]}
";
    let agent = place.agent(&[]);
    let ready = place.status("ready with one pod", |s| s.ready && s.endpoint_count == 1).await;
    assert!(place.sends(), "{}", place.log());
    place.write("twin.yaml", other);
    let says = |s: &NodeStatus, what| s.problems.iter().any(|problem| problem.message.contains(what));
    let named = |s: &NodeStatus| says(s, "10.9.0.2") && says(s, "interface veth0");
    let status = place.status("named", |s| s.ready && s.revision > ready.revision && named(s)).await;
    assert_eq!(status.unplaced_pods.len(), 2, "{status:?}");
    assert!(!place.sends(), "nobody knows who it is");
    // What the message says to do.
    fs::remove_file(place.manifests().join("twin.yaml")).expect("it is ours");
    place.status("one again", |s| s.ready && s.unplaced_pods.is_empty() && !named(s)).await;
    assert!(place.sends(), "{}", place.log());
    agent.stop();
}

#[tokio::test]
async fn what_does_not_fit_is_left_out_and_the_policy_is_named() {
    let Some(place) = Place::new() else { return };
    let agent = place.agent(&["--capacity-policy", "64", "--capacity-prefixes", "64"]);
    place.write("policy.yaml", POLICY);
    let before = place.status("a policy in force", |s| s.ready && s.policy_count == 1).await;
    place.write("elsewhere.yaml", &blocks("elsewhere", "matchLabels: {app: nobody}", 250));
    place.write("huge.yaml", &blocks("huge", "", 200));
    let of_huge = |s: &NodeStatus| {
        let is_its = |o: &ObjectReference| (o.namespace.as_str(), o.name.as_str()) == ("shop", "huge");
        s.problems.iter().find(|p| p.object.as_ref().is_some_and(is_its)).map(|p| p.message.clone())
    };
    let named =
        place.status("named", |s| of_huge(s).is_some_and(|m| m.contains("200 of them by this"))).await;
    assert!(named.ready, "the rest is enforced");
    assert_eq!(named.revision, before.revision, "its pod is isolated already, and nothing more is let in");
    fs::remove_file(place.manifests().join("huge.yaml")).expect("it is ours");
    place.status("nothing is left out", |s| s.ready && of_huge(s).is_none()).await;

    // What the message says, done as the help says: by what `cellwall node cleanup` calls.
    let message = of_huge(&named).expect("it was named");
    let setting: Vec<&str> = message.split(' ').skip_while(|word| !word.starts_with("--")).take(2).collect();
    assert_eq!(setting[0], "--capacity-prefixes", "{message}");
    place.write("huge.yaml", &blocks("huge", "", 200));
    agent.stop();
    let settings = Settings { bpffs: place.bpffs(), pin_name: place.name.clone(), ..Settings::default() };
    cellwall_datapath::remove(&settings).expect("nobody uses it");
    let agent = place.agent(&[&["--capacity-policy", "64"], &setting[..]].concat());
    let is_whole = |s: &NodeStatus| s.ready && s.policy_count == 3 && of_huge(s).is_none();
    place.status("ready with all of it", is_whole).await;
    agent.stop();
}

/// A policy that lets in `many` addresses.
fn blocks(name: &str, selector: &str, many: u8) -> String {
    let block = |n| format!("    - ipBlock: {{cidr: 192.0.2.{n}/32}}");
    let blocks = (0..many).map(block).collect::<Vec<_>>().join("\n");
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         podSelector: {{{selector}}}\n  ingress:\n  - from:\n{blocks}"
    )
}

#[tokio::test]
async fn a_node_is_audited_by_a_flag() {
    let Some(place) = Place::new() else { return };
    place.write("policy.yaml", POLICY);
    for (flag, audit) in [("audit", true), ("enforce", false)] {
        let agent = place.agent(&["--enforcement", flag]);
        let told = |s: &NodeStatus| s.ready && s.audit == audit && s.endpoint_count == 1;
        place.status(flag, told).await;
        let mut client = Client::connect(&place.socket()).await.expect("listens");
        assert_eq!(client.endpoints("shop").await.expect("answers")[0].audit, audit);
        agent.stop();
    }
}

#[tokio::test]
async fn an_agent_that_starts_while_the_api_is_away_leaves_what_is_in_force() {
    let Some(place) = Place::new() else { return };
    place.write("policy.yaml", POLICY);
    let agent = place.agent(&[]);
    let before = place.status("a policy in force", |s| s.ready && s.policy_count == 1).await;
    agent.stop();
    let config = place.dead_api();
    let agent = place.agent(&["--source", "api", "--kubeconfig", &config]);
    let refused = |s: &NodeStatus| condition(s, "SourcesListed").matches("Connection refused").count() == 7;
    let away = place.status("without an API, every kind named", refused).await;
    assert!(!away.ready);
    assert_eq!(away.revision, before.revision);
    let hooks = |s: &NodeStatus| s.links.iter().filter(|link| !link.hook.is_empty()).count();
    place.status("still attached", |s| hooks(s) == hooks(&before)).await;
    assert!(place.reaches());
    agent.stop();
    let _agent = place.agent(&[]);
    let back = place.status("ready again", |s| s.ready).await;
    assert_eq!(back.revision, before.revision, "nothing had to be written");
}

/// Each says what is wrong and what to do, and ends with the code that the help promises.
#[tokio::test]
async fn what_cannot_start_says_why_and_ends_with_1() {
    let Some(place) = Place::new() else { return };
    let nothing = place.manifests().display().to_string();
    assert_eq!(place.agent(&["--bpffs", &nothing]).ends(), Some(1));
    assert!(place.log().contains("is not a BPF file system; mount one: mount -t bpf bpf"), "{}", place.log());

    assert_eq!(place.agent(&["--source", "api", "--kubeconfig", "/nonexistent/config"]).ends(), Some(1));
    assert!(place.log().contains("cannot use the kubeconfig /nonexistent/config"), "{}", place.log());

    let first = place.agent(&[]);
    place.status("ready", |s| s.ready).await;
    assert!(place.log().contains("the tables take"), "{}", place.log());
    assert_eq!(place.agent(&[]).ends(), Some(1));
    assert!(place.log().contains("another agent holds"), "{}", place.log());
    place.status("still ready", |s| s.ready).await;
    first.stop();

    assert_eq!(place.agent(&["--capacity-policy", "8192"]).ends(), Some(1));
    assert!(
        place.log().contains("the pinned table POLICY has capacity 4096 and 8192 is needed"),
        "{}",
        place.log()
    );
    assert_eq!(place.agent(&["--capacity-policy", "1"]).ends(), Some(2), "the command line is wrong");
}

/// What is in force may be what cannot be read any more: an agent that starts over pins leaves it until it can be.
#[tokio::test]
async fn an_agent_that_cannot_read_what_was_enforced_leaves_it_in_force() {
    let Some(place) = Place::new() else { return };
    place.write("policy.yaml", POLICY);
    let agent = place.agent(&[]);
    let enforced = place.status("enforced", |s| s.ready && s.policy_count == 1).await;
    agent.stop();

    place.write("policy.yaml", "kind: NetworkPolicy\nspec: ]\n");
    let agent = place.agent(&[]);
    let named = |s: &NodeStatus| condition(s, "Enforcing").contains("policy.yaml: cannot be parsed");
    let waiting = place.status("named", named).await;
    assert!(!waiting.ready);
    assert_eq!(waiting.revision, enforced.revision, "what the earlier agent left is in force");
    agent.stop();

    for file in ["policy.yaml", "objects.yaml"] {
        fs::rename(place.manifests().join(file), place.manifests().join(format!("{file}.aside")))
            .expect("ours");
    }
    let agent = place.agent(&[]);
    let waiting = place.status("named", |s| condition(s, "Enforcing").contains("has no manifest")).await;
    assert_eq!(waiting.revision, enforced.revision, "an empty folder lifts nothing either");
    place.write("policy.yaml", POLICY);
    fs::rename(place.manifests().join("objects.yaml.aside"), place.manifests().join("objects.yaml"))
        .expect("ours");
    let again = place.status("enforced again", |s| s.ready && s.policy_count == 1).await;
    assert_eq!(again.endpoint_count, enforced.endpoint_count);
    agent.stop();

    // Half understood is enough to isolate.
    place.write("policy.yaml", &POLICY.replace("[Ingress, Egress]", "Ingress"));
    let agent = place.agent(&[]);
    place.status("named and enforced", |s| s.ready && s.policy_count == 1 && s.problems.len() == 1).await;
    let endpoints =
        Client::connect(&place.socket()).await.expect("listens").endpoints("shop").await.expect("answers");
    let isolated = |side: &Option<cellwall_api::v1alpha1::EndpointDirection>| {
        side.as_ref().is_some_and(|side| side.isolated)
    };
    assert!(isolated(&endpoints[0].ingress) && isolated(&endpoints[0].egress), "{endpoints:?}");
    agent.stop();
}
