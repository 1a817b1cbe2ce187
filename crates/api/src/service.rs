//! The service of the contract, answered from the last snapshot; but how far the cluster is, others know.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures::{Stream, StreamExt};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tonic::{Request, Response, Status};

use crate::snapshot::{Snapshot, state};
use crate::v1alpha1::agent_service_server::AgentService;
use crate::v1alpha1::{
    GetStatusRequest, GetStatusResponse, ListEndpointsRequest, ListEndpointsResponse, ListPoliciesRequest,
    ListPoliciesResponse, ObjectReference, WaitEnforcedRequest, WaitEnforcedResponse, WatchStatusRequest,
    WatchStatusResponse,
};
use crate::wait::{self, Refusal, Wait};

/// Answers from the last snapshot.
pub(crate) struct Agent {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    waits: mpsc::Sender<Wait>,
}

impl Agent {
    pub(crate) fn new(snapshots: watch::Receiver<Arc<Snapshot>>, waits: mpsc::Sender<Wait>) -> Self {
        Self { snapshots, waits }
    }

    /// The lock inside is held for one clone of an `Arc`: no reader holds up the agent.
    fn last(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }
}

#[tonic::async_trait]
impl AgentService for Agent {
    type WatchStatusStream = Pin<Box<dyn Stream<Item = Result<WatchStatusResponse, Status>> + Send>>;
    type WaitEnforcedStream = Pin<Box<dyn Stream<Item = Result<WaitEnforcedResponse, Status>> + Send>>;

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(GetStatusResponse { status: Some(self.last().status_at(Instant::now())) }))
    }

    async fn watch_status(
        &self,
        _: Request<WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let mut sent = None;
        let statuses = WatchStream::new(self.snapshots.clone()).filter_map(move |snapshot| {
            // Endpoints and policies share the channel, and their changes are not the status's.
            let state = state(&snapshot.status);
            let news = sent.as_ref() != Some(&state);
            sent = Some(state);
            let answer =
                news.then(|| Ok(WatchStatusResponse { status: Some(snapshot.status_at(Instant::now())) }));
            std::future::ready(answer)
        });
        Ok(Response::new(Box::pin(statuses)))
    }

    async fn list_endpoints(
        &self,
        request: Request<ListEndpointsRequest>,
    ) -> Result<Response<ListEndpointsResponse>, Status> {
        let namespace = &request.get_ref().namespace;
        let last = self.last();
        let endpoints = last.endpoints.iter().filter(|e| is_in(e.pod.as_ref(), namespace)).cloned().collect();
        Ok(Response::new(ListEndpointsResponse { endpoints }))
    }

    async fn list_policies(
        &self,
        request: Request<ListPoliciesRequest>,
    ) -> Result<Response<ListPoliciesResponse>, Status> {
        let namespace = &request.get_ref().namespace;
        let last = self.last();
        let policies =
            last.policies.iter().filter(|p| is_in(p.policy.as_ref(), namespace)).cloned().collect();
        Ok(Response::new(ListPoliciesResponse { policies }))
    }

    async fn wait_enforced(
        &self,
        request: Request<WaitEnforcedRequest>,
    ) -> Result<Response<Self::WaitEnforcedStream>, Status> {
        let (namespace, name) = wait::policy(request.into_inner().policy)?;
        let (answers, received) = mpsc::channel(1);
        self.waits.try_send(Wait { namespace, name, answers }).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::TooMany.into(),
            TrySendError::Closed(_) => Status::unavailable("the agent is stopping; ask the next one"),
        })?;
        let answers = ReceiverStream::new(received).map(|answer| answer.map_err(Status::from));
        Ok(Response::new(Box::pin(answers)))
    }
}

/// True when the object is in the namespace, or no namespace was asked for.
fn is_in(object: Option<&ObjectReference>, namespace: &str) -> bool {
    namespace.is_empty() || object.is_some_and(|object| object.namespace == namespace)
}
