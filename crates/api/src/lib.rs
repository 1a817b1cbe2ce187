//! What a node's agent answers over gRPC, and how it is asked: the contract as generated code, the services on a
//! unix socket, and the client that the command line and the CNI plugin use. Everything here reads, but for one call
//! of the plugin, which announces a pod. What reads is answered on a [`Port`], too, by TLS and to those who may ask ([`Access`]).
//!
//! The agent publishes a [`Snapshot`] into a watch channel; the services answer from the last one and never touch
//! the agent's state, so a slow reader costs the loop nothing. Only who waits for a policy is answered by somebody else
//! ([`Wait`]), who asks the cluster, as is who may ask from outside the node. No other crate names tonic or prost.

mod access;
pub mod client;
mod connection;
mod convert;
mod limits;
mod plugin;
mod port;
mod server;
mod service;
mod snapshot;
mod socket;
mod tls;
mod wait;

pub use access::{Access, Denial};
pub use convert::{counter, endpoint, object, policy, problem, unplaced};
pub use limits::Limits;
pub use port::{Port, PortError};
pub use server::{Receivers, RemoteReceivers, ServeError, serve, serve_remote};
pub use snapshot::{Publisher, Snapshot, timestamp};
pub use socket::{BindError, Socket};
pub use tls::IdentityError;
pub use wait::{Refusal, Wait};

/// Where the agent listens unless a setting says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/cellwall/agent.sock";

/// The contract, generated from `proto/cellwall/v1alpha1`; `tests/generated.rs` generates it again and compares.
#[expect(
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    unused_qualifications,
    reason = "generated"
)]
pub mod v1alpha1 {
    include!("generated/cellwall.v1alpha1.rs");
    include!("generated/cellwall.v1alpha1.serde.rs");

    /// The files of the contract, for reflection.
    pub(crate) const DESCRIPTOR: &[u8] = include_bytes!("generated/descriptor.bin");
}
