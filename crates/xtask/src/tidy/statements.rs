//! `docs/statements.md`: every statement once, with tests that exist or the reason why there is none.

use std::collections::BTreeMap;

use crate::tree::{File, Tree};

const TABLE: &str = "docs/statements.md";
/// Statements of NetworkPolicy and of ClusterNetworkPolicy.
const LETTERS: [(char, u32); 2] = [('S', 90), ('C', 34)];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let Some(table) = tree.get(TABLE) else { return vec![format!("{TABLE} is missing")] };
    let mut found = Vec::new();
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for (number, line) in table.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", id, summary, tests, ""] = cells[..] else { continue };
        if !is_id(id) {
            continue;
        }
        *seen.entry(id).or_default() += 1;
        if summary.is_empty() {
            found.push(format!("{TABLE}:{number}: {id} says nothing"));
        }
        found.extend(wrong(tree, tests).map(|what| format!("{TABLE}:{number}: {id}: {what}")));
    }
    for (letter, last) in LETTERS {
        for id in (1..=last).map(|number| format!("{letter}{number}")) {
            match seen.get(id.as_str()) {
                Some(1) => {}
                None => found.push(format!("{TABLE}: {id} is missing")),
                Some(times) => found.push(format!("{TABLE}: {id} has {times} rows")),
            }
        }
    }
    found
}

fn is_id(cell: &str) -> bool {
    let digits = cell.strip_prefix(['S', 'C']).unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// What is wrong with the last cell of a row.
fn wrong(tree: &Tree, tests: &str) -> Option<String> {
    if let Some(reason) = tests.strip_prefix("none:") {
        return reason.trim().is_empty().then(|| "no tests and no reason".to_owned());
    }
    tests.split(", ").find_map(|test| {
        let Some((krate, path)) = test.split_once(": ") else {
            return Some(format!("`{test}` is not `<crate>: <test>`"));
        };
        (!exists(tree, krate, path)).then(|| format!("no test {path} in {krate}"))
    })
}

/// A test is found by its name and by the modules in its path, each of which is a file, a folder or a `mod`.
fn exists(tree: &Tree, krate: &str, path: &str) -> bool {
    let mut modules: Vec<&str> = path.split("::").collect();
    let name = modules.pop().unwrap_or_default();
    let files = tree.ending(".rs").filter(|file| file.crate_name() == Some(krate));
    files.into_iter().any(|file| {
        has_test(file, name)
            && modules.iter().all(|module| {
                let in_path = file.path.split(['/', '.']).any(|part| part == *module);
                in_path || file.text.contains(&format!("mod {module} {{"))
            })
    })
}

/// `#[test]` or `#[tokio::test]` comes before the function, with other attributes or none in between.
fn has_test(file: &File, name: &str) -> bool {
    let signature = format!("fn {name}(");
    let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(index, line)| {
        let before =
            lines[..index].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        line.trim_start_matches("async ").starts_with(&signature)
            && before.into_iter().any(|line| is_test(line))
    })
}

fn is_test(attribute: &str) -> bool {
    attribute == "#[test]" || attribute.starts_with("#[tokio::test")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(change: impl Fn(&str) -> Option<&'static str>) -> String {
        let ids = LETTERS.iter().flat_map(|(letter, last)| (1..=*last).map(move |n| format!("{letter}{n}")));
        let row = |id: String| format!("| {id} | words | {} |\n", change(&id).unwrap_or("none: reason"));
        ids.map(row).collect::<Vec<_>>().concat()
    }

    fn found(table: &str) -> Vec<String> {
        let tests = "mod inner {\n#[test]\n#[ignore = \"slow\"]\nfn s1_holds() {}\n}\nfn s2_helper() {}\n";
        check(&Tree::of(&[(TABLE, table), ("crates/oracle/tests/rules.rs", tests)]))
    }

    #[test]
    fn a_whole_table_is_fine() {
        let table = table(|id| (id == "S1").then_some("oracle: rules::s1_holds, oracle: inner::s1_holds"));
        assert_eq!(found(&table), [""; 0]);
    }

    #[test]
    fn tests_must_exist() {
        for wrong in
            ["oracle: s1_missing", "oracle: s2_helper", "policy: s1_holds", "oracle: other::s1_holds"]
        {
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
