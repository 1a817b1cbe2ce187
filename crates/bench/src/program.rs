//! The loaded programs, as the kernel describes them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::EbpfLoader;
use aya::programs::ProgramInfo;
use cellwall_abi::tables;
use serde::Serialize;

use crate::driver::{Program, pinned, program, worked};
use crate::executed::OBJECT;

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
    /// Verifying and translating this one alone, the fastest of three, on this thread's clock.
    pub(crate) alone_ms: f64,
    /// All programs and their tables, from the object to the pins.
    pub(crate) load_ms: f64,
}

/// All, by what the kernel says of their pins.
pub(crate) fn loaded(pins: &Path, load: Duration) -> Result<Vec<Loaded>> {
    let describe = |program: Program| {
        let alone = (0..3).map(|_| load_alone(pins, program)).collect::<Result<Vec<_>>>()?;
        let info = ProgramInfo::from_pin(pinned(pins, program)?)?;
        Ok(Loaded {
            name: program.name(),
            verified: info.verified_instruction_count().context("the kernel does not say")?,
            translated: info.size_translated().context("the kernel does not say")?,
            machine_code: info.size_jitted(),
            alone_ms: alone.iter().min().context("three")?.as_secs_f64() * 1e3,
            load_ms: load.as_secs_f64() * 1e3,
        })
    };
    [Program::ToPod, Program::FromPod, Program::FromNode].into_iter().map(describe).collect()
}

/// Loads one program once more, on the tables that there are.
fn load_alone(pins: &Path, of: Program) -> Result<Duration> {
    let paths: Vec<_> =
        tables::ALL.iter().map(|table| (table.name, pins.join("maps").join(table.name))).collect();
    let mut loader = EbpfLoader::new();
    for (name, path) in &paths {
        loader.map_pin_path(name, path);
    }
    let mut object = loader.load(OBJECT)?;
    let program = program(&mut object, of.name())?;
    let start = worked();
    program.load()?;
    Ok(worked().saturating_sub(start))
}
