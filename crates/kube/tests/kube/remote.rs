//! The way to an agent from wherever the API server is, as far as it leads without a kubelet.

use std::sync::{Arc, Mutex};

use cellwall_kube::kube::Client;
use cellwall_kube::kube::client::Body;
use cellwall_kube::remote::Tunnel;
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower_test::mock;

/// What is answered to which path.
type Answers = Vec<(&'static str, u16, Value)>;

/// What opening a way to the agent of `node` says, and what was asked for it.
async fn open(node: &str, answers: Answers) -> (String, Vec<(String, Value)>) {
    let (service, mut handle) = mock::pair::<Request<Body>, Response<Body>>();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Some((request, send)) = handle.next_request().await {
            let question = format!("{} {}", request.method(), request.uri());
            let body = request.into_body().collect().await.expect("it is in memory").to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let answer = answers.iter().find(|(path, ..)| question.starts_with(path));
            heard.lock().expect("no panic").push((question, body));
            let (code, answer) =
                answer.map_or((404, status(404, "not found")), |(_, code, answer)| (*code, answer.clone()));
            let body = Body::from(answer.to_string().into_bytes());
            send.send_response(Response::builder().status(code).body(body).expect("a response"));
        }
    });
    let said = match Tunnel::open(&Client::new(service, "default"), node).await {
        Ok(_) => "open".to_owned(),
        Err(error) => error.to_string(),
    };
    let asked = std::mem::take(&mut *asked.lock().expect("no panic"));
    (said, asked)
}

fn status(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "status": "Failure", "message": message, "code": code})
}

fn object(remote: &Value) -> (&'static str, u16, Value) {
    let object = json!({"apiVersion": "cellwall.dev/v1alpha1", "kind": "CellwallNode", "metadata": {"name": "n1"},
        "spec": {}, "status": {"agentVersion": "0.1.0", "remote": remote}});
    ("GET /apis/cellwall.dev/v1alpha1/cellwallnodes/n1", 200, object)
}

fn remote() -> Value {
    json!({"namespace": "walls", "pod": "walls-x", "port": 9965, "serviceAccount": "walls-reader", "certificateSha256": "00"})
}

const TOKEN: &str = "POST /api/v1/namespaces/walls/serviceaccounts/walls-reader/token";
const FORWARD: &str = "GET /api/v1/namespaces/walls/pods/walls-x/portforward?&ports=9965";

#[tokio::test]
async fn a_token_for_agents_alone_is_asked_for_and_the_way_to_the_pod_that_the_object_names() {
    let token = json!({"spec": {"audiences": []}, "status": {"token": "t", "expirationTimestamp": "2026-11-30T00:00:00Z"}});
    let forbidden = status(403, "pods \"walls-x\" is forbidden");
    let answers = vec![object(&remote()), (TOKEN, 201, token), (FORWARD, 403, forbidden)];
    let (said, asked) = open("n1", answers).await;
    assert_eq!(
        said,
        "you may not forward port 9965 of the agent's pod walls/walls-x: pods \"walls-x\" is forbidden"
    );
    let questions: Vec<&str> = asked.iter().map(|(question, _)| question.as_str()).collect();
    assert_eq!(questions[1..], [format!("{TOKEN}?"), FORWARD.to_owned()]);
    assert_eq!(asked[1].1["spec"]["audiences"], json!(["cellwall.dev"]));
    assert_eq!(asked[1].1["spec"]["expirationSeconds"], 600);
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let (said, _) = open("n1", Vec::new()).await;
    assert!(said.starts_with("there is no CellwallNode n1"), "{said}");
    let (said, _) = open("n1", vec![object(&Value::Null)]).await;
    let wanted = "the agent of n1, of version 0.1.0, does not answer from outside the node (its agent has said nothing for more \
                  than 11 minutes): it is older";
    assert!(said.starts_with(wanted), "{said}");
    let no = ("GET /apis/cellwall.dev", 403, status(403, "cellwallnodes is forbidden"));
    let (said, _) = open("n1", vec![no]).await;
    assert_eq!(said, "you may not get cellwallnodes/n1: cellwallnodes is forbidden");
    let (said, _) = open("n1", vec![object(&remote()), (TOKEN, 403, status(403, "no tokens"))]).await;
    assert_eq!(said, "you may not create a token of the service account walls/walls-reader: no tokens");
    let (said, _) = open("n1", vec![object(&remote()), (TOKEN, 404, status(404, "not found"))]).await;
    assert!(said.starts_with("cannot create a token of the service account walls/walls-reader"), "{said}");
}

/// Whoever may write the object chooses no paths of the API for whoever reads it.
#[tokio::test]
async fn what_is_no_name_becomes_no_path() {
    for (field, text) in [
        ("namespace", "a/../../secrets"),
        ("pod", ".."),
        ("pod", ""),
        ("serviceAccount", "x?dryRun=All"),
        ("serviceAccount", "-x"),
    ] {
        let mut wrong = remote();
        wrong[field] = json!(text);
        let (said, asked) = open("n1", vec![object(&wrong)]).await;
        assert_eq!(said, format!("the CellwallNode n1 has no name in status.remote.{field}, but `{text}`"));
        assert_eq!(asked.len(), 1, "{asked:?}");
    }
    for port in [-1, 65_536] {
        let mut wrong = remote();
        wrong["port"] = json!(port);
        let (said, asked) = open("n1", vec![object(&wrong)]).await;
        assert_eq!((said.contains("status.remote.port"), asked.len()), (true, 1), "{said}");
    }
    let (said, asked) = open("../n1", Vec::new()).await;
    assert_eq!((said.starts_with("there is no CellwallNode"), asked.len()), (true, 0), "{said}");
}
