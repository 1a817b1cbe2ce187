//! The answers for people.

use std::iter;
use std::time::SystemTime;

use cellwall_check::{Answer as Judged, Backend, Item, Question, Side};
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

/// A flow, and below it the backends of its Service.
fn rows(flow: &Question, item: &Item) -> Vec<[String; 6]> {
    let (src, dst) = (flow.src.to_string(), flow.dst.to_string());
    let protocol = flow.protocol.to_string();
    let with_port = |port: i64| format!("{protocol}/{port}");
    let asked = flow.port.map_or_else(|| protocol.clone(), with_port);
    let answer = match item {
        Item::Answer(answer) => answer,
        Item::Error { error } => {
            return vec![[src, dst, asked, verdict(item).to_owned(), error.clone(), String::new()]];
        }
    };
    let backends = answer.backends.iter().flatten();
    let backends = backends.map(|Backend { end, port, answer }| {
        ended([String::new(), format!("  {end}"), with_port((*port).into())], answer)
    });
    iter::once(ended([src, dst, asked], answer)).chain(backends).collect()
}

fn ended([src, dst, protocol]: [String; 3], answer: &Judged) -> [String; 6] {
    let verdict = answer.verdict.name().to_owned();
    [src, dst, protocol, verdict, side(&answer.egress), side(&answer.ingress)]
}

fn side(side: &Side) -> String {
    let audit = if side.audit { " (audited: passes all the same)" } else { "" };
    format!("{}{audit}", side.reason)
}
