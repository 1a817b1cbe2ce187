//! Services, and where they lead.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::{Kind, Labels, ObjectKey};
use crate::flow::Protocol;

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// Name; empty where a Service has one port without a name.
    pub name: String,
    /// Protocol; TCP where the object says none.
    pub protocol: Protocol,
    /// Port at the virtual addresses, 1 to 65535.
    pub number: u16,
    /// Port at the addresses of nodes.
    pub node_port: Option<u16>,
}

/// A Service. One without a cluster IP (headless, or a name of something elsewhere) is translated nowhere and has no
/// addresses here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Cluster IPs, which the API server gives out.
    pub cluster_addresses: Vec<IpAddr>,
    /// External IPs, and addresses of load balancers in VIP mode: whoever writes the Service chooses them. None of them is
    /// loopback, link-local, multicast or unspecified (CVE-2021-25737).
    pub external_addresses: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// kube-proxy leaves it to another proxy (`service.kubernetes.io/service-proxy-name`).
    pub other_proxy: bool,
}

impl Service {
    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        ObjectKey::namespaced(Kind::Service, &self.namespace, &self.name)
    }
}

/// A port of the backends in a slice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackendPort {
    /// Name of the Service's port.
    pub name: String,
    /// Protocol; TCP where the object says none.
    pub protocol: Protocol,
    /// Port at the backends, 1 to 65535.
    pub number: u16,
}

/// Some backends of a Service: controllers make slices, and so may anybody. It can only make stricter what is decided
/// about a Service (CVE-2021-25740): every backend is judged as what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace of the slice and its Service.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Name of the Service; empty where the slice belongs to none.
    pub service: String,
    /// Addresses of backends, whether they are ready, serving, terminating or not: all that may be chosen.
    pub addresses: Vec<IpAddr>,
    /// Ports of these backends.
    pub ports: Vec<BackendPort>,
}

impl EndpointSlice {
    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        ObjectKey::namespaced(Kind::EndpointSlice, &self.namespace, &self.name)
    }
}

/// What a Service says about whom it means, for where no controller has made slices of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSelector {
    /// The Service.
    pub service: ObjectKey,
    /// Labels that its pods have; `None` where backends are written by hand.
    pub pods: Option<Labels>,
    /// Where its ports lead.
    pub targets: Vec<ServiceTarget>,
    /// It has no virtual address by intention: its name is that of its pods.
    pub headless: bool,
    /// The name elsewhere that it stands for.
    pub external_name: Option<String>,
}

/// Where a port of a Service leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTarget {
    /// Name of the Service's port.
    pub name: String,
    /// Protocol; TCP where the object says none.
    pub protocol: Protocol,
    /// Port of the pods.
    pub port: TargetPort,
}

/// A port of pods that a Service names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// By number, 1 to 65535.
    Number(u16),
    /// By the name of a container port, which may be another number on each pod.
    Name(String),
}
