//! The naive evaluator: raw Kubernetes objects and a flow in, the right decision out.
//!
//! It exists to judge the compiler, so it is written from the text of the API and from nothing else, and it shares
//! only [`Flow`], [`Decision`](cellwall_policy::flow::Decision) and their parts with the code it judges. It walks
//! the objects as the API server serves them, or as somebody wrote them in a manifest, in their order, for every
//! single flow: no index, no cache, no normal form. Where it could be faster or plainer, it is plainer.
//!
//! One file holds one notion of the API: [`decide`] walks policies and rules, and below it stand policy types,
//! selectors, peers, ports, address blocks, Services, and the question of who an address belongs to. `S31` and the like
//! are statements of the project's table of NetworkPolicy semantics; every branch notes the statement it follows,
//! so that a run can tell which of them its flows have exercised.
//!
//! What it must not do: use the compiler's model, remember anything between two flows, or panic on an object.

mod block;
mod decide;
mod objects;
mod party;
mod peer;
mod policy_types;
mod port;
mod selector;
mod service;
mod statements;

pub use cellwall_policy::flow::Flow;

pub use self::{
    decide::{Ruling, decide},
    objects::{Objects, api},
    party::subject,
    service::{Frontend, decide_service, frontends},
    statements::Statements,
};
