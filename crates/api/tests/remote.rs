//! The port for questions from outside the node, over real TLS: who is answered, what is answered, and how little those get who may
//! not ask.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cellwall_api::client::{Client, ClientError};
use cellwall_api::v1alpha1::agent_service_client::AgentServiceClient;
use cellwall_api::v1alpha1::{Endpoint, GetStatusRequest, NodeStatus, Policy, Sandbox};
use cellwall_api::{Access, Denial, Limits, Port, Publisher, RemoteReceivers, Snapshot, serve_remote};
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// Only what hangs reaches it.
const SOON: Duration = Duration::from_secs(30);

/// An agent's port without the agent. Who shows `right` may ask.
struct Agent {
    publisher: Publisher,
    address: SocketAddr,
    fingerprint: String,
    asked: Arc<AtomicUsize>,
}

impl Agent {
    async fn start(limits: Limits) -> Self {
        let port = Port::bind(0).await.expect("a free port");
        let (address, fingerprint) = (port.address(), port.fingerprint().to_owned());
        let publisher = Publisher::new(snapshot(1));
        let (accesses, mut received) = mpsc::channel::<Access>(4);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Some(Access { token, answer }) = received.recv().await {
                count.fetch_add(1, Relaxed);
                let said = match token.as_str() {
                    "right" => Ok(()),
                    "powerless" => Err(Denial::NotAllowed("somebody may not".to_owned())),
                    "many" => Err(Denial::TooMany),
                    "nowhere" => Err(Denial::Unavailable("the API server is gone".to_owned())),
                    _ => Err(Denial::Unknown("nobody's".to_owned())),
                };
                let _ = answer.send(said);
            }
        });
        let receivers = RemoteReceivers { accesses, waits: mpsc::channel(1).0 };
        let snapshots = publisher.subscribe();
        tokio::spawn(serve_remote(port, snapshots, receivers, limits, std::future::pending()));
        Self { publisher, address, fingerprint, asked }
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("it listens")
    }

    async fn client(&self, token: &str) -> Client {
        Client::over(self.tcp().await, &self.fingerprint, token).await.expect("it speaks TLS")
    }

    /// TLS without a look at the certificate.
    async fn tls(&self) -> io::Result<TlsStream<TcpStream>> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(
            tokio_rustls::rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .expect("some")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from("anybody").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, self.tcp().await).await
    }

    /// Any service, with headers of one's own.
    async fn channel(&self) -> Channel {
        let stream = std::sync::Mutex::new(Some(self.tls().await.expect("it speaks TLS")));
        tonic::transport::Endpoint::from_static("http://agent.invalid")
            .connect_with_connector(tower::service_fn(move |_| {
                let stream = stream.lock().expect("no panic").take().expect("once");
                std::future::ready(Ok::<_, Infallible>(TokioIo::new(stream)))
            }))
            .await
            .expect("it speaks HTTP/2")
    }
}

/// Believes everybody.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

fn snapshot(revision: u64) -> Snapshot {
    let status = NodeStatus { node: "n1".to_owned(), revision, ready: true, ..NodeStatus::default() };
    let endpoints = Arc::new(vec![Endpoint::default()]);
    Snapshot { taken: Instant::now(), status, endpoints, policies: Arc::new(vec![Policy::default()]) }
}

fn code<T>(answer: Result<T, ClientError>) -> String {
    match answer {
        Ok(_) => "answered".to_owned(),
        Err(ClientError::Call { code, message }) => format!("{code}: {message}"),
        Err(error) => format!("{error:?}"),
    }
}

/// Ready when the other end has closed it.
async fn closed(stream: &mut TcpStream) -> bool {
    let mut all = Vec::new();
    timeout(SOON, stream.read_to_end(&mut all)).await.is_ok()
}

#[tokio::test]
async fn who_may_ask_gets_what_reads() {
    let agent = Agent::start(Limits::remote()).await;
    let mut client = agent.client("right").await;
    assert_eq!(client.status().await.expect("answers").node, "n1");
    assert_eq!(client.endpoints("").await.expect("answers").len(), 1);
    assert_eq!(client.policies("").await.expect("answers").len(), 1);
    let mut statuses = Box::pin(client.watch_status().await.expect("a stream"));
    assert_eq!(statuses.next().await.expect("open").expect("a status").revision, 1);
    agent.publisher.publish(snapshot(2));
    assert_eq!(statuses.next().await.expect("open").expect("a status").revision, 2);
    assert_eq!(agent.asked.load(Relaxed), 4, "each call is asked for its token");
}

#[tokio::test]
async fn who_may_not_ask_is_told_so_and_nothing_else() {
    let agent = Agent::start(Limits::remote()).await;
    for (token, said) in [
        ("wrong", "Unauthenticated: nobody's"),
        ("powerless", "PermissionDenied: somebody may not"),
        ("many", "ResourceExhausted: too many ask this agent who they are; try again in some seconds"),
        ("nowhere", "Unavailable: the API server is gone"),
    ] {
        let mut client = agent.client(token).await;
        assert_eq!(code(client.status().await), said, "{token}");
        assert_eq!(code(client.endpoints("").await), said, "{token}");
        assert_eq!(code(client.policies("").await), said, "{token}");
        assert_eq!(code(client.watch_status().await.map(|_| ())), said, "{token}");
        assert_eq!(code(client.wait_enforced("a", "b").await.map(|_| ())), said, "{token}");
        assert_eq!(code(client.check_endpoint(Sandbox::default()).await), said, "{token}");
    }
    assert!(matches!(
        Client::over(agent.tcp().await, &agent.fingerprint, "two\nlines").await,
        Err(ClientError::Token)
    ));
}

/// Also health and reflection; and what is no token asks nobody.
#[tokio::test]
async fn without_one_token_nobody_is_asked_and_nothing_is_answered() {
    let agent = Agent::start(Limits::remote()).await;
    let channel = agent.channel().await;
    let ask = async |headers: &[&str]| {
        let mut request = Request::new(GetStatusRequest {});
        add(request.metadata_mut(), headers);
        AgentServiceClient::new(channel.clone()).get_status(request).await.map_err(|status| status.code())
    };
    let long = format!("Bearer {}", "a".repeat(8193));
    for headers in [
        &[][..],
        &["right"],
        &["Basic right"],
        &["Bearer "],
        &["Bearer  right"],
        &["Bearer ri ght"],
        &["Bearer right", "Bearer right"],
        &[long.as_str()],
    ] {
        assert_eq!(ask(headers).await.err(), Some(Code::Unauthenticated), "{headers:?}");
    }
    let health = async |headers: &[&str]| {
        let mut request = Request::new(HealthCheckRequest::default());
        add(request.metadata_mut(), headers);
        HealthClient::new(channel.clone()).check(request).await.map_err(|status| status.code())
    };
    assert_eq!(health(&[]).await.err(), Some(Code::Unauthenticated));
    assert_eq!(agent.asked.load(Relaxed), 0);
    assert_eq!(health(&["bearer right"]).await.expect("answers").get_ref().status, 1, "SERVING");
    assert!(ask(&["Bearer right"]).await.is_ok());
    let nothing = Request::new(tokio_stream::empty());
    let mut reflection =
        tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let refused = reflection.server_reflection_info(nothing).await;
    assert_eq!(refused.err().map(|status| status.code()), Some(Code::Unauthenticated));
}

fn add(metadata: &mut MetadataMap, values: &[&str]) {
    for value in values {
        metadata.append("authorization", value.parse().expect("ASCII"));
    }
}

#[tokio::test]
async fn what_the_plugin_calls_is_not_there() {
    let agent = Agent::start(Limits::remote()).await;
    let mut client = agent.client("right").await;
    let sandbox = Sandbox {
        namespace: "a".to_owned(),
        name: "b".to_owned(),
        addresses: vec!["10.0.0.1".to_owned()],
        ..Sandbox::default()
    };
    let wait = client.wait_endpoint(sandbox.clone(), Duration::ZERO).await;
    assert!(matches!(wait, Err(ClientError::Unimplemented { .. })), "{wait:?}");
    let check = client.check_endpoint(sandbox).await;
    assert!(matches!(check, Err(ClientError::Unimplemented { .. })), "{check:?}");
}

/// Another process that has the port: it speaks TLS as an agent does, and its operator would like to have tokens.
#[tokio::test]
async fn another_certificate_is_shown_no_token() {
    let (meant, other) = (Agent::start(Limits::remote()).await, Agent::start(Limits::remote()).await);
    assert_ne!(meant.fingerprint, other.fingerprint);
    let client = Client::over(other.tcp().await, &meant.fingerprint, "right").await;
    let is_refused = matches!(client, Err(ClientError::Certificate));
    if let Ok(mut client) = client {
        let _ = client.status().await;
    }
    assert_eq!(other.asked.load(Relaxed), 0, "it got the token");
    assert!(is_refused);
    for wrong in ["", "0", &meant.fingerprint.to_uppercase()] {
        let client = Client::over(meant.tcp().await, wrong, "right").await;
        assert!(matches!(client, Err(ClientError::Certificate)), "{wrong}");
    }
}

/// Whoever listens there in plain text gets no more than a hello.
#[tokio::test]
async fn what_speaks_no_tls_is_shown_no_token() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let stream = TcpStream::connect(listener.local_addr().expect("it has one")).await.expect("it listens");
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("one comes");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("open");
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        all
    });
    let client = Client::over(stream, &"0".repeat(64), "a-very-secret-token").await;
    assert!(matches!(client, Err(ClientError::Handshake { .. })));
    let heard = heard.await.expect("no panic");
    assert!(!heard.windows(6).any(|bytes| bytes == b"secret"), "{heard:?}");
}

#[tokio::test]
async fn plain_http_is_closed_unanswered() {
    let agent = Agent::start(Limits::remote()).await;
    for text in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = agent.tcp().await;
        stream.write_all(text.as_bytes()).await.expect("open");
        let mut all = Vec::new();
        let read = timeout(SOON, stream.read_to_end(&mut all)).await.expect("it is closed");
        assert!(read.is_err() || !String::from_utf8_lossy(&all).contains("HTTP"), "{all:?}");
    }
    assert_eq!(agent.asked.load(Relaxed), 0);
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut_off_and_holds_nobody_up() {
    let limits = Limits { handshake: Duration::from_secs(2), ..Limits::remote() };
    let agent = Agent::start(limits).await;
    let mut silent = agent.tcp().await;
    let mut slow = agent.tcp().await;
    slow.write_all(&[22, 3, 1, 2, 0]).await.expect("open");
    assert_eq!(code(agent.client("right").await.status().await), "answered");
    assert!(closed(&mut silent).await && closed(&mut slow).await);
}

#[tokio::test]
async fn there_are_so_many_connections_and_they_end() {
    let limits = Limits { connections: 2, lifetime: Some(Duration::from_secs(3)), ..Limits::remote() };
    let limits = Limits { handshake: Duration::from_secs(1), ..limits };
    let agent = Agent::start(limits).await;
    let mut first = agent.client("right").await;
    let mut statuses = Box::pin(first.watch_status().await.expect("a stream"));
    assert!(statuses.next().await.expect("open").is_ok());
    let _second = agent.tls().await.expect("there is room");
    let mut third = agent.tcp().await;
    assert!(closed(&mut third).await, "a third one is closed at once");
    // A stream, too, ends with its connection.
    let end = timeout(SOON, statuses.next()).await.expect("it ends");
    assert!(end.is_none_or(|status| status.is_err()));
}

#[tokio::test]
async fn a_client_that_says_nothing_behind_its_handshake_is_closed() {
    let limits = Limits { idle: Duration::from_millis(300), ..Limits::remote() };
    let agent = Agent::start(limits).await;
    let mut stream = agent.tls().await.expect("it speaks TLS");
    let mut all = Vec::new();
    timeout(SOON, stream.read_to_end(&mut all)).await.expect("it is closed").ok();
}

#[tokio::test]
async fn a_port_that_somebody_has_is_named() {
    let one = Port::bind(0).await.expect("a free port");
    let error = Port::bind(one.address().port()).await.err().expect("it is taken").to_string();
    assert!(error.contains(&one.address().to_string()), "{error}");
}
