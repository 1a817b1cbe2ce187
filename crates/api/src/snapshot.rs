//! One moment of a node, as the services answer it.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use pbjson_types::Timestamp;
use tokio::sync::watch;

use crate::v1alpha1::{Endpoint, NodeStatus, Policy};

/// One moment of a node. The lists are shared between snapshots that differ in the status only.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was taken: ages in `status` count to this moment.
    pub taken: Instant,
    /// The state of the node.
    pub status: NodeStatus,
    /// The pods enforced here, in the order of the answer.
    pub endpoints: Arc<Vec<Endpoint>>,
    /// The policies, in the order of the answer.
    pub policies: Arc<Vec<Policy>>,
}

impl Snapshot {
    /// The state of the node with ages as of `now`.
    pub(crate) fn status_at(&self, now: Instant) -> NodeStatus {
        let elapsed = now.saturating_duration_since(self.taken).as_millis();
        let elapsed_ms = u64::try_from(elapsed).unwrap_or(u64::MAX);
        let mut status = self.status.clone();
        for age_ms in status.sources.iter_mut().filter_map(|source| source.last_event_age_ms.as_mut()) {
            *age_ms = age_ms.saturating_add(elapsed_ms);
        }
        status
    }

    /// True when only measurements differ.
    pub(crate) fn same_state(&self, other: &Self) -> bool {
        same(&self.endpoints, &other.endpoints)
            && same(&self.policies, &other.policies)
            && state(&self.status) == state(&other.status)
    }
}

fn same<T: PartialEq>(one: &Arc<T>, other: &Arc<T>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

/// The status without what changes on a quiet node.
pub(crate) fn state(status: &NodeStatus) -> NodeStatus {
    let mut state = status.clone();
    state.counters.clear();
    for table in &mut state.tables {
        table.used = 0;
    }
    for source in &mut state.sources {
        source.last_event_age_ms = None;
        source.objects = 0;
    }
    state
}

/// Where the agent puts its snapshots, and the services get them.
#[derive(Debug)]
pub struct Publisher {
    sender: watch::Sender<Arc<Snapshot>>,
}

impl Publisher {
    /// Starts with `first`.
    pub fn new(first: Snapshot) -> Self {
        Self { sender: watch::Sender::new(Arc::new(first)) }
    }

    /// Replaces the snapshot, and wakes those who wait for a change only if the state is another. True when it is.
    pub fn publish(&self, next: Snapshot) -> bool {
        self.sender.send_if_modified(|current| {
            let changed = !current.same_state(&next);
            *current = Arc::new(next);
            changed
        })
    }

    /// For the services, and for whoever else waits for changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.sender.subscribe()
    }
}

/// A moment of the wall clock in the contract's words.
pub fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}
