//! `make` lists every target, and the documents name only such.

use std::collections::BTreeSet;

use crate::tree::Tree;

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let Some(makefile) = tree.get("Makefile") else { return vec!["Makefile is missing".to_owned()] };
    let rules =
        makefile.lines().filter(|(_, line)| !line.starts_with(['\t', '#', '.', ' ']) && !line.contains(":="));
    let mut found = Vec::new();
    let mut targets = BTreeSet::new();
    for (number, line) in rules {
        let Some((target, rest)) = line.split_once(':').filter(|(target, _)| !target.contains('=')) else {
            continue;
        };
        targets.insert(target);
        if !rest.contains("## ") {
            found.push(format!("Makefile:{number}: {target} does not say what it does"));
        }
    }
    for file in tree.ending(".md") {
        for (number, line) in file.lines() {
            let named = line
                .match_indices("make ")
                .filter_map(|(at, word)| target(&line[..at], &line[at + word.len()..]));
            let unknown = named.filter(|name| !targets.contains(name));
            found.extend(unknown.map(|name| format!("{}:{number}: there is no `make {name}`", file.path)));
        }
    }
    found
}

/// The word after `make`, where that is a command: in backquotes, or the beginning of an indented line.
fn target<'a>(before: &str, after: &'a str) -> Option<&'a str> {
    let command = before.ends_with('`') || (before.len() >= 4 && before.trim().is_empty()) || before == "$ ";
    let end = after
        .find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '-')
        .unwrap_or(after.len());
    (command && end > 0).then(|| &after[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAKEFILE: &str = ".PHONY: a\nX := y\na: ## Does a\n\t@true\nb2-c: a ## Does b\n";

    #[test]
    fn targets_are_described_and_exist() {
        let found =
            |makefile: &str, text: &str| check(&Tree::of(&[("Makefile", makefile), ("a.md", text)])).len();
        assert_eq!(found(MAKEFILE, "`make a` and `make b2-c`, to make do\n    make a   # x\n"), 0);
        assert_eq!(found(MAKEFILE, "`make d`\n    make e\n"), 2);
        assert_eq!(found("a: b\n", ""), 1);
        assert_eq!(check(&Tree::of(&[])).len(), 1);
    }
}
