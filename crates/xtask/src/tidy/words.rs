//! Words that someone meant to remove, and paths of one machine.

use crate::tree::{File, Tree};

/// Written in parts, so that this file has none of them.
const LEFT_OVER: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
const PLACES: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
/// Not written here.
const FOREIGN: [&str; 4] = ["LICENSE", "Cargo.lock", "ebpf/Cargo.lock", "e2e/binaries/go.sum"];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let ours = tree.files().filter(|file| !FOREIGN.contains(&file.path.as_str()));
    ours.flat_map(of_file).collect()
}

fn of_file(file: &File) -> impl Iterator<Item = String> {
    file.lines().flat_map(move |(number, line)| {
        let words = LEFT_OVER.into_iter().filter(|word| has_word(line, word));
        let places = PLACES.into_iter().filter(|place| begins_path(line, place));
        words.chain(places).map(move |what| format!("{}:{number}: {what}", file.path))
    })
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric()).any(|part| part == word)
}

/// Within a longer path it is another folder.
fn begins_path(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| c.is_whitespace() || "\"'`=:(".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_overs_and_machine_paths_are_found() {
        let [later, _, _] = LEFT_OVER;
        let [work, root, _] = PLACES;
        for text in [format!("// {later}: later"), format!("cd {work}main"), format!("path = \"{root}x\"")] {
            assert_eq!(check(&Tree::of(&[("a.rs", &text)])).len(), 1, "{text}");
        }
        for text in [format!("{later}S and a{later}"), format!("target{work}x"), format!("/proc/1{root}run")]
        {
            assert_eq!(check(&Tree::of(&[("a.rs", &text)])), [""; 0], "{text}");
        }
        assert_eq!(check(&Tree::of(&[("LICENSE", later)])), [""; 0]);
    }
}
