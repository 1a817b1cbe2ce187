//! One answer, five formats.

use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::args::Format;
use crate::table;

/// An answer that people read.
pub(crate) trait Answer: Serialize {
    /// Columns; more of them when `wide`. `now` is what ages count to.
    fn table(&self, wide: bool, now: SystemTime) -> String;
    /// `kind/name`, as kubectl takes it.
    fn names(&self) -> Vec<String>;
}

/// The answer as text that ends in a line break.
pub(crate) fn render(answer: &impl Answer, format: Format) -> Result<String> {
    let mut text = match format {
        Format::Table => answer.table(false, SystemTime::now()),
        Format::Wide => answer.table(true, SystemTime::now()),
        Format::Json => serde_json::to_string_pretty(answer).context("cannot write JSON")?,
        Format::Yaml => serde_saphyr::to_string(answer).context("cannot write YAML")?,
        Format::Name => {
            answer.names().iter().map(|name| table::printable(name)).collect::<Vec<_>>().join("\n")
        }
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Of this command, and of the agent when it was asked.
#[derive(Serialize)]
pub(crate) struct Versions {
    pub(crate) client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<String>,
}

impl Answer for Versions {
    fn table(&self, _: bool, _: SystemTime) -> String {
        let mut facts = vec![("Client", self.client.clone())];
        facts.extend(self.agent.iter().map(|agent| ("Agent", agent.clone())));
        table::facts(&facts)
    }

    fn names(&self) -> Vec<String> {
        std::iter::once(format!("client/{}", self.client))
            .chain(self.agent.iter().map(|agent| format!("agent/{agent}")))
            .collect()
    }
}
