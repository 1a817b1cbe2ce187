//! The rights that the agent ships with: the verifier writes barriers into the programs of who has fewer, and lets who
//! has more do more.

use anyhow::{Context, Result};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

/// Leaves this thread, and those that it starts, `CAP_BPF`, `CAP_NET_ADMIN` and `CAP_PERFMON`.
pub(crate) fn drop_to_shipped() -> Result<()> {
    let shipped = CapabilitySet::BPF | CapabilitySet::NET_ADMIN | CapabilitySet::PERFMON;
    let sets = CapabilitySets { effective: shipped, permitted: shipped, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).context("capset")
}
