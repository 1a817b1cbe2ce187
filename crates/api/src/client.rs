//! How the command line and the CNI plugin ask an agent: at its unix socket, or over whatever leads to its port.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use futures::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint as Target};
use tonic::{Request, Status};
use tower::service_fn;

use crate::limits::ANSWER_BYTES;
use crate::tls;
use crate::v1alpha1::agent_service_client::AgentServiceClient;
use crate::v1alpha1::plugin_service_client::PluginServiceClient;
use crate::v1alpha1::{
    CheckEndpointRequest, Endpoint, Enforced, GetStatusRequest, ListEndpointsRequest, ListPoliciesRequest,
    NodeStatus, ObjectReference, Policy, Sandbox, WaitEndpointRequest, WaitEnforcedRequest,
    WaitEnforcedResponse, WatchStatusRequest,
};

/// How long an agent may take to answer: it answers from memory.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing is at the path.
    #[error(
        "no agent answers on {}: is cellwall-agent running on this node? If it listens elsewhere, name its socket \
         with --socket",
        .path.display()
    )]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// A socket is there and nobody listens.
    #[error(
        "no agent answers on {}: its socket is there, but the agent has ended; look at its log", .path.display()
    )]
    Ended {
        /// The path.
        path: PathBuf,
    },
    /// The socket is not for this user.
    #[error("{} is for root only: run this command as root on the node", .path.display())]
    NotAllowed {
        /// The path.
        path: PathBuf,
    },
    /// The socket cannot be used for another reason.
    #[error("cannot connect to {}", .path.display())]
    Connect {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody else has the agent's port, or the agent is another one since.
    #[error(
        "what answers at the agent's port has another certificate than the agent's CellwallNode names: either the agent has just \
         started, and writes its own within seconds, or another process of the node has the port; nothing was sent to it"
    )]
    Certificate,
    /// What answers does not speak TLS, or nobody does.
    #[error("what leads to the agent's port ended before anybody spoke TLS there; is the agent running?")]
    Handshake {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A token has other characters than a header may have.
    #[error("the token is none: it has characters that no token has")]
    Token,
    /// No answer in time.
    #[error("the agent took the connection and did not answer within {} s; look at its log", PATIENCE.as_secs())]
    Silent,
    /// The agent closed the connection.
    #[error(
        "the agent closed the connection: it is stopping, it has too many clients, this user is neither root nor the \
         agent's own, or it was asked from outside its node for ten minutes ({message})"
    )]
    Closed {
        /// What the connection said.
        message: String,
    },
    /// The agent knows no such call.
    #[error("the agent does not know this call: it is of another version than this command ({message})")]
    Unimplemented {
        /// What the agent said.
        message: String,
    },
    /// The agent answered with an error.
    #[error("the agent answered {code}: {message}")]
    Call {
        /// Name of the gRPC code.
        code: String,
        /// What the agent said.
        message: String,
    },
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            // One without a cause is what the agent said.
            tonic::Code::Unavailable | tonic::Code::Unknown if status.source().is_some() => {
                Self::Closed { message }
            }
            tonic::Code::Unimplemented => Self::Unimplemented { message },
            code => Self::Call { code: format!("{code:?}"), message },
        }
    }
}

/// Shows a token with every call, where there is one.
#[derive(Clone, Debug)]
struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// A connection to an agent.
#[derive(Clone, Debug)]
pub struct Client {
    service: AgentServiceClient<InterceptedService<Channel, Bearer>>,
    plugin: PluginServiceClient<InterceptedService<Channel, Bearer>>,
}

impl Client {
    /// Connects to the socket at `path`.
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).await.map_err(|error| unreachable_at(path, error))?;
        Self::speaking(stream, Bearer(None)).await
    }

    /// Asks whoever is at the other end of `stream`, if that one has the certificate with this fingerprint
    /// ([`crate::Port::fingerprint`]). Nobody else is shown the token.
    pub async fn over<S>(stream: S, fingerprint: &str, token: &str) -> Result<Self, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().map_err(|_| ClientError::Token)?;
        // So that it is in no trace.
        value.set_sensitive(true);
        let stream = tls::connect(stream, fingerprint).await?;
        Self::speaking(stream, Bearer(Some(value))).await
    }

    async fn speaking<S>(stream: S, bearer: Bearer) -> Result<Self, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // The stream is opened before and not by the channel, which would hide why it cannot be.
        let stream = Mutex::new(Some(stream));
        let connector = service_fn(move |_| {
            let stream = stream.lock().ok().and_then(|mut stream| stream.take());
            std::future::ready(
                stream.map(TokioIo::new).ok_or(io::Error::from(io::ErrorKind::ConnectionAborted)),
            )
        });
        // The address is never used; HTTP needs one.
        let target = Target::from_static("http://agent.invalid");
        let channel = timeout(PATIENCE, target.connect_with_connector(connector))
            .await
            .map_err(|_| ClientError::Silent)?
            .map_err(|error| ClientError::Closed { message: error.to_string() })?;
        let channel = InterceptedService::new(channel, bearer);
        let plugin = PluginServiceClient::new(channel.clone());
        let service = AgentServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES);
        Ok(Self { service, plugin })
    }

    /// The state of the node.
    pub async fn status(&mut self) -> Result<NodeStatus, ClientError> {
        let answer = in_time(self.service.get_status(GetStatusRequest {})).await?;
        Ok(answer.into_inner().status.unwrap_or_default())
    }

    /// The state of the node, now and after every change.
    pub async fn watch_status(
        &mut self,
    ) -> Result<impl Stream<Item = Result<NodeStatus, ClientError>> + use<>, ClientError> {
        let answer = in_time(self.service.watch_status(WatchStatusRequest {})).await?;
        Ok(answer.into_inner().map(|next| Ok(next?.status.unwrap_or_default())))
    }

    /// How far the cluster is with a NetworkPolicy, until every node enforces it.
    pub async fn wait_enforced(
        &mut self,
        namespace: &str,
        name: &str,
    ) -> Result<impl Stream<Item = Result<WaitEnforcedResponse, ClientError>> + use<>, ClientError> {
        let (kind, namespace, name) = ("NetworkPolicy".to_owned(), namespace.to_owned(), name.to_owned());
        let request = WaitEnforcedRequest { policy: Some(ObjectReference { kind, namespace, name }) };
        let answer = in_time(self.service.wait_enforced(request)).await?;
        Ok(answer.into_inner().map(|next| Ok(next?)))
    }

    /// The pods enforced here; all of them when `namespace` is empty.
    pub async fn endpoints(&mut self, namespace: &str) -> Result<Vec<Endpoint>, ClientError> {
        let request = ListEndpointsRequest { namespace: namespace.to_owned() };
        Ok(in_time(self.service.list_endpoints(request)).await?.into_inner().endpoints)
    }

    /// The policies; all of them when `namespace` is empty.
    pub async fn policies(&mut self, namespace: &str) -> Result<Vec<Policy>, ClientError> {
        let request = ListPoliciesRequest { namespace: namespace.to_owned() };
        Ok(in_time(self.service.list_policies(request)).await?.into_inner().policies)
    }

    /// Tells the agent of a pod that is being started, and waits up to `wait` until it is enforced. How long the
    /// agent may keep silent is the caller's to say.
    pub async fn wait_endpoint(&mut self, sandbox: Sandbox, wait: Duration) -> Result<Enforced, ClientError> {
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let request = WaitEndpointRequest { sandbox: Some(sandbox), wait_ms };
        Ok(self.plugin.wait_endpoint(request).await?.into_inner().enforced.unwrap_or_default())
    }

    /// Whether a pod is enforced.
    pub async fn check_endpoint(&mut self, sandbox: Sandbox) -> Result<Enforced, ClientError> {
        let request = CheckEndpointRequest { sandbox: Some(sandbox) };
        Ok(in_time(self.plugin.check_endpoint(request)).await?.into_inner().enforced.unwrap_or_default())
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, ClientError> {
    Ok(timeout(PATIENCE, call).await.map_err(|_| ClientError::Silent)??)
}

fn unreachable_at(path: &Path, source: io::Error) -> ClientError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => ClientError::NoSocket { path },
        io::ErrorKind::ConnectionRefused => ClientError::Ended { path },
        io::ErrorKind::PermissionDenied => ClientError::NotAllowed { path },
        _ => ClientError::Connect { path, source },
    }
}
