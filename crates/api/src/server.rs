//! All services on one socket: the agent's, health, reflection; and those that read on a port, for whoever may ask.

use std::future::Future;
use std::sync::Arc;

use cellwall_abi::planted;
use cellwall_policy::model::Announced;
use tokio::sync::{mpsc, watch};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::Request;
use tonic::service::RoutesBuilder;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;
use tower::filter::AsyncFilterLayer;

use crate::access::{Access, admit, token};
use crate::connection::{accept, accept_remote};
use crate::limits::Limits;
use crate::plugin::Plugin;
use crate::port::Port;
use crate::service::Agent;
use crate::snapshot::Snapshot;
use crate::socket::Socket;
use crate::v1alpha1::DESCRIPTOR;
use crate::v1alpha1::agent_service_server::{AgentServiceServer, SERVICE_NAME};
use crate::v1alpha1::plugin_service_server::PluginServiceServer;
use crate::wait::Wait;

/// Who takes what the services cannot answer from a snapshot.
#[derive(Clone, Debug)]
pub struct Receivers {
    /// Pods of which the CNI plugin tells.
    pub announcements: mpsc::Sender<Announced>,
    /// Policies that somebody waits for.
    pub waits: mpsc::Sender<Wait>,
}

/// The server ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("the gRPC server ended")]
pub struct ServeError(#[from] tonic::transport::Error);

/// Who takes what is asked from outside the node.
#[derive(Clone, Debug)]
pub struct RemoteReceivers {
    /// Tokens of those who ask.
    pub accesses: mpsc::Sender<Access>,
    /// Policies that somebody waits for.
    pub waits: mpsc::Sender<Wait>,
}

/// Serves until `stop` is ready, then lets calls that are under way end. Streams end when the publisher is dropped.
pub async fn serve(
    socket: Socket,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    receivers: Receivers,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut routes = reading(&snapshots, receivers.waits, health, limits);
    routes.add_service(plugin(&snapshots, receivers.announcements, limits));
    let server = builder(limits)
        .add_routes(routes.routes())
        .serve_with_incoming_shutdown(accept(socket, limits), stop);
    with_health(server, &reporter, snapshots).await
}

/// The same from outside the node: what reads, for those who may, and nothing else. Each call is asked for its token.
pub async fn serve_remote(
    port: Port,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    receivers: RemoteReceivers,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let RemoteReceivers { accesses, waits } = receivers;
    let mut routes = reading(&snapshots, waits, health, limits);
    if planted("the-plugins-calls-from-outside") {
        routes.add_service(plugin(&snapshots, mpsc::channel(1).0, limits));
    }
    let check = move |request: Request<Body>| {
        let (token, accesses) = (token(request.headers()), accesses.clone());
        async move {
            admit(token?, &accesses).await?;
            Ok::<_, Status>(request)
        }
    };
    let server = builder(limits)
        .layer(AsyncFilterLayer::new(check))
        .add_routes(routes.routes())
        .serve_with_incoming_shutdown(accept_remote(port, limits), stop);
    with_health(server, &reporter, snapshots).await
}

fn builder(limits: Limits) -> Server {
    let server = Server::builder()
        .max_concurrent_streams(limits.streams)
        .concurrency_limit_per_connection(limits.streams as usize)
        .http2_max_header_list_size(limits.header_bytes)
        .http2_max_pending_accept_reset_streams(Some(limits.streams as usize))
        .http2_keepalive_interval(Some(limits.keepalive))
        .http2_keepalive_timeout(Some(limits.keepalive));
    match limits.lifetime {
        Some(lifetime) => server.max_connection_age(lifetime).max_connection_age_grace(limits.handshake),
        None => server,
    }
}

/// The services that read.
fn reading(
    snapshots: &watch::Receiver<Arc<Snapshot>>,
    waits: mpsc::Sender<Wait>,
    health: HealthServer<impl Health>,
    limits: Limits,
) -> RoutesBuilder {
    let agent = AgentServiceServer::new(Agent::new(snapshots.clone(), waits))
        .max_decoding_message_size(limits.request_bytes)
        .max_encoding_message_size(limits.answer_bytes);
    let mut routes = RoutesBuilder::default();
    routes
        .add_service(agent)
        .add_service(health.max_decoding_message_size(limits.request_bytes))
        .add_service(reflection().build_v1().expect("the descriptors are generated"));
    // grpcurl before 1.8.9 asks for the older name.
    if !planted("reflection-in-one-version") {
        routes.add_service(reflection().build_v1alpha().expect("the descriptors are generated"));
    }
    routes
}

fn plugin(
    snapshots: &watch::Receiver<Arc<Snapshot>>,
    announcements: mpsc::Sender<Announced>,
    limits: Limits,
) -> PluginServiceServer<Plugin> {
    PluginServiceServer::new(Plugin::new(snapshots.clone(), announcements))
        .max_decoding_message_size(limits.request_bytes)
}

/// Runs a server, with health that says what is published.
async fn with_health(
    server: impl Future<Output = Result<(), tonic::transport::Error>>,
    reporter: &HealthReporter,
    snapshots: watch::Receiver<Arc<Snapshot>>,
) -> Result<(), ServeError> {
    let ready = snapshots.borrow().status.ready;
    report_health(reporter, ready).await;
    tokio::select! {
        ended = server => Ok(ended?),
        never = follow_health(reporter, snapshots) => match never {},
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Keeps what health says in step with ready.
async fn follow_health(
    reporter: &HealthReporter,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
) -> std::convert::Infallible {
    let mut reported = None;
    loop {
        let ready = snapshots.borrow_and_update().status.ready;
        if reported.replace(ready) != Some(ready) {
            report_health(reporter, ready).await;
        }
        if snapshots.changed().await.is_err() {
            report_health(reporter, false).await;
            return std::future::pending().await;
        }
    }
}

async fn report_health(reporter: &HealthReporter, ready: bool) {
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    // The empty name is the server as a whole (grpc.health.v1).
    reporter.set_service_status("", status).await;
    reporter.set_service_status(SERVICE_NAME, status).await;
}
