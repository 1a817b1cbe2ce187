//! Who may ask an agent from outside its node, beside an API server that counts what it is asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cellwall_kube::access::{Denied, Reviews};
use cellwall_kube::kube::Client;
use cellwall_kube::kube::client::Body;
use futures::future::join_all;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::{advance, sleep};
use tower_test::mock;

const TOKENS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const RIGHTS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

/// Knows tokens `NAME@AUDIENCE`, and that `reader` may ask about `n1`. What it was asked, in order.
struct Server {
    reviews: Arc<Reviews>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Server {
    fn start(answer: fn(&str, &Value) -> Option<(u16, Value)>) -> Self {
        let (service, mut handle) = mock::pair::<Request<Body>, Response<Body>>();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Some((request, send)) = handle.next_request().await {
                assert_eq!(request.method(), Method::POST);
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.expect("it is in memory").to_bytes();
                let body: Value = serde_json::from_slice(&body).expect("JSON");
                heard.lock().expect("no panic").push((path.clone(), body["spec"].clone()));
                match answer(&path, &body["spec"]) {
                    Some((code, body)) => send.send_response(
                        Response::builder()
                            .status(code)
                            .body(Body::from(body.to_string().into_bytes()))
                            .expect("a response"),
                    ),
                    None => open.push(send),
                }
            }
        });
        let reviews = Arc::new(Reviews::new(Client::new(service, "default"), "n1".to_owned()));
        Self { reviews, asked }
    }

    fn asked(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.asked.lock().expect("no panic"))
    }

    async fn allow(&self, token: &str) -> Result<(), Denied> {
        self.reviews.allow(token).await
    }
}

#[expect(clippy::unnecessary_wraps, reason = "one that is gone answers nothing")]
fn cluster(path: &str, spec: &Value) -> Option<(u16, Value)> {
    let status = if path == TOKENS {
        let token = spec["token"].as_str().expect("there is one");
        let (name, audience) = token.split_once('@').unwrap_or((token, "nowhere"));
        // One that is asked for no audience takes those for the API server itself.
        let wanted = spec["audiences"].as_array().cloned().unwrap_or_else(|| vec![json!("the-api-server")]);
        let is_known = wanted.iter().any(|wanted| wanted == audience);
        let user = json!({"username": name, "uid": "7", "groups": ["g"], "extra": {"a/b": ["c"]}});
        let known = json!({"authenticated": true, "user": user, "audiences": [audience]});
        if is_known { known } else { json!({"authenticated": false, "error": "secret detail"}) }
    } else {
        json!({"allowed": spec["user"] == "reader" && spec["resourceAttributes"]["name"] == "n1"})
    };
    Some((201, json!({"spec": {}, "status": status})))
}

fn not_allowed(user: &str) -> Result<(), Denied> {
    Err(Denied::NotAllowed { user: user.to_owned(), node: "n1".to_owned() })
}

#[tokio::test(start_paused = true)]
async fn whose_token_is_for_agents_and_who_has_the_right_may_ask() {
    let server = Server::start(cluster);
    assert_eq!(server.allow("reader@cellwall.dev").await, Ok(()));
    let who = json!({"user": "reader", "uid": "7", "groups": ["g"], "extra": {"a/b": ["c"]}, "resourceAttributes": {
        "group": "cellwall.dev", "resource": "cellwallnodes", "subresource": "agent", "name": "n1", "verb": "get"}});
    let token = json!({"token": "reader@cellwall.dev", "audiences": ["cellwall.dev"]});
    assert_eq!(server.asked(), [(TOKENS.to_owned(), token), (RIGHTS.to_owned(), who)]);
    let denied = server.allow("stranger@cellwall.dev").await;
    assert_eq!(denied, not_allowed("stranger"));
    let text = denied.expect_err("denied").to_string();
    assert!(
        text.contains("stranger may not ask the agent of n1") && text.contains("cellwallnodes/agent"),
        "{text}"
    );
    assert_eq!(server.allow("nonsense").await, Err(Denied::Unknown));
    assert!(!Denied::Unknown.to_string().contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn a_token_for_the_api_server_is_not_taken() {
    let server = Server::start(cluster);
    assert_eq!(server.allow("reader@the-api-server").await, Err(Denied::Unknown));
    assert_eq!(server.asked().len(), 1, "its rights are nobody's business");
    // One that looks at no audience says nothing of them.
    let blind = Server::start(|path, spec| {
        let (code, mut answer) = cluster(path, spec).expect("it answers");
        answer["status"]["audiences"] = Value::Null;
        Some((code, answer))
    });
    assert_eq!(blind.allow("reader@cellwall.dev").await, Err(Denied::Unknown));
}

#[tokio::test(start_paused = true)]
async fn a_right_is_asked_for_and_a_denial_outweighs_it() {
    let server = Server::start(cluster);
    assert_eq!(server.allow("stranger@cellwall.dev").await, not_allowed("stranger"));
    let denying = Server::start(|path, spec| {
        let (code, mut answer) = cluster(path, spec).expect("it answers");
        if path == RIGHTS {
            answer["status"]["denied"] = json!(true);
        }
        Some((code, answer))
    });
    assert_eq!(denying.allow("reader@cellwall.dev").await, not_allowed("reader"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_for_ten_seconds() {
    let server = Server::start(cluster);
    for token in ["reader@cellwall.dev", "stranger@cellwall.dev", "nonsense"] {
        let first = server.allow(token).await;
        let questions = server.asked().len();
        advance(Duration::from_millis(9_900)).await;
        assert_eq!(server.allow(token).await, first);
        assert_eq!(server.asked().len(), 0, "{token}: it was known");
        advance(Duration::from_millis(200)).await;
        assert_eq!(server.allow(token).await, first);
        assert_eq!(server.asked().len(), questions, "{token}: it is asked again");
    }
}

/// Twenty at once, and five a second; who is known is answered all the same.
#[tokio::test(start_paused = true)]
async fn any_number_of_tokens_is_few_questions() {
    let server = Server::start(cluster);
    assert_eq!(server.allow("reader@cellwall.dev").await, Ok(()));
    server.asked();
    let mut refused = 0;
    for n in 0..1000 {
        match server.allow(&format!("token-{n}")).await {
            Err(Denied::Unknown) => {}
            Err(Denied::TooMany) => refused += 1,
            other => panic!("{other:?}"),
        }
        assert_eq!(server.allow("reader@cellwall.dev").await, Ok(()));
    }
    let asked = server.asked().len();
    assert_eq!((asked, refused), (19, 981));
    advance(Duration::from_secs(2)).await;
    for n in 0..1000 {
        let _ = server.allow(&format!("later-{n}")).await;
    }
    assert_eq!(server.asked().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_gone_or_says_no_is_told() {
    let silent = Server::start(|_, _| None);
    let all: Vec<String> = (0..6).map(|n| format!("token-{n}")).collect();
    let answers = join_all(all.iter().map(|token| silent.allow(token))).await;
    let failed = answers.iter().filter(|answer| matches!(answer, Err(Denied::Failed(_)))).count();
    let many = answers.iter().filter(|answer| **answer == Err(Denied::TooMany)).count();
    assert_eq!((failed, many), (4, 2), "{answers:?}");
    assert!(format!("{answers:?}").contains("said nothing for 10 s"), "{answers:?}");

    let refusing = Server::start(|path, spec| {
        let no = json!({"kind": "Status", "status": "Failure", "message": "no", "code": 403});
        if path == RIGHTS { Some((403, no)) } else { cluster(path, spec) }
    });
    let refused = refusing.allow("reader@cellwall.dev").await.expect_err("nobody knows");
    let wanted = "it may not create subjectaccessreviews, which the chart's ClusterRole allows";
    assert_eq!(refused, Denied::Failed(wanted.to_owned()));
    // Which is asked again at once: it may be mended.
    sleep(Duration::from_millis(1)).await;
    refusing.asked();
    let _ = refusing.allow("reader@cellwall.dev").await;
    assert_eq!(refusing.asked().len(), 2);
}
