//! The services over a real unix socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cellwall_api::client::{Client, ClientError};
use cellwall_api::v1alpha1::{
    Counter, Endpoint, NodeStatus, ObjectReference, Policy, Problem, Source, WaitEnforcedResponse,
};
use cellwall_api::{BindError, Limits, Publisher, Receivers, Snapshot, Socket, Wait, serve};
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const SOON: Duration = Duration::from_secs(5);
/// Long enough for a message that should not come.
const A_WHILE: Duration = Duration::from_millis(200);

/// An agent's server without the agent.
struct Agent {
    publisher: Publisher,
    path: PathBuf,
    waits: mpsc::Receiver<Wait>,
    _folder: TempDir,
    _stop: oneshot::Sender<()>,
}

impl Agent {
    fn start(limits: Limits, first: Snapshot) -> Self {
        let folder = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
        let path = folder.path().join("agent.sock");
        let socket = Socket::bind(&path).expect("the folder is ours");
        let publisher = Publisher::new(first);
        let (stop, stopped) = oneshot::channel();
        let (waits, received) = mpsc::channel(1);
        let snapshots = publisher.subscribe();
        tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            let receivers = Receivers { announcements: mpsc::channel(1).0, waits };
            serve(socket, snapshots, receivers, limits, stopped).await.expect("the server ends by request");
        });
        Self { publisher, path, waits: received, _folder: folder, _stop: stop }
    }

    async fn client(&self) -> Client {
        Client::connect(&self.path).await.expect("the server listens")
    }

    async fn channel(&self) -> Channel {
        let path = self.path.clone();
        tonic::transport::Endpoint::from_static("http://agent.invalid")
            .connect_with_connector(tower::service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await
            .expect("the server listens")
    }
}

fn snapshot(revision: u64) -> Snapshot {
    let status = NodeStatus { node: "n1".to_owned(), revision, ..NodeStatus::default() };
    Snapshot { taken: Instant::now(), status, endpoints: Arc::default(), policies: Arc::default() }
}

#[expect(clippy::unnecessary_wraps, reason = "the fields are optional")]
fn reference(kind: &str, namespace: &str, name: &str) -> Option<ObjectReference> {
    Some(ObjectReference { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() })
}

#[tokio::test]
async fn status_is_the_last_snapshot() {
    let agent = Agent::start(Limits::default(), snapshot(1));
    let mut client = agent.client().await;
    assert_eq!(client.status().await.expect("answers").revision, 1);
    agent.publisher.publish(snapshot(2));
    assert_eq!(client.status().await.expect("answers").revision, 2);
}

#[tokio::test]
async fn ages_grow_while_nothing_is_published() {
    let mut first = snapshot(1);
    first.status.sources =
        vec![Source { last_event_age_ms: Some(7), ..Source::default() }, Source::default()];
    let agent = Agent::start(Limits::default(), first);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let status = agent.client().await.status().await.expect("answers");
    assert!(status.sources[0].last_event_age_ms.expect("heard of") >= 57);
    assert_eq!(status.sources[1].last_event_age_ms, None);
}

#[tokio::test]
async fn lists_are_cut_to_a_namespace() {
    let mut first = snapshot(1);
    first.endpoints = Arc::new(vec![
        Endpoint { ifindex: 3, ..Endpoint::default() },
        Endpoint { pod: reference("Pod", "a", "x"), ifindex: 4, ..Endpoint::default() },
        Endpoint { pod: reference("Pod", "b", "y"), ifindex: 5, ..Endpoint::default() },
    ]);
    first.policies = Arc::new(vec![
        Policy { policy: reference("ClusterNetworkPolicy", "", "all"), ..Policy::default() },
        Policy { policy: reference("NetworkPolicy", "b", "deny"), ..Policy::default() },
    ]);
    let agent = Agent::start(Limits::default(), first);
    let mut client = agent.client().await;
    let indexes = |list: Vec<Endpoint>| list.iter().map(|e| e.ifindex).collect::<Vec<_>>();
    assert_eq!(indexes(client.endpoints("").await.expect("answers")), [3, 4, 5]);
    assert_eq!(indexes(client.endpoints("b").await.expect("answers")), [5]);
    assert_eq!(indexes(client.endpoints("c").await.expect("answers")), [0_u32; 0]);
    assert_eq!(client.policies("").await.expect("answers").len(), 2);
    assert_eq!(client.policies("b").await.expect("answers").len(), 1);
}

#[tokio::test]
async fn a_watch_sends_the_state_and_then_only_changes() {
    let agent = Agent::start(Limits::default(), snapshot(1));
    let mut client = agent.client().await;
    let mut statuses = Box::pin(client.watch_status().await.expect("a stream"));
    assert_eq!(statuses.next().await.expect("open").expect("a status").revision, 1);

    let mut measured = snapshot(1);
    measured.status.counters = vec![Counter { packets: 9, ..Counter::default() }];
    assert!(!agent.publisher.publish(measured), "a measurement is no change");
    assert!(!agent.publisher.publish(snapshot(1)), "the same again is no change");
    let mut listed = snapshot(1);
    listed.policies = Arc::new(vec![Policy::default()]);
    assert!(agent.publisher.publish(listed), "a policy is a change, though not of the status");
    assert!(timeout(A_WHILE, statuses.next()).await.is_err(), "nothing was sent without a change");

    agent.publisher.publish(snapshot(2));
    let next = timeout(SOON, statuses.next()).await.expect("in time").expect("open").expect("a status");
    assert_eq!(next.revision, 2);
}

#[tokio::test]
async fn a_slow_reader_gets_the_newest_state_and_holds_nobody_up() {
    let agent = Agent::start(Limits::default(), snapshot(0));
    let mut client = agent.client().await;
    let mut statuses = Box::pin(client.watch_status().await.expect("a stream"));
    // Two megabytes a status: more than the windows of the stream and the buffers of the socket hold.
    let problem = Problem { message: "x".repeat(2000), ..Problem::default() };
    for revision in 1..=100 {
        let mut next = snapshot(revision);
        next.status.problems = vec![problem.clone(); 1000];
        agent.publisher.publish(next);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let other = timeout(SOON, agent.client().await.status()).await.expect("in time").expect("answers");
    assert_eq!(other.revision, 100, "another client is answered meanwhile");

    let mut received = Vec::new();
    while received.last() != Some(&100) {
        let next = timeout(SOON, statuses.next()).await.expect("in time").expect("open").expect("a status");
        received.push(next.revision);
    }
    assert!(received.len() < 50, "states in between are left out: {received:?}");
    assert!(received.is_sorted(), "and none comes out of order: {received:?}");
}

#[tokio::test]
async fn who_waits_for_a_policy_hears_what_the_cluster_says_until_he_leaves() {
    let mut agent = Agent::start(Limits::default(), snapshot(1));
    let mut client = agent.client().await;
    let mut answers = Box::pin(client.wait_enforced("shop", "db").await.expect("a stream"));
    let asked = agent.waits.recv().await.expect("open");
    assert_eq!((asked.namespace.as_str(), asked.name.as_str()), ("shop", "db"));
    asked.answers.send(Ok(WaitEnforcedResponse { generation: 7, ..Default::default() })).await.expect("open");
    assert_eq!(answers.next().await.expect("open").expect("an answer").generation, 7);
    drop(answers);
    timeout(SOON, asked.answers.closed()).await.expect("who has left is not told any more");

    // One waits for the receiver to take it, and there is no room for another.
    let _first = client.wait_enforced("shop", "db").await.expect("room for one");
    let error = client.wait_enforced("shop", "db").await.err().expect("no room for two");
    assert!(matches!(error, ClientError::Call { ref code, .. } if code == "ResourceExhausted"), "{error}");
    let error = client.wait_enforced("", "db").await.err().expect("no namespace");
    assert!(matches!(error, ClientError::Call { ref code, .. } if code == "InvalidArgument"), "{error}");
}

#[tokio::test]
async fn health_follows_ready() {
    let agent = Agent::start(Limits::default(), snapshot(1));
    let mut health = HealthClient::new(agent.channel().await);
    let mut check = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        health.check(request).await.map(|answer| answer.into_inner().status().as_str_name())
    };
    assert_eq!(check("").await.expect("known"), "NOT_SERVING");
    assert_eq!(check("cellwall.v1alpha1.AgentService").await.expect("known"), "NOT_SERVING");
    assert_eq!(check("other").await.expect_err("unknown").code(), tonic::Code::NotFound);

    let mut ready = snapshot(1);
    ready.status.ready = true;
    agent.publisher.publish(ready);
    let serving = async {
        while check("").await.expect("known") != "SERVING" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, serving).await.expect("serving once ready");
}

/// What reflection answers, in one version of its protocol: the messages of both are alike, and of different types.
macro_rules! reflection {
    ($version:ident, $channel:expr) => {{
        use tonic_reflection::pb::$version::ServerReflectionRequest;
        use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
        let mut client = ServerReflectionClient::new($channel);
        let mut ask = async |what: MessageRequest| {
            let request = ServerReflectionRequest { message_request: Some(what), ..Default::default() };
            let mut answers = client
                .server_reflection_info(tokio_stream::once(request))
                .await
                .expect("answers")
                .into_inner();
            answers.next().await.expect("one answer").expect("no error").message_response
        };
        let Some(MessageResponse::ListServicesResponse(list)) =
            ask(MessageRequest::ListServices(String::new())).await
        else {
            panic!("a list of services was asked for");
        };
        let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
        // What the contract imports can be had, too, or a client that has no files cannot read it.
        let mut files = Vec::new();
        for what in [
            MessageRequest::FileContainingSymbol("cellwall.v1alpha1.AgentService".to_owned()),
            MessageRequest::FileByFilename("google/protobuf/timestamp.proto".to_owned()),
        ] {
            let Some(MessageResponse::FileDescriptorResponse(found)) = ask(what.clone()).await else {
                panic!("there is no {what:?}");
            };
            files.push(found.file_descriptor_proto);
        }
        (names, files)
    }};
}

#[tokio::test]
async fn reflection_of_both_versions_names_the_services_and_shows_the_contract() {
    let agent = Agent::start(Limits::default(), snapshot(1));
    // grpcurl before 1.8.9 asks in the older one.
    for (names, files) in
        [reflection!(v1, agent.channel().await), reflection!(v1alpha, agent.channel().await)]
    {
        for name in
            ["cellwall.v1alpha1.AgentService", "cellwall.v1alpha1.PluginService", "grpc.health.v1.Health"]
        {
            assert!(names.iter().any(|named| named == name), "{name} is not in {names:?}");
        }
        let says = |file: &Vec<u8>, text: &str| file.windows(text.len()).any(|part| part == text.as_bytes());
        let contract = files[0].iter().find(|file| says(file, "cellwall/v1alpha1/agent.proto"));
        let contract = contract.expect("a file of this name");
        for method in ["GetStatus", "WatchStatus", "ListEndpoints", "ListPolicies", "WaitEnforced"] {
            assert!(says(contract, method), "{method}");
        }
        assert!(files[1].iter().any(|file| says(file, "google/protobuf/timestamp.proto")));
    }
}

#[tokio::test]
async fn another_user_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let agent = Agent::start(Limits::default(), snapshot(1));
    // Opened wide, so that only the check of the peer is left to refuse.
    for path in [agent.path.as_path(), agent.path.parent().expect("in a folder")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("ours");
    }
    let path = agent.path.clone();
    let foreign = tokio::task::spawn_blocking(move || {
        become_nobody();
        std::os::unix::net::UnixStream::connect(path).expect("the kernel lets it in")
    });
    let stream = foreign.await.expect("no panic");
    stream.set_nonblocking(true).expect("a socket");
    assert!(is_closed(UnixStream::from_std(stream).expect("a socket")).await);
    assert_eq!(agent.client().await.status().await.expect("root is served").revision, 1);
}

/// This thread, and no other, is of another user from here on: credentials are a thread's, and the kernel keeps
/// those of the thread that connects. A child process would need a program that this user may execute.
fn become_nobody() {
    let nobody = rustix::process::Uid::from_raw(65534);
    rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("root may");
}

/// True when the other side closes without a byte of HTTP.
async fn is_closed(mut stream: UnixStream) -> bool {
    let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let mut byte = [0];
    !matches!(timeout(SOON, stream.read(&mut byte)).await.expect("in time"), Ok(1))
}

#[tokio::test]
async fn one_connection_too_many_is_closed() {
    let agent = Agent::start(Limits { connections: 2, ..Limits::default() }, snapshot(1));
    let mut first = agent.client().await;
    let _second = UnixStream::connect(&agent.path).await.expect("a place");
    first.status().await.expect("the second is accepted by now");
    assert!(is_closed(UnixStream::connect(&agent.path).await.expect("the backlog takes it")).await);
    assert_eq!(first.status().await.expect("served still").revision, 1);
}

#[tokio::test]
async fn a_client_that_says_nothing_loses_its_place() {
    let limits = Limits { connections: 1, idle: A_WHILE, ..Limits::default() };
    let agent = Agent::start(limits, snapshot(1));
    let mut silent = UnixStream::connect(&agent.path).await.expect("a place");
    let mut bytes = Vec::new();
    let _ = timeout(SOON, silent.read_to_end(&mut bytes)).await.expect("closed in time");
    assert_eq!(agent.client().await.status().await.expect("the place is free").revision, 1);
}

#[tokio::test]
async fn a_living_watch_outlasts_the_idle_limit() {
    let limits = Limits { idle: A_WHILE, keepalive: A_WHILE / 4, ..Limits::default() };
    let agent = Agent::start(limits, snapshot(1));
    let mut client = agent.client().await;
    let mut statuses = Box::pin(client.watch_status().await.expect("a stream"));
    statuses.next().await.expect("open").expect("a status");
    assert!(timeout(A_WHILE * 4, statuses.next()).await.is_err(), "it stays open and silent");
}

#[tokio::test]
async fn noise_is_survived() {
    let agent = Agent::start(Limits::default(), snapshot(1));
    for length in [1, 24, 4096] {
        let mut stream = UnixStream::connect(&agent.path).await.expect("a place");
        let noise: Vec<u8> = (0..length).map(|i: usize| u8::try_from(i * 31 % 251).expect("small")).collect();
        let _ = stream.write_all(&noise).await;
    }
    assert_eq!(agent.client().await.status().await.expect("answers").revision, 1);
}

#[tokio::test]
async fn errors_name_the_remedy() {
    let folder = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
    let path = folder.path().join("agent.sock");
    let error = Client::connect(&path).await.expect_err("nobody is there");
    assert!(matches!(error, ClientError::NoSocket { .. }), "{error}");
    assert!(error.to_string().contains("is cellwall-agent running on this node?"));

    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let error = Client::connect(&path).await.expect_err("nobody listens");
    assert!(matches!(error, ClientError::Ended { .. }), "{error}");
}

#[tokio::test]
async fn a_socket_replaces_a_stale_one_and_spares_anything_else() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let folder = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
    let path = folder.path().join("sub/agent.sock");
    let first = Socket::bind(&path).expect("the folder is made");
    let mode = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().expect("sub")), 0o700);

    let second = Socket::bind(&path).expect("replaces the first");
    drop(first);
    assert!(path.exists(), "an agent that ends leaves its successor's socket alone");
    drop(second);
    assert!(!path.exists(), "and removes its own");

    std::fs::write(&path, "precious").expect("ours");
    assert!(matches!(Socket::bind(&path), Err(BindError::NotASocket { .. })));
    assert_eq!(std::fs::read(&path).expect("there"), b"precious");

    let open = folder.path().join("open");
    std::fs::create_dir(&open).expect("ours");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).expect("ours");
    assert!(matches!(Socket::bind(&open.join("agent.sock")), Err(BindError::Folder { .. })));
    assert!(matches!(Socket::bind(Path::new("/")), Err(BindError::Path { .. })));
}
