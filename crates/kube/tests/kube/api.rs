//! The source over an API server that says what a script says. The clock is stopped: delays cost nothing and are
//! seen all the same.

use std::time::Duration;

use crate::common::line;
use crate::server::{Answer, Server, list, page, status, watch};
use cellwall_kube::source::{SourceEvent, StoredPolicy, api, policies_of};
use cellwall_policy::model::{Change, Kind, ObjectKey};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What the source says of one kind over this script, until there are `count` lines, and what it asked for.
async fn told(kind: Kind, script: Vec<Answer>, count: usize) -> (Vec<String>, Vec<String>) {
    let server = Server::start(kind, script);
    let (sender, mut events) = mpsc::channel(4);
    let source = tokio::spawn(api(server.client.clone(), sender));
    let mut lines = Vec::new();
    while lines.len() < count {
        let event = events.recv().await.expect("the source never ends by itself");
        if crate::server::kind(&event) == kind {
            lines.push(line(&event));
        }
    }
    drop(events);
    source.await.expect("it does not panic").expect_err("nobody listens any more");
    (lines, server.asked())
}

fn pod(name: &str, version: u64) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop", "resourceVersion": version.to_string()}})
}

fn event(what: &str, object: &Value) -> Value {
    json!({"type": what, "object": object})
}

fn bookmark(version: u64) -> Value {
    event(
        "BOOKMARK",
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"resourceVersion": version.to_string()}}),
    )
}

#[tokio::test(start_paused = true)]
async fn pages_are_listed_and_then_watched_from_where_they_were() {
    let script = vec![
        page("7", "more", &[pod("a", 1), pod("b", 2)]),
        page("7", "", &[pod("c", 3)]),
        watch(&[
            event("ADDED", &pod("d", 8)),
            event("MODIFIED", &pod("a", 9)),
            event("DELETED", &pod("b", 10)),
            bookmark(20),
        ])
        .ends(),
        watch(&[event("ADDED", &pod("e", 21))]),
    ];
    let (lines, asked) = told(Kind::Pod, script, 11).await;
    assert_eq!(
        lines,
        [
            "pod shop/a",
            "pod shop/b",
            "pod shop/c",
            "listed Pod: shop/a shop/b shop/c",
            "current Pod",
            "pod shop/d",
            "pod shop/a",
            "gone Pod shop/b",
            "current Pod",
            "current Pod",
            "pod shop/e",
        ]
    );
    let wanted = [
        "list limit=500",
        "list limit=500 continue=more",
        "watch from 7 with bookmarks",
        "watch from 20 with bookmarks",
    ];
    assert_eq!(asked[..4], wanted);
}

/// Whoever has taken a version has taken all that was there at it.
#[tokio::test(start_paused = true)]
async fn versions_of_policies_come_behind_what_they_tell_of() {
    let policy = |version: u64| {
        let meta = json!({"name": "db", "namespace": "shop", "resourceVersion": version.to_string()});
        json!({"metadata": meta, "spec": {"podSelector": {}}})
    };
    let script = vec![
        list("7", &[policy(1)]),
        watch(&[event("MODIFIED", &policy(8)), bookmark(20), event("DELETED", &policy(21))]),
    ];
    let (lines, _) = told(Kind::NetworkPolicy, script, 9).await;
    let told: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(told[1..3], ["listed NetworkPolicy: shop/db", "version NetworkPolicy 7"]);
    assert_eq!(
        told[5..],
        [
            "version NetworkPolicy 8",
            "current NetworkPolicy",
            "gone NetworkPolicy shop/db",
            "version NetworkPolicy 21"
        ]
    );
}

/// A watch that fell too far behind is listed again, and the list says what has gone meanwhile.
#[tokio::test(start_paused = true)]
async fn gone_means_listed_again_with_what_was_deleted() {
    let gone = json!({"kind": "Status", "status": "Failure", "reason": "Expired", "message": "too old resource version: 7", "code": 410});
    let script = vec![
        list("7", &[pod("a", 1), pod("b", 2)]),
        watch(&[event("ERROR", &gone)]),
        list("90", &[pod("b", 2)]),
        watch(&[]),
    ];
    let (lines, asked) = told(Kind::Pod, script, 8).await;
    assert_eq!(
        lines[3..],
        [
            "current Pod",
            "failed Pod: too old resource version: 7 (410)",
            "pod shop/b",
            "listed Pod: shop/b",
            "current Pod",
        ]
    );
    assert_eq!(asked[2..4], ["list limit=500", "watch from 90 with bookmarks"]);
}

/// Some proxies and old servers say it to the request itself.
#[tokio::test(start_paused = true)]
async fn gone_as_an_answer_is_no_endless_loop() {
    let script = vec![
        list("7", &[]),
        status(410, "too old resource version: 7"),
        list("90", &[pod("b", 2)]),
        watch(&[]),
    ];
    let (lines, _) = told(Kind::Pod, script, 5).await;
    assert_eq!(lines[1], "failed Pod: too old resource version: 7 (410)");
    assert_eq!(lines[3..], ["listed Pod: shop/b", "current Pod"]);
}

#[tokio::test(start_paused = true)]
async fn a_bad_object_costs_itself_and_nothing_else() {
    let mut bad = pod("bad", 2);
    bad["metadata"]["labels"] = json!(["no", "map"]);
    let mut worse = pod("worse", 9);
    worse["spec"] = json!("none");
    let script = vec![
        list("7", &[pod("a", 1), bad, json!(7), json!({"metadata": {}}), pod("c", 3)]),
        watch(&[event("MODIFIED", &worse), event("ADDED", &pod("d", 10))]),
    ];
    let (lines, _) = told(Kind::Pod, script, 7).await;
    assert_eq!(lines[0], "pod shop/a");
    assert!(lines[1].starts_with("bad Pod shop/bad: cannot be read"), "{lines:?}");
    // It is there: its last version stays.
    assert_eq!(lines[2..5], ["pod shop/c", "listed Pod: shop/a shop/bad shop/c", "current Pod"]);
    assert!(lines[5].starts_with("bad Pod shop/worse: cannot be read"), "{lines:?}");
    assert_eq!(lines[6], "pod shop/d");
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_is_named_and_tried_again() {
    let forbidden = r#"pods is forbidden: User "agent" cannot list resource "pods""#;
    let script = vec![status(403, forbidden), status(403, forbidden), list("7", &[]), watch(&[])];
    let (lines, _) = told(Kind::Pod, script, 4).await;
    let wanted = format!(
        "failed Pod: the agent has not the right to do this (403): {forbidden}; its role needs list and watch on pods"
    );
    assert_eq!(lines, [&wanted, &wanted, "listed Pod: ", "current Pod"]);
}

/// A right that is taken away, or a server that is busy, leaves the watch where it was: nothing is listed again.
#[tokio::test(start_paused = true)]
async fn a_watch_that_is_refused_goes_on_from_where_it_was() {
    for code in [401, 403, 429, 500, 503] {
        let script = vec![list("7", &[]), status(code, "no"), watch(&[bookmark(9)])];
        let (lines, asked) = told(Kind::Pod, script, 4).await;
        assert!(lines[1].starts_with("failed Pod: "), "{lines:?}");
        assert_eq!(lines[2..], ["current Pod", "current Pod"], "{code}");
        assert_eq!(asked[1..3], ["watch from 7 with bookmarks", "watch from 7 with bookmarks"], "{code}");
    }
}

/// The wrong address must not mean that there are no pods.
#[tokio::test(start_paused = true)]
async fn a_kind_that_every_cluster_has_is_never_taken_for_missing() {
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::ClusterNetworkPolicy) {
        let script = vec![status(404, "page not found"), list("7", &[]), watch(&[])];
        let (lines, _) = told(kind, script, 2).await;
        assert_eq!(lines[0], format!("failed {}: page not found (404)", kind.name()));
        assert_eq!(lines[1], format!("listed {}: ", kind.name()));
    }
}

#[tokio::test(start_paused = true)]
async fn an_add_on_is_watched_when_it_appears_and_gone_when_it_disappears() {
    let served = Answer::json(
        200,
        json!({"kind": "APIResourceList", "groupVersion": "policy.networking.k8s.io/v1alpha2", "resources": [
            {"name": "clusternetworkpolicies", "singularName": "", "namespaced": false, "kind": "ClusterNetworkPolicy", "verbs": ["list", "watch"]},
        ]}),
    );
    let without = json!({"kind": "APIResourceList", "groupVersion": "policy.networking.k8s.io/v1alpha2", "resources": []});
    let script = vec![
        status(404, "page not found"),
        Answer::json(200, without),
        served,
        list("7", &[]),
        watch(&[]).ends(),
        status(404, "page not found"),
        status(404, "page not found"),
    ];
    let (lines, asked) = told(Kind::ClusterNetworkPolicy, script, 6).await;
    assert_eq!(
        lines,
        [
            "not served ClusterNetworkPolicy",
            "not served ClusterNetworkPolicy",
            "listed ClusterNetworkPolicy: ",
            "current ClusterNetworkPolicy",
            "failed ClusterNetworkPolicy: the API server ended the watch at once",
            "failed ClusterNetworkPolicy: page not found (404)",
        ]
    );
    assert_eq!(asked[..3], ["discovery"; 3]);
}

/// What discovery itself says wrong is not an absence.
#[tokio::test(start_paused = true)]
async fn a_failed_discovery_is_a_failure() {
    let script = vec![status(403, "no"), status(500, "oh"), status(404, "page not found")];
    let (lines, _) = told(Kind::ClusterNetworkPolicy, script, 3).await;
    assert!(lines[0].starts_with("failed ") && lines[1].starts_with("failed "), "{lines:?}");
    assert_eq!(lines[2], "not served ClusterNetworkPolicy");
}

/// A dead connection that nobody closes.
#[tokio::test(start_paused = true)]
async fn silence_is_noticed() {
    let start = Instant::now();
    let script = vec![list("7", &[]), watch(&[bookmark(8)]), watch(&[])];
    let (lines, asked) = told(Kind::Pod, script, 5).await;
    assert_eq!(lines[3..], ["failed Pod: the API server said nothing for 70 s", "current Pod"]);
    assert_eq!(asked[2], "watch from 8 with bookmarks");
    assert!(start.elapsed() < Duration::from_secs(75), "{:?}", start.elapsed());
}

/// Half of an event is no event.
#[tokio::test(start_paused = true)]
async fn a_line_that_cannot_be_read_means_listed_again() {
    let script = vec![
        list("7", &[pod("a", 1)]),
        Answer::raw("{\"type\": \"DELETED\", \"object\": oops}\n"),
        list("9", &[]),
        watch(&[]),
    ];
    let (lines, _) = told(Kind::Pod, script, 6).await;
    assert!(lines[3].starts_with("failed Pod: "), "{lines:?}");
    assert_eq!(lines[4..], ["listed Pod: ", "current Pod"]);
}

/// The delays between failures grow, and stay bounded.
#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_down_is_not_stormed() {
    let start = Instant::now();
    let script = (0..8).map(|_| Answer::Refused).chain([list("7", &[])]).collect();
    let (lines, _) = told(Kind::Pod, script, 9).await;
    assert!(lines[..8].iter().all(|line| line.starts_with("failed Pod: ")), "{lines:?}");
    assert_eq!(lines[8], "listed Pod: ");
    let took = start.elapsed();
    assert!(took > Duration::from_secs(20) && took < Duration::from_mins(2), "{took:?}");
}

/// What a failing server made wait is not held against a watch that only fell behind.
#[tokio::test(start_paused = true)]
async fn a_watch_that_falls_behind_is_listed_again_at_once() {
    let gone =
        json!({"kind": "Status", "status": "Failure", "message": "too old resource version", "code": 410});
    let script = (0..7)
        .map(|_| Answer::Refused)
        .chain([list("7", &[]), watch(&[]), watch(&[event("ERROR", &gone)]), list("9", &[])])
        .collect();
    let server = Server::start(Kind::Pod, script);
    let (sender, mut events) = mpsc::channel(4);
    let source = tokio::spawn(api(server.client.clone(), sender));
    let mut fell_behind = None;
    loop {
        let event = events.recv().await.expect("the source never ends by itself");
        match event {
            SourceEvent::Failed(Kind::Pod, why) if why.contains("too old") => {
                fell_behind = Some(Instant::now());
            }
            SourceEvent::Change(Change::Listed(Kind::Pod, _)) if fell_behind.is_some() => break,
            _ => {}
        }
    }
    let took = fell_behind.expect("it did").elapsed();
    assert!(took < Duration::from_millis(100), "{took:?}");
    source.abort();
}

/// The whole of what every kind says at a start.
#[tokio::test(start_paused = true)]
async fn every_kind_is_listed_once() {
    let server = Server::start(Kind::Pod, vec![list("7", &[pod("a", 1)]), watch(&[])]);
    let (sender, mut events) = mpsc::channel(1);
    let source = tokio::spawn(api(server.client.clone(), sender));
    let mut lines = Vec::new();
    while lines.len() <= Kind::ALL.len() {
        match events.recv().await.expect("the source never ends by itself") {
            SourceEvent::Current(_) => {}
            event => lines.push(line(&event)),
        }
    }
    lines.sort();
    assert_eq!(
        lines,
        [
            "listed EndpointSlice: ",
            "listed Namespace: ",
            "listed NetworkPolicy: ",
            "listed Node: ",
            "listed Pod: shop/a",
            "listed Service: ",
            "not served ClusterNetworkPolicy",
            "pod shop/a",
        ]
    );
    source.abort();
}

/// Not from a cache of the server: no older than the question.
#[tokio::test(start_paused = true)]
async fn what_is_stored_is_asked_for_by_namespace_and_without_a_version() {
    let meta =
        json!({"name": "late", "namespace": "shop", "uid": "u1", "generation": 3, "resourceVersion": "9"});
    let server = Server::start(
        Kind::NetworkPolicy,
        vec![list("9", &[json!({"metadata": meta})]), list("9", &[]), status(503, "later"), Answer::Refused],
    );
    let late = StoredPolicy {
        key: ObjectKey::namespaced(Kind::NetworkPolicy, "shop", "late"),
        uid: "u1".to_owned(),
        generation: 3,
    };
    let asked = async || policies_of(&server.client, "shop").await;
    assert_eq!(asked().await, Ok(vec![late]));
    assert_eq!(asked().await, Ok(Vec::new()));
    assert!(asked().await.expect_err("503").contains("later"));
    asked().await.expect_err("refused");
    assert!(asked().await.expect_err("silent").contains("said nothing for 10 s"));
    assert_eq!(server.asked(), ["list limit=none in shop"; 5]);
}
