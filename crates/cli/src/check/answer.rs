//! The answers for people.

use std::time::SystemTime;

use cellwall_check::{Item, Question, Side};
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
        table::rows(heading, self.flows.iter().zip(&self.items).map(|(flow, item)| row(flow, item)).collect())
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

fn row(flow: &Question, item: &Item) -> [String; 6] {
    let protocol = format!("{:?}", flow.protocol).to_uppercase();
    let protocol = flow.port.map_or_else(|| protocol.clone(), |port| format!("{protocol}/{port}"));
    let [egress, ingress] = match item {
        Item::Answer(answer) => [side(&answer.egress), side(&answer.ingress)],
        Item::Error { error } => [error.clone(), String::new()],
    };
    [flow.src.to_string(), flow.dst.to_string(), protocol, verdict(item).to_owned(), egress, ingress]
}

fn side(side: &Side) -> String {
    let audit = if side.audit { " (audited: passes all the same)" } else { "" };
    format!("{}{audit}", side.reason)
}
