//! `docs/statements.md`: what semantics say, statement by statement.

use super::rows::Table;
use crate::tree::Tree;

/// Statements of NetworkPolicy and of ClusterNetworkPolicy.
const TABLE: Table = Table { file: "docs/statements.md", letters: &[('S', 90), ('C', 34)] };

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut found = TABLE.check(tree);
    let rows = TABLE.rows(tree);
    let judged = rows.iter().filter(|row| row.tests.split(", ").all(|test| test.starts_with("oracle: ")));
    found.extend(judged.map(|row| {
        format!("{}:{}: {}: only the judge is tested, and not what ships", TABLE.file, row.number, row.id)
    }));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(change: impl Fn(&str) -> Option<&'static str>) -> String {
        let ids =
            TABLE.letters.iter().flat_map(|(letter, last)| (1..=*last).map(move |n| format!("{letter}{n}")));
        let row = |id: String| format!("| {id} | words | {} |\n", change(&id).unwrap_or("none: reason"));
        ids.map(row).collect::<Vec<_>>().concat()
    }

    fn found(table: &str) -> Vec<String> {
        let tests = "mod inner {\n#[test]\n#[ignore = \"slow\"]\nfn s1_holds() {}\n}\nfn s2_helper() {}\n";
        let shown = "#[test]\nfn shown() {}\n";
        check(&Tree::of(&[
            (TABLE.file, table),
            ("crates/oracle/tests/rules.rs", tests),
            ("crates/policy/tests/shown.rs", shown),
        ]))
    }

    #[test]
    fn a_whole_table_is_fine() {
        let tests = "oracle: rules::s1_holds, oracle: inner::s1_holds, policy: shown";
        let table = table(|id| (id == "S1").then_some(tests));
        assert_eq!(found(&table), [""; 0]);
    }

    #[test]
    fn a_test_of_the_judge_is_not_enough() {
        let table = table(|id| (id == "S1").then_some("oracle: rules::s1_holds, oracle: inner::s1_holds"));
        assert_eq!(found(&table), ["docs/statements.md:1: S1: only the judge is tested, and not what ships"]);
    }

    #[test]
    fn tests_must_exist() {
        for wrong in ["policy: s1_missing", "policy: s2_helper", "policy: s1_holds", "policy: other::shown"] {
            let table = table(|id| (id == "S1").then_some(wrong));
            assert_eq!(found(&table).len(), 1, "{wrong}");
        }
    }

    #[test]
    fn a_missing_test_needs_a_reason_and_the_format() {
        for wrong in ["none:", "none: ", "", "s1_holds"] {
            let table = table(|id| (id == "S1").then_some(wrong));
            assert_eq!(found(&table).len(), 1, "{wrong:?}");
        }
    }

    #[test]
    fn every_statement_is_there_once() {
        let whole = table(|_| None);
        assert_eq!(found(&whole.replacen("| S7 |", "| S8 |", 1)).len(), 2);
        assert_eq!(
            found(&whole.replacen("| C34 | words | none: reason |\n", "", 1)),
            ["docs/statements.md: C34 is missing"]
        );
        assert_eq!(check(&Tree::of(&[])), ["docs/statements.md is missing"]);
    }
}
