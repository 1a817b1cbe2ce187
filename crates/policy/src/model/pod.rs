//! Pods.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::Labels;
use crate::flow::Protocol;

/// How far a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Succeeded or Failed: it has released its addresses (S81).
    Terminal,
    /// Not running yet, or not known.
    Pending,
    /// Running.
    Running,
}

/// A named container port (S43, S44, S47).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedPort {
    /// Name.
    pub name: String,
    /// Protocol; TCP where the object says none.
    pub protocol: Protocol,
    /// Number, 1 to 65535.
    pub number: u16,
}

/// A port of the pod's node that leads to the pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The node's address; `None`: any of them.
    pub address: Option<IpAddr>,
    /// Protocol; TCP where the object says none.
    pub protocol: Protocol,
    /// Number, 1 to 65535.
    pub number: u16,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.uid`; empty from a directory that gives none.
    pub uid: String,
    /// Labels.
    pub labels: Labels,
    /// All of `status.podIPs` (S85), `status.podIP` where that is all there is.
    pub addresses: Vec<IpAddr>,
    /// `spec.nodeName`; empty before scheduling.
    pub node: String,
    /// Uses its node's network: neither subject nor peer of a selector (S60).
    pub host_network: bool,
    /// Phase.
    pub phase: Phase,
    /// `metadata.deletionTimestamp` is set: still enforced (S83), but a newer pod with its address wins.
    pub deleting: bool,
    /// `metadata.creationTimestamp`, seconds of Unix time; 0 when not known.
    pub created_s: i64,
    /// Named ports of containers and native sidecars, in pod order; of one (name, protocol) only the first.
    pub ports: Vec<NamedPort>,
    /// Host ports of containers and native sidecars; none of a pod in its node's network, which has its ports itself.
    pub host_ports: Vec<HostPort>,
    /// `cellwall.dev/enforcement: audit` on the pod.
    pub audit: bool,
}

impl Pod {
    /// True when selectors can match it as subject or peer, once it has an address.
    #[must_use]
    pub fn has_own_network(&self) -> bool {
        let has_ended = self.phase == Phase::Terminal && !crate::planted("completed-pods-keep-addresses");
        !self.host_network && !has_ended
    }

    /// True when selectors can match it as subject or peer and its addresses are its own.
    #[must_use]
    pub fn has_own_addresses(&self) -> bool {
        self.has_own_network() && !self.addresses.is_empty()
    }

    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> super::ObjectKey {
        super::ObjectKey::namespaced(super::Kind::Pod, &self.namespace, &self.name)
    }

    /// The number of a named port for a protocol, if this pod has it.
    #[must_use]
    pub fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.ports.iter().find(|p| p.name == name && p.protocol == protocol).map(|p| p.number)
    }
}
