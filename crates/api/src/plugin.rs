//! The service for the CNI plugin: what it tells goes to the agent's loop, and what it waits for is read from the
//! snapshots that the loop publishes.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cellwall_policy::model::{Announced, Kind, ObjectKey};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use crate::convert::object;
use crate::snapshot::Snapshot;
use crate::v1alpha1::plugin_service_server::PluginService;
use crate::v1alpha1::{
    CheckEndpointRequest, CheckEndpointResponse, Endpoint, Enforced, Sandbox, WaitEndpointRequest,
    WaitEndpointResponse,
};

/// Longest wait. A runtime gives up on a plugin sooner.
const LONGEST: Duration = Duration::from_mins(1);
/// Interfaces and addresses that a pod may have.
const MANY: usize = 16;
/// `validation.DNS1123SubdomainMaxLength` of Kubernetes: the longest name of a pod.
const LONGEST_NAME: usize = 253;

/// Announces pods, and waits until they are enforced.
pub(crate) struct Plugin {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    announcements: mpsc::Sender<Announced>,
}

impl Plugin {
    pub(crate) fn new(
        snapshots: watch::Receiver<Arc<Snapshot>>,
        announcements: mpsc::Sender<Announced>,
    ) -> Self {
        Self { snapshots, announcements }
    }
}

#[tonic::async_trait]
impl PluginService for Plugin {
    async fn wait_endpoint(
        &self,
        request: Request<WaitEndpointRequest>,
    ) -> Result<Response<WaitEndpointResponse>, Status> {
        let WaitEndpointRequest { sandbox, wait_ms } = request.into_inner();
        let announced = announced(sandbox)?;
        let deadline = Instant::now() + LONGEST.min(Duration::from_millis(wait_ms.into()));
        let mut snapshots = self.snapshots.clone();
        // A loop that is busy for so long has not enforced it either, and the answer says so.
        if let Ok(Err(_)) = timeout_at(deadline, self.announcements.send(announced.clone())).await {
            return Err(stopping());
        }
        let enforced = loop {
            let enforced = enforced(&snapshots.borrow_and_update(), &announced);
            if enforced.enforced {
                break enforced;
            }
            match timeout_at(deadline, snapshots.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(stopping()),
                Err(_) => break enforced,
            }
        };
        Ok(Response::new(WaitEndpointResponse { enforced: Some(enforced) }))
    }

    async fn check_endpoint(
        &self,
        request: Request<CheckEndpointRequest>,
    ) -> Result<Response<CheckEndpointResponse>, Status> {
        let announced = announced(request.into_inner().sandbox)?;
        let enforced = enforced(&self.snapshots.borrow(), &announced);
        Ok(Response::new(CheckEndpointResponse { enforced: Some(enforced) }))
    }
}

fn stopping() -> Status {
    Status::unavailable("the agent is stopping; ask the next one")
}

/// Reads what a plugin says.
fn announced(sandbox: Option<Sandbox>) -> Result<Announced, Status> {
    let wrong = |field: &str, what: &str| Status::invalid_argument(format!("sandbox.{field}: {what}"));
    let Sandbox { namespace, name, uid, interfaces, addresses } = sandbox.unwrap_or_default();
    for (field, text, required) in
        [("namespace", &namespace, true), ("name", &name, true), ("uid", &uid, false)]
    {
        if (required && text.is_empty()) || text.len() > LONGEST_NAME {
            return Err(wrong(field, "it is a name of 1 to 253 bytes"));
        }
    }
    if addresses.is_empty() || addresses.len() > MANY || interfaces.len() > MANY {
        return Err(wrong("addresses", "a pod has 1 to 16 addresses and at most 16 interfaces"));
    }
    let mut read: Vec<IpAddr> = Vec::new();
    for text in addresses {
        match text.parse() {
            Ok(address) if read.contains(&address) => {}
            Ok(address) => read.push(address),
            Err(_) => return Err(wrong("addresses", &format!("`{text}` is not an IP address"))),
        }
    }
    Ok(Announced {
        pod: ObjectKey::namespaced(Kind::Pod, &namespace, &name),
        uid,
        interfaces: interfaces.into_iter().map(|interface| (interface.ifindex, interface.name)).collect(),
        addresses: read,
    })
}

/// Whether the pod is enforced, and what is missing.
fn enforced(snapshot: &Snapshot, announced: &Announced) -> Enforced {
    let unseen = "the agent has not seen its interface yet".to_owned();
    let mut here = snapshot.endpoints.iter().filter(|endpoint| is_at(endpoint, announced));
    let mut missing = here.try_fold(unseen, |_, endpoint| missing_at(endpoint, announced));
    if let Some(message) = &mut missing {
        let wrong = snapshot.status.conditions.iter().filter(|c| c.required && !c.ok);
        for condition in wrong {
            // A string takes what is written to it.
            let _ = write!(message, "; {}: {}", condition.r#type, condition.message);
        }
    }
    Enforced {
        enforced: missing.is_none(),
        message: missing.map(|what| format!("{} is not enforced: {what}", announced.pod)).unwrap_or_default(),
        revision: snapshot.status.revision,
    }
}

/// The interface was named, or has the addresses.
fn is_at(endpoint: &Endpoint, announced: &Announced) -> bool {
    if announced.interfaces.is_empty() {
        return announced.addresses.iter().any(|address| endpoint.addresses.contains(&address.to_string()));
    }
    let is_it = |(ifindex, name): &(u32, String)| *ifindex == endpoint.ifindex && *name == endpoint.interface;
    announced.interfaces.iter().any(is_it)
}

fn missing_at(endpoint: &Endpoint, announced: &Announced) -> Option<String> {
    let interface = &endpoint.interface;
    let is_uid = announced.uid.is_empty() || endpoint.pod_uid.is_empty() || announced.uid == endpoint.pod_uid;
    let has_all = announced.addresses.iter().all(|a| endpoint.addresses.contains(&a.to_string()));
    let is_planted = cellwall_policy::planted("a-seen-interface-is-enforced");
    match &endpoint.pod {
        _ if is_planted => None,
        None => Some(format!(
            "the API server has not told the agent of this pod, with uid `{}`, yet, or another pod claims to be behind \
             {interface}",
            announced.uid
        )),
        Some(pod) if *pod != object(&announced.pod) || !is_uid => Some(format!(
            "{interface} leads to Pod {}/{} with uid `{}`",
            pod.namespace, pod.name, endpoint.pod_uid
        )),
        Some(_) if !has_all => Some(format!("the agent knows other addresses at {interface}")),
        Some(_) if !endpoint.live => Some("the revision with it is not live yet".to_owned()),
        Some(_) if !endpoint.unconfirmed.is_empty() => {
            Some(format!("whether all its policies are here is not confirmed: {}", endpoint.unconfirmed))
        }
        Some(_) if !endpoint.attached => Some(format!("the programs are not on {interface} yet")),
        Some(_) => None,
    }
}
