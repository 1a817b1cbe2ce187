//! Pods of this node, and whether the policies are here that the API server had before them. Watches of two resources are in
//! no order: a pod may be heard of before a policy that was there first. So when a pod is first known, the API server is
//! asked which policies its namespace has, and the pod counts as enforced once those are live.

use std::collections::{BTreeMap, BTreeSet};

use cellwall_abi::planted;
use cellwall_kube::source::StoredPolicy;
use cellwall_policy::model::{Change, Cluster, Kind, ObjectKey, Pod};

/// A pod, by name and uid.
pub type PodId = (ObjectKey, String);
/// Pods that the API server is to be asked for.
pub type Unconfirmed = BTreeSet<PodId>;

/// What the API server said of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Pods that were known before it was asked.
    pub pods: Unconfirmed,
    /// The policies that the namespace of these pods has; or why that is not known.
    pub policies: Result<Vec<StoredPolicy>, String>,
}

/// Pods of which it is not known that all their policies are here.
#[derive(Debug, Default)]
pub(crate) struct Confirm {
    pods: BTreeMap<ObjectKey, Open>,
}

#[derive(Debug)]
struct Open {
    uid: String,
    /// What has to be here; `None` until the API server has answered.
    needs: Option<Vec<StoredPolicy>>,
    /// Why it has not.
    error: Option<String>,
}

impl Confirm {
    /// Takes note of a change before it is applied to `cluster`.
    pub(crate) fn heard(&mut self, change: &Change, cluster: &Cluster) {
        match change {
            Change::Pod(pod) if is_meant(pod, cluster) => {
                let key = pod.key();
                let is_known = cluster.pods.get(&key);
                if is_known.is_none_or(|known| known.uid != pod.uid || !is_meant(known, cluster)) {
                    self.pods.insert(key, Open { uid: pod.uid.clone(), needs: None, error: None });
                }
            }
            Change::Pod(pod) => drop(self.pods.remove(&pod.key())),
            Change::Gone(key) if key.kind == Kind::Pod => drop(self.pods.remove(key)),
            Change::Listed(Kind::Pod, present) => {
                let present: BTreeSet<&ObjectKey> = present.iter().collect();
                self.pods.retain(|key, _| present.contains(key));
            }
            _ => {}
        }
    }

    /// Takes an answer.
    pub(crate) fn answered(&mut self, stored: &Stored) {
        for (key, uid) in &stored.pods {
            let Some(open) = self.pods.get_mut(key).filter(|open| open.uid == *uid) else { continue };
            match &stored.policies {
                Err(error) => open.error = Some(error.clone()),
                Ok(policies) => {
                    open.error = None;
                    let needs = open.needs.get_or_insert_with(|| policies.clone());
                    // One that was changed meanwhile need not be here as it is now; one that was deleted never comes.
                    needs.retain(|need| policies.iter().any(|p| p.key == need.key && p.uid == need.uid));
                }
            }
        }
    }

    /// Everything that `cluster` has is live: what waited for nothing else is confirmed. True when something was.
    pub(crate) fn settle(&mut self, cluster: &Cluster) -> bool {
        let before = self.pods.len();
        self.pods
            .retain(|_, open| open.needs.as_ref().is_none_or(|needs| !needs.iter().all(|n| has(cluster, n))));
        self.pods.len() != before
    }

    /// Who is to be asked for.
    pub(crate) fn open(&self) -> Unconfirmed {
        self.pods.iter().map(|(key, open)| (key.clone(), open.uid.clone())).collect()
    }

    /// What is missing for a pod; empty when nothing is.
    pub(crate) fn missing(&self, pod: Option<&ObjectKey>, cluster: &Cluster) -> String {
        let Some(open) = pod.and_then(|pod| self.pods.get(pod)) else { return String::new() };
        match (&open.needs, &open.error) {
            (_, Some(error)) => {
                format!("the API server did not say which policies its namespace has: {error}")
            }
            (None, None) => "the API server was not asked yet which policies its namespace has".to_owned(),
            (Some(needs), None) => {
                let late = needs.iter().filter(|need| !has(cluster, need)).map(|need| need.key.to_string());
                let late: Vec<String> = late.collect();
                if late.is_empty() {
                    "its policies are not live yet".to_owned()
                } else {
                    format!("the API server has, and its watch has not told yet: {}", late.join(", "))
                }
            }
        }
    }
}

/// Somebody of this node whom policies can be about.
fn is_meant(pod: &Pod, cluster: &Cluster) -> bool {
    pod.node == cluster.node_name && pod.has_own_network()
}

/// This version of a policy, or a later one, was heard of.
fn has(cluster: &Cluster, need: &StoredPolicy) -> bool {
    let known = cluster.policies.get(&need.key);
    known.is_some_and(|policy| policy.uid == need.uid && policy.generation >= need.generation)
        || planted("a-watch-that-lags-is-believed")
}
