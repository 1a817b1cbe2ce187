//! `cellwall check`: asks no agent.

mod answer;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use cellwall_check::{Item, Outcome, Question, check, read_flows};
use cellwall_kube::source::{Manifests, read, read_stream};
use cellwall_policy::model::{Cluster, Touched};
use clap::{Args, ValueEnum};
use ipnet::IpNet;

use crate::args::Format;
use crate::output::render;
use crate::table::printable;
use answer::Answers;

/// The largest file of flows that is read, in bytes.
const FLOWS_MAX: u64 = 16 << 20;
/// Something could not be answered or read.
const INCOMPLETE: u8 = 2;
/// A flow has a verdict that `--fail-on` names.
const FAILED: u8 = 3;

/// What the command's help ends with.
const HELP: &str = r#"Example:
  cellwall check -f manifests/ --flows flows.json -o json

Flows, a JSON list of {"src": END, "dst": END, "protocol": PROTOCOL, "port": PORT}:
  [{"src": {"pod": "shop/web"}, "dst": {"pod": "shop/api"}, "protocol": "TCP", "port": 9000},
   {"src": {"ip": "203.0.113.9"}, "dst": {"service": "shop/web"}, "protocol": "TCP", "port": 80},
   {"src": {"pod": "shop/web"}, "dst": {"pod": "shop/db"}, "protocol": "ICMP"}]

  END       {"pod": "NAMESPACE/NAME"}, {"ip": "ADDRESS"} or {"service": "NAMESPACE/NAME"}: as dst
            each of its backends, as src each of its pods
  PROTOCOL  TCP, UDP, SCTP or ICMP (an echo request), which has no port
  PORT      that of the destination, 1 to 65535; of a Service its own

  IPv4 is meant where both ends have it. A port of a node that leads to a Service or a pod is an
  error that names it.

Answers (-o json), a list in the order of the flows:
  [{"verdict": "deny",
    "egress":  {"verdict": "allow", "reason": "not isolated"},
    "ingress": {"verdict": "deny", "reason": "isolated by shop/api, no rule matched",
                "isolatedBy": ["shop/api"]}}, ...]

  egress is the side of the source, ingress that of the destination; isolatedBy are the policies
  that isolate the pod there. A rule that decided is there as "policy" and "rule", its position
  from 0. A Service has "backends", each with its own verdict, and is "partial" when they differ.
  From a Service to another, the backends of the first have those of the second. A flow that cannot
  be answered is {"error": "..."}. All fields are in docs/check.md of Cellwall's sources.

Exit codes:
  0  every flow was answered, whatever the verdicts
  1  nothing could be answered: the flows or the folder cannot be read
  2  a flow is answered with an error, a manifest could not be read, or the command line is wrong
  3  a flow has a verdict that --fail-on names"#;

/// What to check.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Check {
    /// Manifests: a folder, a file, or - for standard input.
    ///
    /// Of a folder, the files *.yaml, *.yml and *.json directly in it. What counts: NetworkPolicy, Namespace, Pod, Node,
    /// Service, EndpointSlice, and as one pod of its name each Deployment, StatefulSet, DaemonSet, ReplicaSet,
    /// ReplicationController, Job and CronJob, unless the pods that it made are there, too. A Service without slices leads
    /// to the pods that its selector finds.
    #[arg(short, long, value_name = "PATH")]
    filename: PathBuf,
    /// Flows to ask about, or - for standard input: a JSON list.
    #[arg(long, value_name = "FILE")]
    flows: PathBuf,
    /// Pod range of the cluster, in CIDR notation. Can be given for each family.
    ///
    /// Pods whose manifests have no address get one of it, which matters for rules with an ipBlock. As for the agent, an
    /// address in it that no pod has is an unknown pod, which no rule allows.
    #[arg(long = "pod-cidr", value_name = "CIDR", value_delimiter = ',')]
    pod_cidrs: Vec<IpNet>,
    /// Exit with 3 when a flow has one of these verdicts.
    #[arg(long, value_name = "VERDICT", value_enum, value_delimiter = ',')]
    fail_on: Vec<FailOn>,
    /// The agent's, which is not asked: taken so that one command line does for all, and not shown.
    #[arg(id = "socket", long = "socket", global = true, hide = true, value_name = "PATH",
          default_value = cellwall_api::DEFAULT_SOCKET)]
    _socket: PathBuf,
}

/// A verdict.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum FailOn {
    /// Arrives.
    Allow,
    /// Does not arrive.
    Deny,
    /// Arrives at some backends of a Service, or from some.
    Partial,
}

impl FailOn {
    const fn outcome(self) -> Outcome {
        match self {
            Self::Allow => Outcome::Allow,
            Self::Deny => Outcome::Deny,
            Self::Partial => Outcome::Partial,
        }
    }
}

/// Answers; the text to print and how to exit.
pub(crate) fn run(args: Check, format: Format) -> Result<(String, ExitCode)> {
    if is_stdin(&args.filename) && is_stdin(&args.flows) {
        bail!("-f and --flows cannot both be read from standard input");
    }
    let flows = flows(&args.flows)?;
    let manifests = if is_stdin(&args.filename) { read_stream(io::stdin()) } else { read(&args.filename) };
    let manifests = manifests.with_context(|| format!("cannot read {}", name(&args.filename)))?;
    let is_whole = manifests.unread.is_empty();
    let checked = check(cluster(args.pod_cidrs, &manifests), &manifests.selectors, &flows);
    for note in &checked.notes {
        warn(note);
    }

    let has_errors = checked.items.iter().any(|item| matches!(item, Item::Error { .. }));
    let fails = |item: &Item| match item {
        Item::Answer(answer) => args.fail_on.iter().any(|on| on.outcome() == answer.verdict),
        Item::Error { .. } => false,
    };
    let code = match () {
        () if has_errors || !is_whole => ExitCode::from(INCOMPLETE),
        () if checked.items.iter().any(fails) => ExitCode::from(FAILED),
        () => ExitCode::SUCCESS,
    };
    Ok((render(&Answers::new(flows, checked.items), format)?, code))
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// A file as messages call it.
fn name(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}

fn flows(path: &Path) -> Result<Vec<Question>> {
    let from: Box<dyn Read> = if is_stdin(path) {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).with_context(|| format!("cannot read {}", name(path)))?)
    };
    let mut text = String::new();
    from.take(FLOWS_MAX + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read {}", name(path)))?;
    if text.len() as u64 > FLOWS_MAX {
        bail!("{} is larger than {} MiB: ask in parts", name(path), FLOWS_MAX >> 20);
    }
    read_flows(&text).with_context(|| format!("{} is no list of flows, such as [{EXAMPLE}]", name(path)))
}

/// A flow as it is written.
pub(crate) const EXAMPLE: &str =
    r#"{"src": {"pod": "shop/web"}, "dst": {"pod": "shop/api"}, "protocol": "TCP", "port": 9000}"#;

/// What the manifests say; what is wrong with them is told.
fn cluster(pod_cidrs: Vec<IpNet>, manifests: &Manifests) -> Cluster {
    let mut cluster = Cluster { pod_cidrs, ..Cluster::default() };
    for change in manifests.changes.iter().cloned() {
        cluster.apply(change, &mut Touched::default());
    }
    for problem in &manifests.unread {
        eprintln!("error: {}", printable(&problem.to_string()));
    }
    for problem in cluster.problems.values().flatten().filter(|problem| !manifests.unread.contains(problem)) {
        warn(&problem.to_string());
    }
    for note in &manifests.notes {
        warn(note);
    }
    cluster
}

fn warn(what: &str) {
    eprintln!("warning: {}", printable(what));
}
