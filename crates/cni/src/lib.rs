//! The chained CNI plugin: a pod's first container starts when the pod is enforced, and not before.
//!
//! ```text
//! runtime ─ stdin, CNI_* ─► command ─ WaitEndpoint ─► agent ─► programs and tables
//!                              └─ prevResult, as it came, or an error ─► stdout
//! ```
//!
//! It is the last plugin of the list: the ones before it have made the interface and chosen the addresses. It touches
//! neither. [`files`] and [`conflist`] are the other half: how the agent puts it into the list that a runtime reads, and
//! takes it out again. [`entry`] is what both halves agree on.
//!
//! Written after the CNI specification, versions 0.3.1 to 1.1.0: <https://www.cni.dev/docs/spec/>.

mod agent;
pub mod command;
pub mod conflist;
pub mod entry;
mod environment;
pub mod error;
pub mod files;
mod json;
mod network;
mod previous;
