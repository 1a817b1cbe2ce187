//! One table per statement about rules: what the evaluator answers, written out by hand from the statement.
//!
//! A line such as `x/a <- y/a TCP 80` is a flow into x/a from y/a, judged at x/a; `x/a -> 192.0.2.1 UDP 53` is one
//! out of x/a, judged at x/a. `6` after a name is the pod's IPv6 address. Words that end a line: `node` says that the
//! own node made the packet.

mod blocks;
mod defaults;
mod isolation;
mod lifecycle;
mod nodes;
mod ports;
mod rules;
mod selectors;
mod world;
