//! The answers for people.

use std::time::SystemTime;

use cellwall_check::{Answer as Judged, Backend, End, Item, Question, Side};
use serde::Serialize;

use crate::output::Answer;
use crate::table;

/// Flows and what is said about them; only the latter is in JSON and YAML.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Answers {
    items: Vec<Item>,
    #[serde(skip)]
    flows: Vec<Question>,
}

impl Answers {
    pub(super) const fn new(flows: Vec<Question>, items: Vec<Item>) -> Self {
        Self { items, flows }
    }
}

impl Answer for Answers {
    fn table(&self, _: bool, _: SystemTime) -> String {
        if self.items.is_empty() {
            return "No flows were asked about.\n".to_owned();
        }
        let heading = ["SRC", "DST", "PROTOCOL", "VERDICT", "EGRESS", "INGRESS"];
        let flows = self.flows.iter().zip(&self.items);
        table::rows(heading, flows.flat_map(|(flow, item)| rows(flow, item)).collect())
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|item| verdict(item).to_owned()).collect()
    }
}

fn verdict(item: &Item) -> &'static str {
    match item {
        Item::Answer(answer) => answer.verdict.name(),
        Item::Error { .. } => "error",
    }
}

/// A flow, and below it the backends of its Services.
fn rows(flow: &Question, item: &Item) -> Vec<[String; 6]> {
    let (src, dst) = (flow.src.to_string(), flow.dst.to_string());
    let asked = at_port(flow, None);
    match item {
        Item::Answer(answer) => {
            let mut all = vec![ended([src, dst, asked], answer)];
            backends(flow, answer, matches!(flow.src, End::Service(_)), &mut all);
            all
        }
        Item::Error { error } => {
            vec![[src, dst, asked, verdict(item).to_owned(), error.clone(), String::new()]]
        }
    }
}

/// Each stands in the column of its Service; below one that is a source, where that leads.
fn backends(flow: &Question, answer: &Judged, are_sources: bool, all: &mut Vec<[String; 6]>) {
    for Backend { end, port, answer } in answer.backends.iter().flatten() {
        let (end, asked) = (format!("  {end}"), at_port(flow, *port));
        if are_sources {
            all.push(ended([end, String::new(), asked], answer));
            backends(flow, answer, false, all);
        } else {
            all.push(ended([String::new(), end, asked], answer));
        }
    }
}

/// The flow's protocol, and this port instead of its own.
fn at_port(flow: &Question, port: Option<u16>) -> String {
    match port.map(i64::from).or(flow.port) {
        Some(port) => format!("{}/{port}", flow.protocol),
        None => flow.protocol.to_string(),
    }
}

fn ended([src, dst, protocol]: [String; 3], answer: &Judged) -> [String; 6] {
    let verdict = answer.verdict.name().to_owned();
    [src, dst, protocol, verdict, side(&answer.egress), side(&answer.ingress)]
}

fn side(side: &Side) -> String {
    let audit = if side.audit { " (audited: passes all the same)" } else { "" };
    format!("{}{audit}", side.reason)
}
