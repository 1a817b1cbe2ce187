//! One file: documents of YAML or JSON, each an object or a list of objects.

use std::path::Path;

use cellwall_policy::model::{Change, ObjectKey};
use serde_json::Value;
use tracing::debug;

use crate::convert::{Decoded, decode, decode_as, kind_of};

/// The most nodes of a file once its aliases are written out; ten objects of the largest size have fewer.
const NODES_MAX: usize = 1_000_000;
/// Problems kept of one file.
const PROBLEMS_MAX: usize = 32;

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// Its objects, in order.
    pub(super) objects: Vec<(ObjectKey, Vec<Change>)>,
    /// Where something is wrong that belongs to none of them, and what.
    pub(super) problems: Vec<(String, String)>,
}

/// Reads the text of a file; the error is where it cannot be parsed, and why.
pub(super) fn parse(text: &str, path: &Path) -> Result<Parsed, (String, String)> {
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let documents = if is_json { json(text) } else { yaml(text) }?;
    let mut parsed = Parsed::default();
    for (i, document) in documents.into_iter().enumerate() {
        parsed.document(document, &format!("document {}", i + 1), path);
    }
    Ok(parsed)
}

fn json(text: &str) -> Result<Vec<Value>, (String, String)> {
    let documents = serde_json::Deserializer::from_str(text).into_iter();
    documents
        .collect::<Result<Vec<Value>, _>>()
        .map_err(|error| (format!("line {}", error.line()), format!("cannot be parsed: {error}")))
}

fn yaml(text: &str) -> Result<Vec<Value>, (String, String)> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: NODES_MAX, max_events: 2 * NODES_MAX },
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let line = error.location().map(|location| format!("line {}", location.line()));
        (line.unwrap_or_default(), format!("cannot be parsed: {error}"))
    })
}

impl Parsed {
    fn document(&mut self, mut document: Value, at: &str, path: &Path) {
        let text = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default();
        // Items of a typed list carry no kind of their own; those of a plain `List` do.
        let list = text("kind").strip_suffix("List").map(|kind| kind_of(text("apiVersion"), kind));
        if let (Some(kind), Some(Value::Array(items))) = (list, document.get_mut("items").map(Value::take)) {
            for (i, item) in items.into_iter().enumerate() {
                let at = format!("{at}, items[{i}]");
                match kind {
                    Some(kind) => self.object(decode_as(kind, item), &at, path),
                    None => self.object(decode(item), &at, path),
                }
            }
            return;
        }
        self.object(decode(document), at, path);
    }

    fn object(&mut self, decoded: Decoded, at: &str, path: &Path) {
        match decoded {
            Decoded::Object(key, changes) => self.objects.push((key, changes)),
            Decoded::Unnamed(kind) => self.wrong(at, &format!("this {} has no metadata.name", kind.name())),
            Decoded::Other { kind, .. } if kind.is_empty() => {
                self.wrong(at, "this is no Kubernetes object: it has no kind");
            }
            Decoded::Other { api_version, kind } => {
                debug!(file = %path.display(), api_version, kind, "this kind decides nothing here");
            }
        }
    }

    fn wrong(&mut self, at: &str, why: &str) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push((at.to_owned(), format!("{why}; it has no effect")));
        }
    }
}
