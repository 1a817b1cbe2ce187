//! What the kernel should hold, and what it was found to hold: two types, so that nobody takes one for the other.

use alloc::collections::BTreeMap;
use alloc::string::String;
use core::net::IpAddr;

use cellwall_abi::{ClassPair, EndpointRecord, Live, PolicyEntry, PolicyKey, PortKey, PortValue};
use ipnet::IpNet;

use crate::model::{ObjectKey, RuleRef};

/// A pod that is enforced here, as the tables describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedEndpoint {
    /// The pod; `None` while the interface is known and the pod behind it is not.
    pub pod: Option<ObjectKey>,
    /// `metadata.uid` of the pod.
    pub uid: String,
    /// The record. `since` is 0: the plan decides it. `midflow_until` is 0: the plan keeps what is there.
    pub record: EndpointRecord,
    /// The interface was there before the agent first looked.
    pub preexisting: bool,
}

/// Prefix of the table of ports: key and prefix length.
pub type PortPrefix = (PortKey, u32);

/// One state of all policies, addresses and pods of this node: the content of one bank.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// By interface index.
    pub endpoints: BTreeMap<u32, WantedEndpoint>,
    /// Class of every known pod's and node's address.
    pub addresses: BTreeMap<IpAddr, u32>,
    /// Class of every prefix that some peer set or pod range names.
    pub prefixes: BTreeMap<IpNet, u32>,
    /// What differs from the default of an image.
    pub policy: BTreeMap<PolicyKey, PolicyEntry>,
    /// Lists of intervals too long for an entry.
    pub ports: BTreeMap<PortPrefix, PortValue>,
    /// What the rule ids in the tables stand for. Not written to the kernel.
    pub rules: BTreeMap<u32, RuleRef>,
    /// How many peers and CIDRs each policy names: a refusal names the greatest. Not written to the kernel.
    pub cost: BTreeMap<ObjectKey, usize>,
}

/// What the kernel's tables hold, both banks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The live word.
    pub live: Live,
    /// Interface index → slot.
    pub endpoints: BTreeMap<u32, u32>,
    /// (Slot, bank) → record, for slots in use.
    pub records: BTreeMap<(u32, u32), EndpointRecord>,
    /// Address → slot.
    pub addresses: BTreeMap<IpAddr, u32>,
    /// Slot → classes, for slots in use.
    pub classes: BTreeMap<u32, ClassPair>,
    /// Prefix → classes.
    pub prefixes: BTreeMap<IpNet, ClassPair>,
    /// Exceptions of images.
    pub policy: BTreeMap<PolicyKey, PolicyEntry>,
    /// Lists of intervals.
    pub ports: BTreeMap<PortPrefix, PortValue>,
}
