//! Lines that say what takes long.

use std::time::Instant;

/// Says what is being done, with the time since the beginning.
#[derive(Clone, Copy, Debug)]
pub struct Progress(Instant);

impl Default for Progress {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Progress {
    /// One line on standard error.
    pub fn say(&self, text: &str) {
        eprintln!("[{:>4} s] {text}", self.0.elapsed().as_secs());
    }
}
