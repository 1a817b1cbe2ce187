//! Policies tried without a kernel: the decision runs on frames ([`frame`]) over what plans write ([`memory`],
//! [`connections`]).

pub mod connections;
pub mod frame;
pub mod memory;
