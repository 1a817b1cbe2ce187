//! Tables that say which tests show what: every row once, with tests that exist or the reason why there is none.

use std::collections::BTreeMap;

use crate::tree::{File, Tree};

/// A table, and the ids that it has to have: a letter and numbers from 1 on.
pub(super) struct Table {
    pub(super) file: &'static str,
    pub(super) letters: &'static [(char, u32)],
}

impl Table {
    /// Every row: its id, where it stands, and its last cell.
    pub(super) fn rows<'a>(&self, tree: &'a Tree) -> Vec<Row<'a>> {
        let lines = tree.get(self.file).into_iter().flat_map(File::lines);
        lines
            .filter_map(|(number, line)| {
                let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                let ["", id, summary, tests, ""] = cells[..] else { return None };
                self.is_id(id).then_some(Row { id, number, summary, tests })
            })
            .collect()
    }

    pub(super) fn check(&self, tree: &Tree) -> Vec<String> {
        let file = self.file;
        if tree.get(file).is_none() {
            return vec![format!("{file} is missing")];
        }
        let mut found = Vec::new();
        let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
        for Row { id, number, summary, tests } in self.rows(tree) {
            *seen.entry(id).or_default() += 1;
            if summary.is_empty() {
                found.push(format!("{file}:{number}: {id} says nothing"));
            }
            found.extend(wrong(tree, tests).map(|what| format!("{file}:{number}: {id}: {what}")));
        }
        for (letter, last) in self.letters {
            for id in (1..=*last).map(|number| format!("{letter}{number}")) {
                match seen.get(id.as_str()) {
                    Some(1) => {}
                    None => found.push(format!("{file}: {id} is missing")),
                    Some(times) => found.push(format!("{file}: {id} has {times} rows")),
                }
            }
        }
        found
    }

    fn is_id(&self, cell: &str) -> bool {
        let digits =
            self.letters.iter().find_map(|(letter, _)| cell.strip_prefix(*letter)).unwrap_or_default();
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    }
}

/// A row of a table.
pub(super) struct Row<'a> {
    pub(super) id: &'a str,
    pub(super) number: usize,
    summary: &'a str,
    pub(super) tests: &'a str,
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
