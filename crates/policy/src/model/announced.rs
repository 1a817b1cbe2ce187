//! What the CNI plugin says of a pod before anybody else can.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::{Link, ObjectKey, Pod};

/// How many announcements of pods that nobody else has told of are kept.
const UNKNOWN_PODS: usize = 1024;

/// A pod of this node that is being started: where it is and which addresses it was given. The kubelet writes
/// `status.podIPs` only after the sandbox is there, which is after its first packet could have been sent; and the
/// addresses of a pod whose sandbox was made anew are old ones there.
///
/// It holds until the interface is gone, the pod is gone, or the same pod is announced again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The pod.
    pub pod: ObjectKey,
    /// `metadata.uid` of the pod; empty where the runtime does not tell it.
    pub uid: String,
    /// Interfaces of this node that the plugins before ours made or used for the pod: index and name. A bridge may be
    /// among them. None: the pod's is the one at whose other end one of the addresses is.
    pub interfaces: Vec<(u32, String)>,
    /// Addresses of the pod, without duplicates.
    pub addresses: Vec<IpAddr>,
}

impl Announced {
    /// True when this is about `pod` and not about an earlier or later one of that name. Manifests in a folder may
    /// have no uid; where the runtime tells none, it is not about a pod that is leaving.
    #[must_use]
    pub fn is_of(&self, pod: &Pod) -> bool {
        let unsaid = pod.uid.is_empty() || (self.uid.is_empty() && !pod.deleting);
        let same_uid = self.uid == pod.uid || unsaid;
        let same_uid = same_uid || crate::planted("announced-by-name-alone");
        same_uid && self.pod.namespace == pod.namespace && self.pod.name == pod.name
    }

    /// True when the pod is behind `link`. Index and name: an index may be another interface's by now.
    #[must_use]
    pub fn is_at(&self, link: &Link) -> bool {
        if self.interfaces.is_empty() {
            return link.addresses.iter().any(|address| self.addresses.contains(address));
        }
        self.interfaces.iter().any(|(ifindex, name)| *ifindex == link.ifindex && *name == link.name)
    }
}

impl super::Cluster {
    pub(super) fn announce(&mut self, announced: Announced, touched: &mut super::Touched) {
        let key = announced.pod.clone();
        touched.topology |= super::cluster::put(&mut self.announced, key, announced);
        self.forget_strangers();
    }

    /// Announcements of pods that came to nothing: their API object was gone before anybody heard of it.
    fn forget_strangers(&mut self) {
        let mut strangers = self.announced.keys().filter(|key| !self.pods.contains_key(*key));
        if let Some(first) = strangers.next().cloned()
            && strangers.count() >= UNKNOWN_PODS
        {
            self.announced.remove(&first);
        }
    }

    /// The interface is gone, and with it what was said about it.
    pub(super) fn withdraw_at(&mut self, ifindex: u32) {
        self.announced.retain(|_, announced| announced.interfaces.iter().all(|(index, _)| *index != ifindex));
    }

    /// The pod is gone: what was said about it, unless it is a later one of that name that was announced.
    pub(super) fn withdraw_of(&mut self, pod: &Pod) -> Option<Announced> {
        let key = pod.key();
        self.announced.get(&key).filter(|announced| announced.is_of(pod))?;
        self.announced.remove(&key)
    }

    /// The addresses that are the pod's own: those that it was announced with, else those of its status.
    pub(crate) fn addresses_of<'a>(&'a self, pod: &'a Pod) -> &'a [IpAddr] {
        if !pod.has_own_network() {
            return &[];
        }
        self.announcement_of(pod).map_or(&pod.addresses, |announced| &announced.addresses)
    }

    pub(crate) fn announcement_of(&self, pod: &Pod) -> Option<&Announced> {
        let here = pod.node == self.node_name;
        self.announced.get(&pod.key()).filter(|announced| here && announced.is_of(pod))
    }
}
