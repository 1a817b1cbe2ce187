//! What is compiled and planned for whole clusters that are written down here, beyond the verdicts themselves.

mod announced;
mod audit;
mod departed;
mod identity;
mod images;
mod left_out;
mod overlay;
mod own_node;
mod refusals;
mod taken_over;
mod unplaced;
mod world;
