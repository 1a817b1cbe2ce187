//! The list of metrics is written in ARCHITECTURE.md. What the agent exports is written by its own test into
//! `crates/agent/METRICS.md`; here both are compared.

use std::collections::BTreeSet;

use crate::tree::Tree;

const WANTED: &str = "ARCHITECTURE.md";
const EXPORTED: &str = "crates/agent/METRICS.md";

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let [wanted, exported] = [WANTED, EXPORTED].map(|path| tree.get(path).map(|file| names(&file.text)));
    let (Some(wanted), Some(exported)) = (wanted, exported) else {
        return vec![format!("{WANTED} or {EXPORTED} is missing")];
    };
    let unwanted = exported.difference(&wanted).map(|name| format!("{name} is exported and not in {WANTED}"));
    let missing = wanted.difference(&exported).map(|name| format!("{name} is in {WANTED} and not exported"));
    unwanted.chain(missing).collect()
}

/// The first cells of the rows that begin with a metric.
fn names(text: &str) -> BTreeSet<&str> {
    let cells = text.lines().filter_map(|line| line.strip_prefix("| `"));
    cells.filter_map(|rest| rest.split('`').next()).filter(|name| name.starts_with("cellwall_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(wanted: &str, exported: &str) -> usize {
        check(&Tree::of(&[(WANTED, wanted), (EXPORTED, exported)])).len()
    }

    #[test]
    fn both_lists_are_equal() {
        let (a, b) = ("| `cellwall_a` | x |\n", "| `cellwall_b` (histogram) | x |\n");
        let both = [a, b].concat();
        assert_eq!(found(&both, &[b, a].concat()), 0);
        assert_eq!(found(a, &both), 1);
        assert_eq!(found(&both, b), 1);
        assert_eq!(check(&Tree::of(&[(WANTED, a)])).len(), 1);
    }
}
