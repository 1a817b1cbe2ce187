//! The loaded programs, as the kernel describes them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::programs::ProgramInfo;
use serde::Serialize;

use crate::driver::{Program, pinned};

/// A shipped program.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Loaded {
    pub(crate) name: &'static str,
    /// Instructions that the verifier looked at, all paths.
    pub(crate) verified: u32,
    /// Bytes after translation.
    pub(crate) translated: u32,
    /// Bytes of machine code.
    pub(crate) machine_code: u32,
    /// All programs and their tables, from the object to the pins.
    pub(crate) load_ms: f64,
}

/// All, by what the kernel says of their pins.
pub(crate) fn loaded(pins: &Path, load: Duration) -> Result<Vec<Loaded>> {
    let describe = |program: Program| {
        let info = ProgramInfo::from_pin(pinned(pins, program)?)?;
        Ok(Loaded {
            name: program.name(),
            verified: info.verified_instruction_count().context("the kernel does not say")?,
            translated: info.size_translated().context("the kernel does not say")?,
            machine_code: info.size_jitted(),
            load_ms: load.as_secs_f64() * 1e3,
        })
    };
    [Program::ToPod, Program::FromPod, Program::FromNode].into_iter().map(describe).collect()
}
