//! What each crate may name. The list is in ARCHITECTURE.md.

use crate::tree::{File, Tree};

/// A library, as a dependency and as it is written in code, and the crates that may name it.
const OWNERS: [(&str, &str, &[&str]); 4] = [
    ("k8s-openapi", "k8s_openapi", &["kube", "oracle", "e2e"]),
    ("aya", "aya", &["datapath", "bench"]),
    ("tonic", "tonic", &["api"]),
    ("prost", "prost", &["api"]),
];
/// Crates for tests, and the crates that may stand on them.
const FOR_TESTS: [(&str, &[&str]); 3] = [
    ("cellwall-oracle", &["testkit", "e2e"]),
    ("cellwall-testkit", &["bench", "e2e"]),
    ("cellwall-agent", &["multicall"]),
];
const NO_STD: [&str; 3] = ["abi", "policy", "verdict"];

pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let manifests = tree.ending("Cargo.toml").flat_map(manifest);
    let sources = tree.ending(".rs").flat_map(source);
    manifests.chain(sources).chain(NO_STD.iter().filter_map(|krate| no_std(tree, krate))).collect()
}

fn manifest(file: &File) -> Vec<String> {
    // The root only says versions.
    let Some(krate) = file.crate_name() else { return Vec::new() };
    let mut found = Vec::new();
    let mut section = "";
    for (number, line) in file.lines() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
            continue;
        }
        let Some((name, _)) = line.split_once(['=', '.']) else { continue };
        let name = name.trim();
        let place = format!("{}:{number}: {krate}", file.path);
        if section.ends_with("dependencies")
            && OWNERS.iter().any(|(library, _, owners)| name == *library && !owners.contains(&krate))
        {
            found.push(format!("{place} depends on {name}"));
        }
        let shipped = section == "dependencies";
        if shipped && FOR_TESTS.iter().any(|(test, owners)| name == *test && !owners.contains(&krate)) {
            found.push(format!("{place} stands on {name}"));
        }
        if section == "dev-dependencies" && name == "cellwall-agent" {
            found.push(format!("{place} depends on {name}"));
        }
    }
    found
}

fn source(file: &File) -> Vec<String> {
    // This crate writes about them, and depends on none.
    let Some(krate) = file.crate_name().filter(|krate| *krate != "xtask") else { return Vec::new() };
    let mut found = Vec::new();
    for (number, line) in file.lines().filter(|(_, line)| !line.trim_start().starts_with("//")) {
        for (_, word, owners) in OWNERS.iter().filter(|(.., owners)| !owners.contains(&krate)) {
            // A path is what names a library: `aya::`, `use aya;`.
            if names(line, &format!("{word}::")) || names(line, &format!("use {word};")) {
                found.push(format!(
                    "{}:{number}: {krate} names {word}, which only {} may",
                    file.path,
                    owners.join(" and ")
                ));
            }
        }
        if krate == "oracle" && names(&line.replace("cellwall_policy::flow::", ""), "cellwall_policy::") {
            found.push(format!("{}:{number}: the oracle names more of the compiler than flow", file.path));
        }
    }
    found
}

/// True when `path` occurs and is not the end of a longer word.
fn names(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '"')
    })
}

fn no_std(tree: &Tree, krate: &str) -> Option<String> {
    let path = format!("crates/{krate}/src/lib.rs");
    let stated = tree.get(&path).is_some_and(|file| file.lines().any(|(_, line)| line == "#![no_std]"));
    (!stated).then(|| format!("{path} does not say #![no_std]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let stated = NO_STD.map(|krate| format!("crates/{krate}/src/lib.rs"));
        let mut all: Vec<(&str, &str)> = stated.iter().map(|path| (path.as_str(), "#![no_std]\n")).collect();
        all.extend(files);
        check(&Tree::of(&all))
    }

    #[test]
    fn owners_may_name_what_is_theirs() {
        let files = [
            ("crates/datapath/src/lib.rs", "use aya::Ebpf;\n"),
            ("crates/datapath/Cargo.toml", "[dependencies]\naya = { workspace = true }\n"),
            ("crates/policy/Cargo.toml", "[dev-dependencies]\ncellwall-oracle = { workspace = true }\n"),
            ("crates/agent/src/lib.rs", "// aya::Ebpf is not named here\nuse maya::Ebpf;\n"),
            ("ebpf/src/main.rs", "use aya_ebpf::maps;\n"),
            ("crates/oracle/src/lib.rs", "use cellwall_policy::flow::{Flow, Decision};\n"),
            ("Cargo.toml", "[workspace.dependencies]\naya = \"1\"\ncellwall-agent = { path = \"x\" }\n"),
        ];
        assert_eq!(found(&files), [""; 0]);
    }

    #[test]
    fn others_may_not() {
        for (path, text) in [
            ("crates/agent/src/a.rs", "    let x = aya::maps::Map::new();\n"),
            ("crates/agent/src/a.rs", "use k8s_openapi::api;\n"),
            ("crates/oracle/src/lib.rs", "use cellwall_policy::compile::Compiler;\n"),
            ("crates/oracle/src/lib.rs", "use cellwall_policy::{flow::Flow, model};\n"),
            ("crates/cli/src/main.rs", "fn f() -> Result<(), tonic::Status> {}\n"),
            ("crates/agent/Cargo.toml", "[dependencies]\nprost.workspace = true\n"),
            ("crates/agent/Cargo.toml", "[dev-dependencies]\naya = \"1\"\n"),
            ("crates/agent/Cargo.toml", "[dependencies]\ncellwall-testkit = { workspace = true }\n"),
            ("e2e/Cargo.toml", "[dependencies]\ncellwall-agent = { workspace = true }\n"),
            ("crates/cli/Cargo.toml", "[dev-dependencies]\ncellwall-agent = { workspace = true }\n"),
        ] {
            assert_eq!(found(&[(path, text)]).len(), 1, "{path}: {text}");
        }
    }

    #[test]
    fn the_pure_crates_say_no_std() {
        assert_eq!(check(&Tree::of(&[])).len(), NO_STD.len());
    }
}
