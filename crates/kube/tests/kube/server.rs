//! An API server that answers requests of one kind from a script, and all others as an empty cluster would.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cellwall_kube::kube::Client;
use cellwall_kube::kube::client::Body;
use cellwall_kube::source::SourceEvent;
use cellwall_policy::model::{Change, Kind};
use http::{Request, Response};
use http_body_util::channel::{Channel, Sender};
use serde_json::{Value, json};
use tower_test::mock;

type Answered = Response<Channel<Bytes, Infallible>>;

/// One answer.
pub(crate) enum Answer {
    /// A status code, a body, and whether the body ends.
    Says(u16, String, bool),
    /// The connection cannot be made.
    Refused,
}

impl Answer {
    #[expect(clippy::needless_pass_by_value, reason = "`json!` makes a value")]
    pub(crate) fn json(code: u16, body: Value) -> Self {
        Self::Says(code, body.to_string(), true)
    }

    /// The beginning of a watch.
    pub(crate) fn raw(text: &str) -> Self {
        Self::Says(200, text.to_owned(), false)
    }

    /// This watch ends after its last event; others stay open.
    pub(crate) fn ends(self) -> Self {
        match self {
            Self::Says(code, body, _) => Self::Says(code, body, true),
            Self::Refused => self,
        }
    }
}

pub(crate) fn list(version: &str, items: &[Value]) -> Answer {
    page(version, "", items)
}

pub(crate) fn page(version: &str, next: &str, items: &[Value]) -> Answer {
    Answer::json(
        200,
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version, "continue": next}, "items": items}),
    )
}

pub(crate) fn watch(events: &[Value]) -> Answer {
    let lines: Vec<String> = events.iter().map(|event| format!("{event}\n")).collect();
    Answer::raw(&lines.concat())
}

pub(crate) fn status(code: u16, message: &str) -> Answer {
    Answer::json(code, json!({"kind": "Status", "status": "Failure", "message": message, "code": code}))
}

pub(crate) struct Server {
    pub(crate) client: Client,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers requests of `kind` from `script`; one more than that is never answered.
    pub(crate) fn start(kind: Kind, script: Vec<Answer>) -> Self {
        let (service, mut handle) = mock::pair::<Request<Body>, Answered>();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        let mut script = VecDeque::from(script);
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Some((request, answer)) = handle.next_request().await {
                let (path, query) =
                    (request.uri().path().to_owned(), request.uri().query().unwrap_or_default());
                let next = if is_about(&path, kind) {
                    heard.lock().expect("nobody panics").push(question(&path, query));
                    script.pop_front()
                } else {
                    Some(nothing(&path, query))
                };
                match next {
                    None => open.push((None, Some(answer))),
                    Some(Answer::Refused) => answer.send_error("connection refused"),
                    Some(Answer::Says(code, body, ends)) => {
                        let (response, body) = says(code, body).await;
                        answer.send_response(response);
                        open.extend((!ends).then_some((Some(body), None)));
                    }
                }
            }
        });
        Self { client: Client::new(service, "default"), asked }
    }

    /// What was asked about the kind, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panics").clone()
    }
}

async fn says(code: u16, body: String) -> (Answered, Sender<Bytes, Infallible>) {
    let (mut sender, channel) = Channel::new(1);
    if !body.is_empty() {
        sender.send_data(body.into()).await.expect("the other end is here");
    }
    (Response::builder().status(code).body(channel).expect("it is a valid response"), sender)
}

/// The path, and in a cluster with nothing in it, the answer.
fn nothing(path: &str, query: &str) -> Answer {
    if is_about(path, Kind::ClusterNetworkPolicy) {
        status(404, "page not found")
    } else if query.contains("watch=true") {
        watch(&[])
    } else {
        list("1", &[])
    }
}

fn is_about(path: &str, kind: Kind) -> bool {
    match kind {
        Kind::Namespace => path == "/api/v1/namespaces",
        Kind::Node => path == "/api/v1/nodes",
        Kind::Pod => path == "/api/v1/pods",
        Kind::Service => path == "/api/v1/services",
        Kind::EndpointSlice => path == "/apis/discovery.k8s.io/v1/endpointslices",
        Kind::NetworkPolicy => {
            path.starts_with("/apis/networking.k8s.io/v1") && path.ends_with("/networkpolicies")
        }
        Kind::ClusterNetworkPolicy => path.starts_with("/apis/policy.networking.k8s.io/v1alpha2"),
    }
}

fn question(path: &str, query: &str) -> String {
    let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    if path.ends_with("/v1alpha2") {
        "discovery".to_owned()
    } else if value("watch").is_some() {
        let with = value("allowWatchBookmarks").map_or("", |_| " with bookmarks");
        format!("watch from {}{with}", value("resourceVersion").unwrap_or("nowhere"))
    } else {
        let next = value("continue").map(|token| format!(" continue={token}")).unwrap_or_default();
        let from = value("resourceVersion").map(|version| format!(" from {version}")).unwrap_or_default();
        let within = path.split_once("/namespaces/").and_then(|(_, rest)| rest.split_once('/'));
        let within = within.map(|(namespace, _)| format!(" in {namespace}")).unwrap_or_default();
        format!("list limit={}{next}{from}{within}", value("limit").unwrap_or("none"))
    }
}

/// The kind an event is about.
pub(crate) fn kind(event: &SourceEvent) -> Kind {
    match event {
        SourceEvent::Current(kind)
        | SourceEvent::Version(kind, _)
        | SourceEvent::NotServed(kind)
        | SourceEvent::Partial(kind, _)
        | SourceEvent::Failed(kind, _) => *kind,
        SourceEvent::Change(change) => match change {
            Change::Namespace(_) => Kind::Namespace,
            Change::Node(_) => Kind::Node,
            Change::Pod(_) => Kind::Pod,
            Change::Service(_) => Kind::Service,
            Change::EndpointSlice(_) => Kind::EndpointSlice,
            Change::Policy(policy, _) => policy.key.kind,
            Change::Bad(problem) => problem.object.kind,
            Change::Gone(key) => key.kind,
            Change::Listed(kind, _) => *kind,
            Change::Link(_) | Change::LinkGone(_) | Change::Announced(_) | Change::NodeAddresses(_) => {
                panic!("not of a source: {change:?}")
            }
        },
    }
}
