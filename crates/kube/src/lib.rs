//! Kubernetes objects in, [`cellwall_policy::model::Change`] out.
//!
//! [`convert`] is pure: one object becomes the model's value and a list of what is wrong with it. [`source`] does
//! the IO: it lists and watches an API server, or a folder of manifests, and sends what `convert` made of it. Both
//! sources send the same events, so nothing behind them knows which one runs. [`node_object`] is where a node says what it
//! enforces, and [`enforced`] reads from all of these who enforces a policy, and how each node is; no change comes from there.
//! [`access`] asks for an agent who may ask it from outside its node, and [`remote`] leads there.
//!
//! The rule for everything here: what is not understood never widens access. A peer or port that cannot be read
//! matches nothing, a selector of pods that cannot be read keeps its isolation and loses its rules, an object that
//! cannot be read at all leaves its last version in force; and each has a problem that names object and field.

pub mod access;
mod answer;
pub mod convert;
pub mod enforced;
pub mod node_object;
pub mod remote;
pub mod source;

pub use k8s_openapi;
pub use kube;
