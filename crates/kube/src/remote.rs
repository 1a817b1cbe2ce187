//! How the agent of a node is reached from wherever the API server is: its object says where it listens, the API server gives a
//! token for it and leads to it.

use std::time::Duration;

use cellwall_policy::planted;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use thiserror::Error;
use tokio::io::DuplexStream;
use tokio::time::timeout;

use crate::access::AUDIENCE;
use crate::answer::in_time;
use crate::node_object::{CellwallNode, Remote};

/// How long a token is good for; the API server gives none for less.
const TOKEN_S: i64 = 600;
/// `validation.DNS1123SubdomainMaxLength` of Kubernetes: the longest name.
const LONGEST_NAME: usize = 253;
/// How long what was refused on the node takes to be told.
const TOLD: Duration = Duration::from_secs(2);

/// Why an agent cannot be asked.
#[derive(Debug, Error)]
pub enum RemoteError {
    /// No agent says that it is there.
    #[error(
        "there is no CellwallNode {0}: no agent has written one, there is no such node, or the chart's CRDs are not installed (`kubectl \
         get nodes,cellwallnodes`)"
    )]
    NoObject(String),
    /// The agent does not answer from outside the node.
    #[error(
        "the agent of {node}, of version {version}, does not answer from outside the node{}: it is older than this command, it was \
         started without a port (value remote.port of the chart), or the port was taken, which its log says",
        trouble.as_ref().map(|trouble| format!(" ({trouble})")).unwrap_or_default()
    )]
    NoPort {
        /// The node.
        node: String,
        /// What the agent says of itself.
        version: String,
        /// Why the node is not ready, if it is not: it may be disabled.
        trouble: Option<String>,
    },
    /// What the object says cannot be.
    #[error("the CellwallNode {node} has no name in status.remote.{field}, but `{text}`")]
    Nonsense {
        /// The node.
        node: String,
        /// Which field.
        field: &'static str,
        /// What is there.
        text: String,
    },
    /// Whoever runs this has no right to do it.
    #[error("you may not {what}: {message}")]
    Forbidden {
        /// What was tried.
        what: String,
        /// What the API server says.
        message: String,
    },
    /// An object is not there.
    #[error(
        "cannot {what}: {message}; was the chart installed anew? The agent's CellwallNode follows within seconds"
    )]
    Gone {
        /// What was tried.
        what: String,
        /// What the API server says.
        message: String,
    },
    /// The API server, or the kubelet, did not answer as it should.
    #[error("cannot {what}: {message}")]
    Failed {
        /// What was tried.
        what: String,
        /// Why not.
        message: String,
    },
}

/// A way to the port of an agent.
pub struct Tunnel {
    /// Leads there.
    pub stream: DuplexStream,
    /// SHA-256 of the certificate of the one that is meant, in hexadecimal digits. Anybody else must not see the token.
    pub certificate: String,
    /// What the agent knows you by, for ten minutes.
    pub token: String,
    /// What the node says where it does not lead there; none where it says nothing within a moment.
    pub refused: BoxFuture<'static, Option<String>>,
}

impl Tunnel {
    /// Opens one to the agent of `node`. Asks for the node's CellwallNode, for a token of the chart's service account for readers, and
    /// to forward a port of the agent's pod.
    pub async fn open(client: &Client, node: &str) -> Result<Self, RemoteError> {
        let Remote { namespace, pod, port, service_account, certificate_sha256 } =
            remote(client, node).await?;
        let port = u16::try_from(port).map_err(|_| RemoteError::Nonsense {
            node: node.to_owned(),
            field: "port",
            text: port.to_string(),
        })?;
        let token = token(client, &namespace, &service_account).await?;
        let what = format!("forward port {port} of the agent's pod {namespace}/{pod}");
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        let mut forwarder =
            in_time(pods.portforward(&pod, &[port])).map_err(|error| failed(&what, &error)).await?;
        let error = forwarder.take_error(port).expect("it is taken once");
        let refused = async move { timeout(TOLD, error).await.ok().flatten() }.boxed();
        let stream = forwarder.take_stream(port).expect("it is taken once");
        Ok(Self { stream, certificate: certificate_sha256, token, refused })
    }
}

/// Where the agent says that it listens.
async fn remote(client: &Client, node: &str) -> Result<Remote, RemoteError> {
    let nodes = Api::<CellwallNode>::all(client.clone());
    if !is_name(node) {
        return Err(RemoteError::NoObject(node.to_owned()));
    }
    let object = in_time(nodes.get(node)).await.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 404 => RemoteError::NoObject(node.to_owned()),
        error => failed(&format!("get cellwallnodes/{node}"), &error),
    })?;
    let status = object.status.ok_or_else(|| RemoteError::NoObject(node.to_owned()))?;
    let Some(remote) = status.remote.clone() else {
        let trouble = status.trouble(Timestamp::now().as_second());
        return Err(RemoteError::NoPort { node: node.to_owned(), version: status.agent_version, trouble });
    };
    // These become parts of paths, at which you may do more than ask an agent.
    for (field, text) in
        [("namespace", &remote.namespace), ("pod", &remote.pod), ("serviceAccount", &remote.service_account)]
    {
        if !is_name(text) && !planted("names-are-paths") {
            let (node, text) = (node.to_owned(), text.chars().take(LONGEST_NAME).collect());
            return Err(RemoteError::Nonsense { node, field, text });
        }
    }
    Ok(remote)
}

/// A token for agents, and for nothing else. Whoever reaches the API server by a certificate has none to show.
async fn token(client: &Client, namespace: &str, account: &str) -> Result<String, RemoteError> {
    let what = format!("create a token of the service account {namespace}/{account}");
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec![AUDIENCE.to_owned()]),
            expiration_seconds: Some(TOKEN_S),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let params = PostParams::default();
    let answer = in_time(accounts.create_token_request(account, &params, &request));
    let answer = answer.await.map_err(|error| failed(&what, &error))?;
    let message = "the answer has no token".to_owned();
    answer.status.and_then(|status| status.token).ok_or(RemoteError::Failed { what, message })
}

fn failed(what: &str, error: &kube::Error) -> RemoteError {
    let what = what.to_owned();
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            RemoteError::Forbidden { what, message: status.message.clone() }
        }
        kube::Error::Api(status) if status.code == 404 => {
            RemoteError::Gone { what, message: status.message.clone() }
        }
        kube::Error::Api(status) => RemoteError::Failed { what, message: status.message.clone() },
        error => RemoteError::Failed { what, message: error.to_string() },
    }
}

/// A name of an object, as it may stand in a path.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= LONGEST_NAME
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|byte| plain(byte) || matches!(byte, b'-' | b'.'))
}
