//! The programs of the workspace that are tried here.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// The binary `name`, as it was built with the one that runs now.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the running program")?;
    // Tests lie one folder deeper than programs.
    let folders = own.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    ensure!(found.is_some(), "{name} is not built; `make demo` and `make e2e` build it first");
    Ok(found.expect("just checked"))
}
