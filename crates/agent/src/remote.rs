//! Answers from outside the node: opens the port, and asks the API server who may ask there.

use std::sync::Arc;

use cellwall_api::{Access, Denial, Limits, Port, RemoteReceivers, Snapshot, Wait, serve_remote};
use cellwall_kube::access::{Denied, Reviews};
use cellwall_kube::kube::Client;
use cellwall_kube::node_object;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::args::Remote;

/// Calls that wait to be told whether they may ask.
const ACCESSES: usize = 32;

/// Opens the port, if there is to be one, and answers there until nobody publishes any more; where it is, for the node's object.
/// Enforcement is worth more than answers: without the port the agent goes on.
pub(crate) async fn spawn(
    args: &Remote,
    client: &Client,
    node: &str,
    waits: mpsc::Sender<Wait>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
) -> Option<node_object::Remote> {
    let (Some(namespace), Some(pod)) = (args.pod_namespace.clone(), args.pod_name.clone()) else {
        return None;
    };
    if args.port == 0 {
        return None;
    }
    let port = match Port::bind(args.port).await {
        Ok(port) => port,
        Err(error) => {
            let error = anyhow::Error::from(error);
            warn!("nobody is answered from outside the node: {error:#}; choose another with --remote-port");
            return None;
        }
    };
    info!("answers at {} from outside the node", port.address());
    let object = node_object::Remote {
        namespace,
        pod,
        port: port.address().port().into(),
        service_account: args.service_account.clone(),
        certificate_sha256: port.fingerprint().to_owned(),
    };
    answer(port, Reviews::new(client.clone(), node.to_owned()), waits, snapshots);
    Some(object)
}

fn answer(
    port: Port,
    reviews: Reviews,
    waits: mpsc::Sender<Wait>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
) {
    let (accesses, received) = mpsc::channel(ACCESSES);
    tokio::spawn(judge(Arc::new(reviews), received));
    let mut published = snapshots.clone();
    let stop = async move { while published.changed().await.is_ok() {} };
    let receivers = RemoteReceivers { accesses, waits };
    let served = Box::pin(serve_remote(port, snapshots, receivers, Limits::remote(), stop));
    tokio::spawn(async move {
        if let Err(error) = served.await {
            error!("{:#}", anyhow::Error::from(error));
        }
    });
}

/// Answers each on its own: who is known already does not wait for the API server.
async fn judge(reviews: Arc<Reviews>, mut received: mpsc::Receiver<Access>) {
    let mut asking = JoinSet::new();
    while let Some(Access { token, answer }) = received.recv().await {
        while asking.try_join_next().is_some() {}
        if asking.len() >= ACCESSES {
            // Who has left needs no answer.
            let _ = answer.send(Err(Denial::TooMany));
            continue;
        }
        let reviews = Arc::clone(&reviews);
        asking.spawn(async move {
            let allowed = reviews.allow(&token).await.map_err(|denied| denial(&denied));
            let _ = answer.send(allowed);
        });
    }
}

fn denial(denied: &Denied) -> Denial {
    let text = denied.to_string();
    match denied {
        Denied::Unknown => Denial::Unknown(text),
        Denied::NotAllowed { .. } => Denial::NotAllowed(text),
        Denied::TooMany => Denial::TooMany,
        Denied::Failed(_) => Denial::Unavailable(text),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::{Body, to_bytes};
    use axum::http::{Request, Response};
    use cellwall_api::Publisher;
    use cellwall_api::client::{Client as Asker, ClientError};
    use cellwall_api::v1alpha1::NodeStatus;
    use cellwall_kube::kube::client::Body as Asked;
    use serde_json::{Value, json};
    use tokio::net::TcpStream;

    use super::*;

    /// Knows `reader`, who may ask, and `stranger`, who may not.
    async fn cluster(request: Request<Asked>) -> Result<Response<Body>, Infallible> {
        let body = to_bytes(Body::new(request.into_body()), 1 << 20).await.expect("short");
        let spec = &serde_json::from_slice::<Value>(&body).expect("JSON")["spec"];
        let status = match spec["token"].as_str() {
            Some(name @ ("reader" | "stranger")) => {
                json!({"authenticated": true, "user": {"username": name}, "audiences": ["cellwall.dev"]})
            }
            Some(_) => json!({"authenticated": false}),
            None => json!({"allowed": spec["user"] == "reader"}),
        };
        let body = Body::from(json!({"spec": {}, "status": status}).to_string());
        Ok(Response::builder().status(201).body(body).expect("a response"))
    }

    fn published() -> Publisher {
        let status = NodeStatus { node: "n1".to_owned(), ..NodeStatus::default() };
        let taken = std::time::Instant::now();
        Publisher::new(Snapshot { taken, status, endpoints: Arc::default(), policies: Arc::default() })
    }

    #[tokio::test]
    async fn who_may_ask_is_the_api_servers_to_say() {
        let port = Port::bind(0).await.expect("a free port");
        let (address, fingerprint) = (port.address(), port.fingerprint().to_owned());
        let client = Client::new(tower::service_fn(cluster), "default");
        let publisher = published();
        answer(port, Reviews::new(client, "n1".to_owned()), mpsc::channel(1).0, publisher.subscribe());
        let ask = async |token: &str| {
            let stream = TcpStream::connect(address).await.expect("it listens");
            let mut asker = Asker::over(stream, &fingerprint, token).await.expect("it speaks TLS");
            match asker.status().await {
                Ok(status) => status.node,
                Err(ClientError::Call { code, .. }) => code,
                Err(error) => error.to_string(),
            }
        };
        assert_eq!(ask("reader").await, "n1");
        assert_eq!(ask("stranger").await, "PermissionDenied");
        assert_eq!(ask("nobody").await, "Unauthenticated");
    }

    #[tokio::test]
    async fn there_is_no_port_where_nobody_could_reach_it_or_somebody_has_it() {
        let taken = Port::bind(0).await.expect("a free port");
        let args = |port: u16, pod: Option<&str>| Remote {
            port,
            service_account: "cellwall-reader".to_owned(),
            pod_namespace: Some("cellwall".to_owned()),
            pod_name: pod.map(str::to_owned),
        };
        for args in [args(0, Some("a")), args(1, None), args(taken.address().port(), Some("a"))] {
            let client = Client::new(tower::service_fn(cluster), "default");
            let snapshots = published().subscribe();
            let object = spawn(&args, &client, "n1", mpsc::channel(1).0, snapshots).await;
            assert_eq!(object, None, "{args:?}");
        }
    }
}
