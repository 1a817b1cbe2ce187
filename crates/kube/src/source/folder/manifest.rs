//! One file: documents of YAML or JSON, each an object or a list of objects.

use std::path::Path;

use cellwall_policy::model::{Change, ObjectKey};
use serde_json::Value;
use tracing::debug;

use crate::convert::{Decoded, decode};

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
    let mut parsed = Parsed::default();
    for found in objects(text, path, NODES_MAX)? {
        parsed.take(found, path);
    }
    Ok(parsed)
}

/// An object as it is written, and where in its file.
#[derive(Debug)]
pub(super) struct Written {
    at: String,
    pub(super) value: Value,
}

/// All objects of a file, those of lists one by one; no more nodes than these in YAML.
pub(super) fn objects(text: &str, path: &Path, nodes_max: usize) -> Result<Vec<Written>, (String, String)> {
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let documents = if is_json { json(text) } else { yaml(text, nodes_max) }?;
    let mut objects = Vec::new();
    for (i, mut document) in documents.into_iter().enumerate() {
        let at = format!("document {}", i + 1);
        let text = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        match (kind.strip_suffix("List"), document.get_mut("items").map(Value::take)) {
            (Some(kind), Some(Value::Array(items))) => {
                for (i, mut value) in items.into_iter().enumerate() {
                    // Items of a typed list carry no kind of their own; those of a plain `List` do.
                    if let Some(item) = value.as_object_mut().filter(|_| !kind.is_empty()) {
                        item.insert("apiVersion".to_owned(), api_version.clone().into());
                        item.insert("kind".to_owned(), kind.into());
                    }
                    objects.push(Written { at: format!("{at}, items[{i}]"), value });
                }
            }
            _ => objects.push(Written { at, value: document }),
        }
    }
    Ok(objects)
}

fn json(text: &str) -> Result<Vec<Value>, (String, String)> {
    let documents = serde_json::Deserializer::from_str(text).into_iter();
    documents
        .collect::<Result<Vec<Value>, _>>()
        .map_err(|error| (format!("line {}", error.line()), format!("cannot be parsed: {error}")))
}

fn yaml(text: &str, nodes_max: usize) -> Result<Vec<Value>, (String, String)> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: nodes_max, max_events: 2 * nodes_max },
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let line = error.location().map(|location| format!("line {}", location.line()));
        (line.unwrap_or_default(), format!("cannot be parsed: {error}"))
    })
}

impl Parsed {
    /// Decodes an object. Returns the kind of one that decides nothing.
    pub(super) fn take(&mut self, found: Written, path: &Path) -> Option<String> {
        let Written { at, value } = found;
        match decode(value) {
            Decoded::Object(key, changes) => self.objects.push((key, changes)),
            Decoded::Unnamed(kind) => self.wrong(
                &at,
                &format!(
                    "this {} has no metadata.name, or a metadata.namespace that is no text",
                    kind.name()
                ),
            ),
            Decoded::Other { kind, .. } if kind.is_empty() => {
                self.wrong(&at, "this is no Kubernetes object: it has no kind");
            }
            Decoded::Other { api_version, kind } => {
                debug!(file = %path.display(), api_version, kind, "this kind decides nothing here");
                return Some(kind);
            }
        }
        None
    }

    fn wrong(&mut self, at: &str, why: &str) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push((at.to_owned(), format!("{why}; it has no effect")));
        }
    }
}
