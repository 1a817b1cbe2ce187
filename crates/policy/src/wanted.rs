//! What the kernel should hold, and what it was found to hold: two types, so that nobody takes one for the other.

use alloc::collections::BTreeMap;
use alloc::string::String;
use core::net::IpAddr;

use cellwall_abi::{
    ClassPair, EndpointRecord, Live, PolicyEntry, PolicyKey, PortKey, PortValue, ServiceKey4, ServiceKey6,
    ServiceRecord,
};
use ipnet::IpNet;

use crate::compile::Causes;
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

/// An address, port and protocol that this node translates: the key of SERVICES4 or SERVICES6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The virtual address.
    pub address: IpAddr,
    /// The port, host byte order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

impl From<ServiceKey4> for ServiceKey {
    fn from(key: ServiceKey4) -> Self {
        Self { address: key.address.into(), port: key.port.get(), protocol: key.protocol }
    }
}

impl From<ServiceKey6> for ServiceKey {
    fn from(key: ServiceKey6) -> Self {
        Self { address: key.address.into(), port: key.port.get(), protocol: key.protocol }
    }
}

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
    /// What this node translates.
    pub services: BTreeMap<ServiceKey, ServiceRecord>,
    /// What the rule ids in the tables stand for. Not written to the kernel.
    pub rules: BTreeMap<u32, RuleRef>,
    /// Why the rows are there: a refusal names the object that asks for most. Not written to the kernel.
    pub causes: Causes,
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
    /// What is translated → slot; slots are given to both families.
    pub services: BTreeMap<ServiceKey, u32>,
    /// (Slot, bank) → record, for slots in use.
    pub service_records: BTreeMap<(u32, u32), ServiceRecord>,
}
