//! Where objects come from: [`api`] lists and watches an API server, [`folder`] reads manifests. Both send the same
//! [`SourceEvent`]s and never give up: what fails is told and tried again, and what was known stays known.

mod api;
mod client;
mod folder;
mod stored;

use cellwall_policy::model::{Change, Kind};
use thiserror::Error;
use tokio::sync::mpsc;

pub use api::api;
pub use client::{ClientError, client};
pub use folder::{Manifests, folder, read, read_stream};
pub use stored::{StoredPolicy, policies_of};

/// What a source says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceEvent {
    /// Something is known. After each complete list comes [`Change::Listed`] with all that it had.
    Change(Change),
    /// What was sent of this kind is all there is at this moment: a watch began, or it said that nothing is new.
    Current(Kind),
    /// What was sent of this kind of policies is all there was at this resourceVersion.
    Version(Kind, String),
    /// The cluster does not know the resource: it counts as listed and empty, and is looked for again.
    NotServed(Kind),
    /// Why what was last listed, or is listed next, may not be all there is of the kind; `None` when it is all again.
    Partial(Kind, Option<String>),
    /// The kind could not be listed or watched: why, and what to do. It is tried again.
    Failed(Kind, String),
}

/// Nobody takes the events any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("nobody takes what the source sends")]
pub struct Closed;

/// The end that a source sends into; it waits when the other end is slow, so that nothing piles up.
#[derive(Clone, Debug)]
struct Events(mpsc::Sender<SourceEvent>);

impl Events {
    async fn send(&self, event: SourceEvent) -> Result<(), Closed> {
        self.0.send(event).await.map_err(|_| Closed)
    }

    async fn changes(&self, changes: impl IntoIterator<Item = Change>) -> Result<(), Closed> {
        for change in changes {
            self.send(SourceEvent::Change(change)).await?;
        }
        Ok(())
    }
}
