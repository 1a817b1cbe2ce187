//! Namespaces.

use alloc::string::String;

use super::Labels;

/// A namespace. Its labels include `kubernetes.io/metadata.name`, which the API server always sets (S25) and the
/// directory source adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: Labels,
    /// `cellwall.dev/enforcement: audit` on the namespace: all its pods are audited.
    pub audit: bool,
    /// `metadata.deletionTimestamp` is set: what is in it is being deleted, in any order.
    pub deleting: bool,
}
