//! What an operator can set.

use std::path::PathBuf;
use std::time::Duration;

use cellwall_abi::{ABI_VERSION, tables};
use cellwall_policy::plan::Capacities;

/// How the programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// By tcx, and by a clsact filter where the kernel answers that it has no tcx.
    #[default]
    Auto,
    /// By a clsact filter, for tests of the fall-back.
    Clsact,
}

/// Where the pins are, how large the tables are, how strict the programs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the BPF file system is mounted.
    pub bpffs: PathBuf,
    /// Name of our folder in it. Two names are two data paths that know nothing of each other.
    pub pin_name: String,
    /// Rows of the tables that plans write.
    pub capacities: Capacities,
    /// Rows of FLOWS4 and FLOWS6 each.
    pub flows: u32,
    /// Rows of PENDING4 and PENDING6 each.
    pub pending: u32,
    /// Rows of FRAGMENTS4 and FRAGMENTS6 each.
    pub fragments: u32,
    /// Size of the ring of events in bytes: a power of two, and whole pages.
    pub events_bytes: u32,
    /// An interface whose pod is not known drops everything ([`cellwall_abi::CONFIG_STRICT`]).
    pub strict: bool,
    /// The bit of the packet mark that says that a packet is stamped; 0 switches stamps and deferral off: Services are
    /// then addresses like any other. No other software on the node may use the bit. kube-proxy has 0x4000 and 0x8000,
    /// the portmap plugin 0x2000, Calico the upper half, the VPC plugin of AWS 0x80.
    pub mark: u32,
    /// How long to wait for another agent to let go of the pins; `None`: not at all.
    pub wait: Option<Duration>,
    /// How the programs are attached.
    pub attach: Attach,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bpffs: PathBuf::from("/sys/fs/bpf"),
            pin_name: "cellwall".to_owned(),
            capacities: Capacities::default(),
            flows: tables::FLOWS4.capacity,
            pending: tables::PENDING4.capacity,
            fragments: tables::FRAGMENTS4.capacity,
            events_bytes: tables::EVENTS.capacity,
            strict: false,
            mark: 0x1000,
            wait: None,
            attach: Attach::default(),
        }
    }
}

impl Settings {
    /// Our folder in the BPF file system.
    pub fn root(&self) -> PathBuf {
        self.bpffs.join(&self.pin_name)
    }

    /// The folder of this ABI version.
    pub fn folder(&self) -> PathBuf {
        self.root().join(format!("abi{ABI_VERSION}"))
    }

    /// Rows of a table, by its name. A name that is not in [`tables::ALL`] has the capacity of its object.
    pub(crate) fn capacity(&self, name: &str) -> Option<u32> {
        let c = &self.capacities;
        Some(match name {
            "ENDPOINTS" | "BUCKETS" | "SHARES" => c.endpoints,
            "RECORDS" => 2 * c.endpoints,
            "ADDRESSES4" | "ADDRESSES6" => c.addresses,
            "CLASSES" => 2 * c.addresses,
            "PREFIXES4" | "PREFIXES6" => c.prefixes,
            "POLICY" => c.policy,
            "PORTS" => c.ports,
            "SERVICES4" | "SERVICES6" => c.services,
            "SERVICE_RECORDS" => 4 * c.services,
            "FLOWS4" | "FLOWS6" => self.flows,
            "PENDING4" | "PENDING6" => self.pending,
            "FRAGMENTS4" | "FRAGMENTS6" => self.fragments,
            "EVENTS" => self.events_bytes,
            _ => return None,
        })
    }
}
