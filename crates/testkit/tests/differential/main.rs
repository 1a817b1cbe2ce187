//! The compiler, the plan and the decision against the judge: random clusters, every flow at their borders.
//!
//! `CELLWALL_SETS` says how many clusters, `CELLWALL_SEED` the first seed. What a message prints as a seed can be
//! asked for again with both.

mod beside;
mod checked;
mod cluster;
mod fuzz;
mod judged;
mod kernel;
mod plans;
mod running;

mod report;
