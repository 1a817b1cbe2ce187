//! What compilation says to people.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use crate::model::{Labels, ObjectKey, Problem};
use crate::wanted::Wanted;

/// The result of one compilation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// The tables.
    pub wanted: Wanted,
    /// Pods enforced here, by interface index.
    pub endpoints: BTreeMap<u32, EndpointReport>,
    /// Pods of this node that are not enforced, each with its reason.
    pub unplaced: Vec<Unplaced>,
    /// Every policy, with what it selects here.
    pub policies: BTreeMap<ObjectKey, PolicyReport>,
    /// What only compilation can see: two pods with one address or one interface, two interfaces of one pod, a Service that
    /// cannot be reached. Problems of single objects are in the cluster.
    pub problems: Vec<Problem>,
}

/// One enforced pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointReport {
    /// The pod, or `None` while the interface is not identified.
    pub pod: Option<ObjectKey>,
    /// `metadata.uid` of the pod.
    pub uid: String,
    /// Labels of the pod.
    pub labels: Labels,
    /// Interface index of the host side.
    pub ifindex: u32,
    /// Name of the host side.
    pub interface: String,
    /// Addresses that the pod may send from.
    pub addresses: Vec<IpAddr>,
    /// Judged and reported, not dropped.
    pub audit: bool,
    /// Per direction: some policy isolates it or has rules for it.
    pub isolated: [bool; 2],
    /// Per direction: the policies that select it, sorted.
    pub policies: [Vec<ObjectKey>; 2],
}

/// What a policy does on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyReport {
    /// Pods of this node that it selects, sorted.
    pub selects: Vec<ObjectKey>,
    /// Per direction: how many rules it has.
    pub rules: [u32; 2],
    /// `metadata.generation` of the version in force.
    pub generation: i64,
}

/// A pod of this node that is not enforced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unplaced {
    /// The pod.
    pub pod: ObjectKey,
    /// Why.
    pub reason: UnplacedReason,
}

/// Why a pod of this node is not enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnplacedReason {
    /// It has no address yet.
    NoAddress,
    /// It uses the node's network, which NetworkPolicy does not cover (S60).
    HostNetwork,
    /// No interface of this node has its address at the other end.
    NoInterface,
    /// A newer pod has its address.
    AddressTaken,
}

impl fmt::Display for UnplacedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAddress => "it has no address yet",
            Self::HostNetwork => "it uses the node's network, which policies do not cover",
            Self::NoInterface => {
                "no veth of this node leads to its address; what macvlan, ipvlan, SR-IOV or netkit connects is not enforced"
            }
            Self::AddressTaken => "another pod has its address",
        })
    }
}
