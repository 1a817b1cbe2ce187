//! Shared by the tests: YAML in, the model's value as short text out.

use std::fmt::Write as _;

use cellwall_kube::convert::{Decoded, decode};
use cellwall_kube::source::SourceEvent;
use cellwall_policy::model::{
    Change, NamespaceMatch, ObjectKey, Peer, Policy, Port, Problem, Requirement, Rule, Selector,
};
use serde_json::Value;

pub(crate) fn json(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).expect("the test's own YAML")
}

/// What the model is told of one manifest.
pub(crate) fn changes(yaml: &str) -> Vec<Change> {
    match decode(json(yaml)) {
        Decoded::Object(_, changes) => changes,
        other => panic!("{other:?}"),
    }
}

/// The policy of a manifest of which at least the frame can be read.
pub(crate) fn policy_of(value: Value) -> Option<(Policy, Vec<Problem>)> {
    match decode(value) {
        Decoded::Object(_, mut changes) => match changes.remove(0) {
            Change::Policy(policy, problems) => Some((policy, problems)),
            _ => None,
        },
        _ => None,
    }
}

pub(crate) fn render(changes: &[Change]) -> String {
    let mut out = String::new();
    for change in changes {
        match change {
            Change::Policy(policy, problems) => {
                render_policy(&mut out, policy);
                for problem in problems {
                    writeln!(out, "! {}: {}", problem.field, problem.message).expect("a String takes it");
                }
            }
            Change::Bad(problem) => {
                writeln!(out, "bad {}: {}: {}", problem.object, problem.field, problem.message)
                    .expect("a String takes it");
            }
            other => writeln!(out, "{other:#?}").expect("a String takes it"),
        }
    }
    out
}

fn render_policy(out: &mut String, policy: &Policy) {
    let Policy { key, subject, isolates, rules, .. } = policy;
    let isolates: Vec<&str> = ["ingress", "egress"]
        .into_iter()
        .zip(isolates)
        .filter(|(_, is)| **is)
        .map(|(name, _)| name)
        .collect();
    let (namespaces, pods) = (namespaces(&subject.namespaces), selector(&subject.pods));
    writeln!(out, "{key} isolates [{}] of {namespaces} {pods}", isolates.join(", "))
        .expect("a String takes it");
    for (direction, list) in ["ingress", "egress"].into_iter().zip(rules) {
        for rule in list {
            writeln!(out, "{direction}[{}] {}", rule.index, render_rule(rule)).expect("a String takes it");
        }
    }
}

fn render_rule(rule: &Rule) -> String {
    let peers = rule.peers.as_ref().map_or("anyone".to_owned(), |peers| list(peers, peer));
    let ports = rule.ports.as_ref().map_or("any port".to_owned(), |ports| list(ports, port));
    format!("{:?} {peers} on {ports}", rule.action)
}

fn list<T>(entries: &[T], text: impl Fn(&T) -> String) -> String {
    format!("[{}]", entries.iter().map(text).collect::<Vec<_>>().join("; "))
}

fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Pods(ns, pods) => format!("{} {}", namespaces(ns), selector(pods)),
        Peer::Block(block) if block.except.is_empty() => block.cidr.to_string(),
        Peer::Block(block) => format!("{} except {}", block.cidr, list(&block.except, ToString::to_string)),
        Peer::Nodes(nodes) => format!("nodes {}", selector(nodes)),
        Peer::Unknown => "nothing".to_owned(),
    }
}

fn port(port: &Port) -> String {
    match port {
        Port::Range(protocol, range) if range.low == range.high => format!("{protocol} {}", range.low),
        Port::Range(protocol, range) => format!("{protocol} {}-{}", range.low, range.high),
        Port::Named(name, protocol) => format!("{protocol:?} {name:?}"),
    }
}

fn namespaces(namespaces: &NamespaceMatch) -> String {
    match namespaces {
        NamespaceMatch::Named(name) => format!("ns {name}"),
        NamespaceMatch::Labels(labels) => format!("ns {}", selector(labels)),
    }
}

fn selector(selector: &Selector) -> String {
    let words = selector.requirements().iter().map(|r| match r {
        Requirement::In(key, values) => format!("{key} in {values:?}"),
        Requirement::NotIn(key, values) => format!("{key} not in {values:?}"),
        Requirement::Exists(key) => key.clone(),
        Requirement::DoesNotExist(key) => format!("!{key}"),
    });
    format!("({})", words.collect::<Vec<_>>().join(", "))
}

/// What a source says, in one line.
pub(crate) fn line(event: &SourceEvent) -> String {
    let change = match event {
        SourceEvent::Current(kind) => return format!("current {}", kind.name()),
        SourceEvent::Version(kind, version) => return format!("version {} {version}", kind.name()),
        SourceEvent::NotServed(kind) => return format!("not served {}", kind.name()),
        SourceEvent::Partial(kind, why) => return format!("partial {}: {why:?}", kind.name()),
        SourceEvent::Failed(kind, why) => return format!("failed {}: {why}", kind.name()),
        SourceEvent::Change(change) => change,
    };
    match change {
        Change::Namespace(namespace) => format!("namespace {}", namespace.name),
        Change::Node(node) => format!("node {}", node.name),
        Change::Service(service) => format!("service {}/{}", service.namespace, service.name),
        Change::EndpointSlice(slice) => {
            format!("slice {}/{} of {}", slice.namespace, slice.name, slice.service)
        }
        Change::Pod(pod) => format!("pod {}/{}", pod.namespace, pod.name),
        Change::Policy(policy, problems) => {
            let problems: Vec<_> = problems.iter().map(|problem| format!(" ! {}", problem.message)).collect();
            format!("policy {}/{}{}", policy.key.namespace, policy.key.name, problems.concat())
        }
        Change::Bad(Problem { object, field, message }) if field.is_empty() => {
            format!("bad {object}: {message}")
        }
        Change::Bad(Problem { object, field, message }) => format!("bad {object}: {field}: {message}"),
        Change::Gone(key) => format!("gone {key}"),
        Change::Listed(kind, keys) => {
            let name = |key: &ObjectKey| match key.namespace.as_str() {
                "" => key.name.clone(),
                namespace => format!("{namespace}/{}", key.name),
            };
            format!("listed {}: {}", kind.name(), keys.iter().map(name).collect::<Vec<_>>().join(" "))
        }
        other => format!("{other:?}"),
    }
}
