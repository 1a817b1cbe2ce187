//! Runs upstream's tests and reads their report.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::results::Run;
use super::versions;
use crate::cluster::Cluster;
use crate::helm::said;
use crate::image::AGNHOST;
use crate::node::CONTAINERD;
use crate::places;
use crate::progress::Progress;
use crate::target::Target;

/// All of NetworkPolicy but what needs SCTP sockets of the kernel and of the test's pods.
const FOCUS: &str = "Netpol";
const SKIP: &str = "SCTPConnectivity";
/// What the suite writes when a whole matrix of probes is probed again.
const SECOND_PASS: &str = "(SECOND TRY)";
/// What it writes when a probe that is to be answered is repeated, a second later. Of those that are not to be answered the
/// same is written, too, and says nothing: pods reach themselves, which no policy can forbid.
const REPEATED: &str = ":: connectivity expected ::";

/// Gives the image of the tests the names that the suite knows it by.
pub(super) fn name_images(cluster: &Cluster) -> Result<()> {
    let images = said(cluster.outside(places::binary("e2e.test")).arg("--list-images"))?;
    let names = images.lines().map(str::trim).filter(|name| name.contains("/agnhost:"));
    let names: Vec<&str> = names.collect();
    ensure!(!names.is_empty(), "the suite names no image of agnhost");
    for node in cluster.nodes() {
        for name in &names {
            let mut tag = cluster.command_on(node, "ctr");
            tag.args(["-a", CONTAINERD, "-n", "k8s.io", "images", "tag", "--force", AGNHOST, name]);
            said(&mut tag)?;
        }
    }
    Ok(())
}

/// Runs the suite; its log and its report are in `folder` then.
pub(super) fn run(target: &Target, focus: Option<&str>, folder: &Path, progress: Progress) -> Result<Run> {
    let log_path = folder.join("log");
    let mut log = File::create(&log_path).context("cannot make the suite's log")?;
    let versions = versions::of(target)?;
    let mut command = target.command(places::binary("ginkgo"));
    command.args(["-v", "--no-color", "--procs=4", "--timeout=2h", "--json-report=report.json"]);
    command.arg(format!("--output-dir={}", folder.display()));
    command.arg(format!("--focus={}", focus.unwrap_or(FOCUS))).arg(format!("--skip={SKIP}"));
    command.arg(places::binary("e2e.test")).arg("--");
    command.arg(format!("--kubeconfig={}", target.kubeconfig().display()));
    command.args(["--provider=local", "--dump-logs-on-failure=false", "--disable-log-dump=true"]);
    let errors = log.try_clone().context("cannot share the suite's log")?;
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    let mut child = command.spawn().context("cannot run ginkgo")?;

    let mut done = 0;
    for line in BufReader::new(child.stdout.take().expect("it is piped")).split(b'\n') {
        let line = line.context("cannot read from ginkgo")?;
        log.write_all(&line).and_then(|()| log.write_all(b"\n")).context("cannot write the suite's log")?;
        // A test that passed and one that failed, each with its time.
        if ["• [", "• [FAILED]"].iter().any(|start| line.starts_with(start.as_bytes())) {
            done += 1;
            if done % 8 == 0 {
                progress.say(&format!("  {done} are through"));
            }
        }
    }
    child.wait().context("cannot wait for ginkgo")?;
    let report = fs::read_to_string(folder.join("report.json"));
    let report = report.with_context(|| format!("the suite wrote no report; see {}", log_path.display()))?;
    let report = serde_json::from_str(&report).context("the suite's report is no JSON")?;
    let mut run = read(&report);
    run.versions = versions;
    Ok(run)
}

fn read(report: &Value) -> Run {
    let mut run = Run::default();
    for suite in items(report) {
        let seconds = suite["RunTime"].as_f64().unwrap_or_default() / 1e9;
        run.seconds += seconds.round();
        for spec in items(&suite["SpecReports"]) {
            read_spec(spec, &mut run);
        }
    }
    run.passed.sort();
    run.failed.sort();
    run
}

fn read_spec(spec: &Value, run: &mut Run) {
    let name = name(spec);
    match (spec["LeafNodeType"].as_str(), spec["State"].as_str()) {
        (Some("It"), Some("passed")) => run.passed.push(name),
        // What is set up before a test, and what was not to run.
        (_, Some("passed" | "skipped" | "pending")) => return,
        _ => run.failed.push(name),
    }
    let log = spec["CapturedGinkgoWriterOutput"].as_str().unwrap_or_default();
    run.second_passes += log.matches(SECOND_PASS).count();
    run.repeated += log.matches(REPEATED).count();
}

/// Without what all have in common.
fn name(spec: &Value) -> String {
    let texts = items(&spec["ContainerHierarchyTexts"]).iter().chain([&spec["LeafNodeText"]]);
    let texts: Vec<&str> = texts.filter_map(Value::as_str).filter(|text| !text.is_empty()).collect();
    let name = if texts.is_empty() { spec["LeafNodeType"].to_string() } else { texts.join(" ") };
    name.trim_start_matches("[sig-network] ").replace(" [Feature:NetworkPolicy]", "")
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::read;

    fn spec(name: &str, state: &str, log: &str) -> Value {
        json!({"ContainerHierarchyTexts": ["[sig-network] Netpol", "between server and client"], "LeafNodeText": name,
            "LeafNodeType": "It", "State": state, "CapturedGinkgoWriterOutput": log})
    }

    #[test]
    fn what_did_not_pass_has_failed_and_what_was_repeated_is_counted() {
        let log = "failed first probe 2 wrong results ... retrying (SECOND TRY)\n\
            probe #1 :: connectivity expected :: x/a -> 10.0.0.1\n probe #2 :: connectivity not expected :: x/a";
        let before = json!({"LeafNodeType": "SynchronizedBeforeSuite", "State": "failed"});
        let specs = [
            spec("a", "passed", ""),
            spec("b", "failed", log),
            spec("c", "skipped", ""),
            spec("d", "panicked", ""),
            spec("e", "timedout", ""),
            before,
        ];
        let run = read(&json!([{"RunTime": 61_700_000_000_u64, "SpecReports": specs}]));
        let name = |last| format!("Netpol between server and client {last}");
        assert_eq!(run.passed, [name("a")]);
        assert_eq!(run.failed, [r#""SynchronizedBeforeSuite""#.to_owned(), name("b"), name("d"), name("e")]);
        assert_eq!((run.second_passes, run.repeated), (1, 1));
        assert!((run.seconds - 62.0).abs() < 0.1, "{}", run.seconds);
    }
}
