//! What came out, kept in e2e/results.json and shown in e2e/RESULTS.md. A run replaces the one of the same cluster and
//! number.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::places;

/// All runs that are written down.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct Results {
    runs: Vec<Run>,
}

/// One run of the suite.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Run {
    /// What the cluster is.
    pub(super) cluster: String,
    /// Whether Cellwall ran there.
    pub(super) enforced: bool,
    /// Which of those in a row, from 1.
    pub(super) number: u8,
    pub(super) passed: Vec<String>,
    pub(super) failed: Vec<String>,
    /// How often a matrix of probes was probed a second time as a whole.
    pub(super) second_passes: usize,
    /// How often a probe of what is allowed was repeated, because it was not answered at once.
    pub(super) repeated: usize,
    /// From the first test to the last.
    pub(super) seconds: f64,
    pub(super) versions: Versions,
    pub(super) date: String,
}

/// What it ran with.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Versions {
    pub(super) cellwall: String,
    pub(super) kubernetes: String,
    pub(super) runtime: String,
    pub(super) kernel: String,
}

impl Run {
    /// In one line.
    pub(super) fn summary(&self) -> String {
        format!(
            "{} passed, {} failed, {} matrices probed twice, {} allowed probes repeated, {} s",
            self.passed.len(),
            self.failed.len(),
            self.second_passes,
            self.repeated,
            self.seconds
        )
    }

    fn is_of(&self, other: &Self) -> bool {
        let key = |run: &Self| (run.cluster.clone(), run.enforced, run.number);
        key(self) == key(other)
    }

    fn row(&self) -> String {
        let by =
            if self.enforced { format!("Cellwall {}", self.versions.cellwall) } else { "nobody".to_owned() };
        let versions = [&*self.versions.kubernetes, &self.versions.runtime, &self.versions.kernel].join(", ");
        let Self { cluster, number, second_passes, repeated, seconds, date, .. } = self;
        let (passed, failed) = (self.passed.len(), self.failed.len());
        format!(
            "| {cluster} | {by} | {number} | {passed} | {failed} | {second_passes} | {repeated} | {seconds} | {versions} | {date} |\n"
        )
    }
}

impl Results {
    pub(super) fn read() -> Result<Self> {
        let path = path("results.json");
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not as this program writes it", path.display()))
    }

    /// Takes the place of the run of the same cluster and number.
    pub(super) fn put(&mut self, mut run: Run) {
        run.date = Timestamp::now().strftime("%Y-%m-%d").to_string();
        match self.runs.iter_mut().find(|old| old.is_of(&run)) {
            Some(old) => *old = run,
            None => self.runs.push(run),
        }
    }

    pub(super) fn write(&self) -> Result<()> {
        let json = serde_json::to_string_pretty(self).context("cannot write the results")? + "\n";
        for (name, text) in [("results.json", json), ("RESULTS.md", self.render())] {
            let path = path(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    fn render(&self) -> String {
        let mut text = HEAD.to_owned();
        for run in self.runs.iter().filter(|run| run.enforced) {
            text += &run.row();
        }
        for run in self.runs.iter().filter(|run| run.enforced && !run.failed.is_empty()) {
            let _ = write!(text, "\nFailed ({}, run {}):\n\n", run.cluster, run.number);
            text += &list(&run.failed);
        }
        for run in self.runs.iter().filter(|run| !run.enforced) {
            text += CONTROL;
            text += &run.row();
            text += "\nThese pass:\n\n";
            text += &list(&run.passed);
        }
        text
    }
}

const HEAD: &str = "\
# Upstream's tests of NetworkPolicy

Written by `make conformance`; do not edit. 48 specs: all of Netpol but the three that need SCTP sockets, built from the module of
Kubernetes as e2e.test has them, without e2e.test's other suites. Four processes, no spec is tried again. The suite itself repeats a
probe that is not as expected each second for ten seconds, and then the whole matrix of probes once: how often is counted, since an
enforcer that is slow or flickers would show there and nowhere else. The first family of addresses is the one that is probed.

| cluster | enforced by | run | passed | failed | matrices probed twice | allowed probes repeated | seconds | versions | date |
|---|---|---|---|---|---|---|---|---|---|
";

const CONTROL: &str = "
## Without Cellwall

The same cluster, and nobody enforces anything. What passes here shows nothing about an enforcer; what fails here and passes
above is what the table above is worth.

| cluster | enforced by | run | passed | failed | matrices probed twice | allowed probes repeated | seconds | versions | date |
|---|---|---|---|---|---|---|---|---|---|
";

fn list(names: &[String]) -> String {
    names.iter().fold(String::new(), |text, name| text + "- " + name + "\n")
}

fn path(name: &str) -> PathBuf {
    places::workspace().join("e2e").join(name)
}

#[cfg(test)]
mod tests {
    use super::{Results, Run};

    fn run(cluster: &str, number: u8, failed: &[&str]) -> Run {
        let failed = failed.iter().map(|name| (*name).to_owned()).collect();
        Run { cluster: cluster.to_owned(), enforced: true, number, failed, ..Run::default() }
    }

    #[test]
    fn a_run_replaces_the_one_of_its_cluster_and_number_and_failures_are_named() {
        let mut results = Results::default();
        results.put(run("a", 1, &["that one"]));
        results.put(run("a", 2, &[]));
        assert!(results.render().contains("Failed (a, run 1):\n\n- that one\n"));
        results.put(run("a", 1, &[]));
        let text = results.render();
        assert_eq!(text.matches("| a |").count(), 2, "{text}");
        assert!(!text.contains("Failed"), "{text}");
    }

    #[test]
    fn what_passes_without_an_enforcer_is_listed() {
        let mut results = Results::default();
        let passed = vec!["allow everything".to_owned()];
        results.put(Run { passed, enforced: false, ..run("a", 1, &[]) });
        let text = results.render();
        assert!(text.contains("| a | nobody | 1 | 1 | 0 |"), "{text}");
        assert!(text.ends_with("These pass:\n\n- allow everything\n"), "{text}");
    }
}
