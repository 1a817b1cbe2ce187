//! What is compiled and planned for whole clusters that are written down here, beyond the verdicts themselves.

mod audit;
mod departed;
mod refusals;
mod takes_away;
mod world;
