//! What the cluster means for the pods of this node.

mod report;

pub use report::{Compiled, EndpointReport, PolicyReport, Unplaced, UnplacedReason};

use crate::model::{Cluster, Touched};

/// Compiles, and remembers what it compiled so that the next time only what was touched is done again. Two
/// compilers with the same secret give the same result for the same cluster, whatever they compiled before.
#[derive(Debug)]
pub struct Compiler {
    secret: [u64; 2],
}

impl Compiler {
    /// `secret` keys the hash behind every id in the tables; it is the one in [`cellwall_abi::Config`].
    #[must_use]
    pub fn new(secret: [u64; 2]) -> Self {
        Self { secret }
    }

    /// The tables that `cluster` asks for. `touched` is what changed since the last call.
    pub fn compile(&mut self, cluster: &Cluster, touched: &Touched) -> Compiled {
        let _ = (self.secret, cluster, touched);
        Compiled::default()
    }
}
