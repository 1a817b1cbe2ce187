//! `docs/robustness.md`, hostile packets and connections, row by row, and `docs/services.md`, rule by rule: each with a planted
//! bug that one of its own tests catches.

use super::rows::Table;
use crate::tree::{File, Tree};

const TABLES: [Table; 2] = [
    Table { file: "docs/robustness.md", letters: &[('A', 14), ('B', 9), ('C', 1)] },
    Table { file: "docs/services.md", letters: &[('V', 25)] },
];
const MUTANTS: &str = "mutants.txt";

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    TABLES.iter().flat_map(|table| of_table(tree, table)).collect()
}

fn of_table(tree: &Tree, table: &Table) -> Vec<String> {
    let mut found = table.check(tree);
    for row in table.rows(tree).iter().filter(|row| !row.tests.starts_with("none:")) {
        let caught: Vec<String> = mutants_of(tree, row.id);
        if caught.is_empty() {
            found.push(format!("{}:{}: {} has no planted bug in {MUTANTS}", table.file, row.number, row.id));
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
        .filter(|(_, line)| ids(line).any(|own| own == id))
        .filter_map(|(_, line)| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, package, _, test, _] = cells[..] else { return None };
            Some(format!("{}: {test}", package.trim_start_matches("cellwall-")))
        })
        .collect()
}

/// The ids with which a line ends: `(B9) (V1)`.
fn ids(line: &str) -> impl Iterator<Item = &str> {
    line.rsplit(' ').map_while(|word| word.strip_prefix('(')?.strip_suffix(')'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both tables, whole but for the tests of A1 and of V1.
    fn found(hostile: &str, service: &str, mutants: &str) -> Vec<String> {
        let text = |table: &Table| {
            let ids = table
                .letters
                .iter()
                .flat_map(|(letter, last)| (1..=*last).map(move |n| format!("{letter}{n}")));
            let row = |id: String| {
                let tests = match id.as_str() {
                    "A1" => hostile,
                    "V1" => service,
                    _ => "none: reason",
                };
                format!("| {id} | words | {tests} |\n")
            };
            ids.map(row).collect::<String>()
        };
        let [robustness, services] = TABLES.each_ref().map(text);
        let tests = "#[test]\nfn cuts() {}\n#[test]\nfn joins() {}\n";
        check(&Tree::of(&[
            (TABLES[0].file, &robustness),
            (TABLES[1].file, &services),
            (MUTANTS, mutants),
            ("crates/verdict/tests/a.rs", tests),
        ]))
    }

    #[test]
    fn a_row_has_a_planted_bug_that_it_catches_itself() {
        let caught = "bug | cellwall-verdict | a | cuts | words (A1)\n";
        let none = "none: reason";
        assert_eq!(found("verdict: cuts", none, caught), [""; 0]);
        assert_eq!(found("verdict: joins", none, caught).len(), 1, "another's test");
        assert_eq!(found("verdict: cuts", none, "").len(), 1, "no bug");
        assert_eq!(found("verdict: missing", none, caught).len(), 2, "no such test");
    }

    #[test]
    fn one_bug_may_be_of_rows_of_both_tables() {
        let of = |ids: &str| format!("bug | cellwall-verdict | a | cuts | words (S48) of (V2) {ids}\n");
        let both = ["verdict: cuts"; 2];
        assert_eq!(found(both[0], both[1], &of("(S48) (A1) (V1)")), [""; 0]);
        assert_eq!(found(both[0], both[1], &of("(V1)")).len(), 1, "none of the first");
        assert_eq!(found(both[0], "verdict: joins", &of("(V1) (A1)")).len(), 1, "another's test");
    }
}
