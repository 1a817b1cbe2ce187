//! `docs/robustness.md`: hostile packets and connections, row by row, each with a planted bug that one of its own tests
//! catches.

use super::rows::Table;
use crate::tree::{File, Tree};

const TABLE: Table = Table { file: "docs/robustness.md", letters: &[('A', 14), ('B', 9), ('C', 1)] };
const MUTANTS: &str = "mutants.txt";

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut found = TABLE.check(tree);
    for row in TABLE.rows(tree).iter().filter(|row| !row.tests.starts_with("none:")) {
        let caught: Vec<String> = mutants_of(tree, row.id);
        if caught.is_empty() {
            found.push(format!("{}:{}: {} has no planted bug in {MUTANTS}", TABLE.file, row.number, row.id));
        }
        let claims = |test: &String| row.tests.split(", ").any(|own| own == test);
        for test in caught.iter().filter(|test| !claims(test)) {
            found.push(format!("{MUTANTS}: a bug of {} is caught by {test}, which is not the row's", row.id));
        }
    }
    found
}

/// The tests that catch the planted bugs of a row, as the table writes them.
fn mutants_of(tree: &Tree, id: &str) -> Vec<String> {
    let lines = tree.get(MUTANTS).into_iter().flat_map(File::lines);
    lines
        .filter(|(_, line)| line.ends_with(&format!("({id})")))
        .filter_map(|(_, line)| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, package, _, test, _] = cells[..] else { return None };
            Some(format!("{}: {test}", package.trim_start_matches("cellwall-")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(first: &str, mutants: &str) -> Vec<String> {
        let ids =
            TABLE.letters.iter().flat_map(|(letter, last)| (1..=*last).map(move |n| format!("{letter}{n}")));
        let row = |id: String| {
            let tests = if id == "A1" { first } else { "none: reason" };
            format!("| {id} | words | {tests} |\n")
        };
        let table = ids.map(row).collect::<Vec<_>>().concat();
        let tests = "#[test]\nfn cuts() {}\n#[test]\nfn joins() {}\n";
        check(&Tree::of(&[(TABLE.file, &table), (MUTANTS, mutants), ("crates/verdict/tests/a.rs", tests)]))
    }

    #[test]
    fn a_row_has_a_planted_bug_that_it_catches_itself() {
        let caught = "bug | cellwall-verdict | a | cuts | words (A1)\n";
        assert_eq!(found("verdict: cuts", caught), [""; 0]);
        assert_eq!(found("verdict: joins", caught).len(), 1, "another's test");
        assert_eq!(found("verdict: cuts", "").len(), 1, "no bug");
        assert_eq!(found("verdict: missing", caught).len(), 2, "no such test");
    }
}
