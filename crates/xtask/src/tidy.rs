//! What the tree promises about itself and no compiler checks. Each check takes the files as values and returns what
//! it found, so that a test shows that it can find something.

mod absences;
mod metrics;
mod robustness;
mod rows;
mod sizes;
mod statements;
mod targets;
mod words;

use anyhow::Result;

use crate::tree::Tree;

type Check = fn(&Tree) -> Vec<String>;

const CHECKS: [(&str, Check); 7] = [
    ("every statement has its tests", statements::check),
    ("every hostile row and every rule of Services has its tests and its planted bug", robustness::check),
    ("crates name only what is theirs", absences::check),
    ("metrics are those of the list", metrics::check),
    ("files can be read in one sitting", sizes::check),
    ("no leftover words", words::check),
    ("the targets that are named exist", targets::check),
];

/// Runs all checks and prints what they found; true when that is nothing.
pub(crate) fn run() -> Result<bool> {
    let tree = Tree::read()?;
    let mut tidy = true;
    for (name, check) in CHECKS {
        let found = check(&tree);
        println!("{} {name}", if found.is_empty() { "ok  " } else { "FAIL" });
        for line in &found {
            println!("     {line}");
        }
        tidy &= found.is_empty();
    }
    Ok(tidy)
}
