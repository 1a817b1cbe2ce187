//! How long a file may be.

use crate::tree::{File, Tree};

/// Lines; the median is far below.
const LONGEST: usize = 600;
const WRITTEN: [&str; 5] = [".rs", ".sh", ".proto", ".md", ".yaml"];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let long = tree.files().filter(|file| is_written(file) && file.text.lines().count() > LONGEST);
    long.map(|file| format!("{} has {} lines, more than {LONGEST}", file.path, file.text.lines().count()))
        .collect()
}

fn is_written(file: &File) -> bool {
    let is_rendered = ["/generated/", "/golden/"].iter().any(|folder| file.path.contains(folder));
    !is_rendered && WRITTEN.iter().any(|suffix| file.path.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_found_but_for_generated_ones() {
        let (fine, long) = ("x\n".repeat(LONGEST), "x\n".repeat(LONGEST + 1));
        let files = [
            ("crates/a/src/fine.rs", fine.as_str()),
            ("crates/a/src/long.rs", &long),
            ("crates/a/src/generated/long.rs", &long),
            ("deploy/helm/golden/long.yaml", &long),
            ("Cargo.lock", &long),
        ];
        assert_eq!(check(&Tree::of(&files)), ["crates/a/src/long.rs has 601 lines, more than 600"]);
    }
}
