//! Clusters that are asked about in every run: traps that were laid by hand, and what once failed.

use std::{collections::BTreeSet, fs, path::Path};

use cellwall_oracle::{Flow, Objects};
use cellwall_policy::flow::Decision;
use serde::Deserialize;

use super::{flows, read_flow, read_objects};

/// A cluster with a trap, and what is right there.
#[derive(Clone, Debug)]
pub struct Trap {
    /// The file's name without its ending.
    pub name: String,
    /// The cluster.
    pub objects: Objects,
    /// What was decided by hand about some flows.
    pub expected: Vec<(Flow, Decision)>,
}

impl Trap {
    /// Those decided by hand, and whatever else is worth asking; sorted, none twice.
    #[must_use]
    pub fn flows(&self) -> Vec<Flow> {
        let by_hand = self.expected.iter().map(|(flow, _)| *flow);
        let flows: BTreeSet<_> = by_hand.chain(flows(&self.objects)).collect();
        flows.into_iter().collect()
    }
}

/// The lines of a file that are not the cluster's; see `corpus/README.md`.
#[derive(Deserialize)]
struct Expected {
    #[serde(default)]
    allowed: Vec<String>,
    #[serde(default)]
    denied: Vec<String>,
}

/// The traps, in the order of their names.
#[must_use]
pub fn corpus() -> Vec<Trap> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "yaml"));
    files.sort();
    let (bases, traps): (Vec<_>, Vec<_>) =
        files.iter().partition(|file| file.file_stem().is_some_and(|name| name == "base"));
    let base = read(bases.first().expect("corpus/base.yaml is there"), read_objects);
    traps.into_iter().map(|file| trap(file, &base)).collect()
}

fn trap(file: &Path, base: &Objects) -> Trap {
    let mut objects = read(file, read_objects);
    // Whoever names a node or a namespace means it.
    if objects.node_name.is_empty() {
        objects.node_name.clone_from(&base.node_name);
        objects.node_addresses.extend(&base.node_addresses);
        objects.nodes.extend(base.nodes.iter().cloned());
    }
    if objects.namespaces.is_empty() {
        objects.namespaces.clone_from(&base.namespaces);
    }
    let Expected { allowed, denied } =
        read(file, |text| serde_saphyr::from_str(text).map_err(|error| error.to_string()));
    let of = |lines: &[String], decision| -> Vec<_> {
        lines.iter().map(|line| (read_flow(&objects, line), decision)).collect()
    };
    let expected = [of(&allowed, Decision::Allow), of(&denied, Decision::Deny)].concat();
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Trap { name, objects, expected }
}

fn read<T>(file: &Path, parse: impl Fn(&str) -> Result<T, String>) -> T {
    let text = fs::read_to_string(file).map_err(|error| error.to_string());
    text.and_then(|text| parse(&text)).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The seeds of `seeds.txt`: clusters.
#[must_use]
pub fn failed_seeds() -> Vec<u64> {
    seeds(include_str!("../../seeds.txt"))
}

/// The seeds of `histories.txt`: clusters, and what becomes of them.
#[must_use]
pub fn failed_histories() -> Vec<u64> {
    seeds(include_str!("../../histories.txt"))
}

fn seeds(text: &str) -> Vec<u64> {
    let lines = text.lines();
    let seeds = lines.map(|line| line.split('#').next().unwrap_or_default().trim());
    seeds.filter(|seed| !seed.is_empty()).map(|seed| seed.parse().expect("a seed a line")).collect()
}
