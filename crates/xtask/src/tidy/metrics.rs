//! The list of metrics is written in ARCHITECTURE.md. What the agent exports is written by its own test into
//! `crates/agent/METRICS.md`; here both are compared, and alerts may ask for nothing else.

use std::collections::BTreeSet;

use crate::tree::{File, Tree};

const WANTED: &str = "ARCHITECTURE.md";
const EXPORTED: &str = "crates/agent/METRICS.md";
const ALERTS: &str = "deploy/helm/cellwall/alerts.yaml";

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let [wanted, exported] = [WANTED, EXPORTED].map(|path| tree.get(path).map(|file| names(&file.text)));
    let (Some(wanted), Some(exported)) = (wanted, exported) else {
        return vec![format!("{WANTED} or {EXPORTED} is missing")];
    };
    let unwanted = exported.difference(&wanted).map(|name| format!("{name} is exported and not in {WANTED}"));
    let missing = wanted.difference(&exported).map(|name| format!("{name} is in {WANTED} and not exported"));
    unwanted.chain(missing).chain(alerts(tree, &exported)).collect()
}

/// What alerts ask for and nobody exports.
fn alerts(tree: &Tree, exported: &BTreeSet<&str>) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in tree.get(ALERTS).into_iter().flat_map(File::lines) {
        let Some(asked) = line.trim_start().strip_prefix("expr: ") else { continue };
        let words = asked.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let metrics = words.filter(|word| word.starts_with("cellwall_"));
        found.extend(
            metrics
                .filter(|metric| !exported.contains(histogram(metric)))
                .map(|metric| format!("{ALERTS}:{number}: {metric} is not exported")),
        );
    }
    found
}

/// A histogram is exported as three metrics.
fn histogram(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
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

    #[test]
    fn alerts_ask_for_what_is_exported() {
        let list = "| `cellwall_a` | x |\n| `cellwall_b` (histogram) | x |\n";
        let found = |alert: &str| check(&Tree::of(&[(WANTED, list), (EXPORTED, list), (ALERTS, alert)]));
        assert_eq!(found("  expr: cellwall_a > rate(cellwall_b_bucket[5m])\n  # cellwall_d\n"), [""; 0]);
        assert_eq!(found("  expr: cellwall_c{a=\"x\"} > cellwall_a_total\n").len(), 2);
    }
}
