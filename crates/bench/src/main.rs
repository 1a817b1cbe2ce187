//! `make bench`: what a packet, a table and a change cost, beside floors of the same run. Results are in
//! `benches/RESULTS.md`.

mod bars;
mod cli;
mod compare;
mod drive;
mod driver;
mod executed;
mod growth;
mod machine;
mod memory;
mod objects;
mod packets;
mod program;
mod report;
mod revisions;
mod rig;
mod rights;
mod rows;
mod run;
mod sample;
mod wire;
mod world;

fn main() -> anyhow::Result<()> {
    cli::run()
}
