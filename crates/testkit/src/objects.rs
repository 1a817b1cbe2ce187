//! Random clusters, small enough that their objects meet each other all the time.
//!
//! One seed is one [`Objects`]. The universe is tiny on purpose: three namespaces, four label keys of two or three
//! values, two nodes, mostly up to eight pods, up to five policies and three Services, a handful of ports and address
//! blocks. Every field
//! of a NetworkPolicy is missing, empty or set; a minority is what the API server would refuse today and may still have
//! stored (S29, S57). [`flows`] asks about every pair of addresses at the borders of what the objects say, [`mutate`]
//! changes one of them as a watch would, [`shrink`] makes a failing cluster readable, and [`describe`] and [`changes`]
//! print it. [`newer`] serves it as an API server of a later release might.
//!
//! A seed means the same cluster on every machine as long as these files do not change: a change of the generator
//! changes what all seeds mean. So a cluster that failed is kept twice: its seed in `seeds.txt` ([`failed_seeds`]), and
//! what `describe` prints of the least of it in `corpus/` ([`corpus`]), beside the traps that were laid by hand. A history
//! that failed has its seed in `histories.txt` ([`failed_histories`]).

mod corpus;
mod describe;
mod flows;
mod line;
mod mutate;
mod newer;
mod pods;
mod policies;
mod rng;
mod services;
mod shrink;
mod universe;

use cellwall_oracle::Objects;

use self::universe::Universe;
pub use self::{
    corpus::{Trap, corpus, failed_histories, failed_seeds},
    describe::{changes, describe, read_objects},
    flows::{at_least, flows},
    line::{read_flow, write_flow},
    mutate::mutate,
    newer::newer,
    rng::Rng,
    services::{ServiceFlow, service_flows},
    shrink::shrink,
};

/// The cluster of a seed.
#[must_use]
pub fn generate(seed: u64) -> Objects {
    let mut rng = Rng::new(seed);
    let universe = Universe::new(&mut rng);
    let mut objects = universe.cluster(&mut rng);
    objects.pods = pods::generate(&universe, &mut rng);
    objects.policies = policies::generate(&universe, &objects, &mut rng);
    services::generate(&universe, &mut objects, &mut rng);
    objects
}
