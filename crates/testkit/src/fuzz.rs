//! Frames as an attacker makes them, and what must become of each: "delivery implies verdict".
//!
//! [`generate`] builds a frame of one [`Class`] from a grammar, [`mutate`] spoils one. [`see`] reads a frame as a
//! receiver does; it shares no code with the decision. [`Judge`] says of what it saw whether a pod may send or get it:
//! by the oracle where it is a flow, by `docs/robustness.md` where it is not. [`Coverage`] counts the states of the
//! decision that were reached, and keeps the frames that reached them first; `make fuzz` writes them, and those that
//! fail, into `corpus/`.
//!
//! One seed is one sequence of frames, on every machine.

mod corpus;
mod coverage;
mod grammar;
mod judge;
mod known;
mod layers;
mod mutate;
mod see;

pub use corpus::{Kept, keep_found, keep_reached, keeps, moved, read_corpus, read_found, read_states};
pub use coverage::Coverage;
pub use grammar::{Class, Place, generate, link_local};
pub use judge::{Judge, Sentence};
pub use mutate::mutate;
pub use see::{Part, Seen, Why, see};
