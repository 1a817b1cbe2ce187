//! Objects and their changes as text that a person reads, the objects such that a test can read them back.

use std::collections::BTreeMap;

use cellwall_oracle::Objects;
use serde_json::Value;

/// The objects as a YAML document of [`Objects`], one object a line, which [`read_objects`] reads.
#[must_use]
pub fn describe(objects: &Objects) -> String {
    let document = objects.to_document();
    let mut out = String::new();
    for (field, value) in document.as_object().expect("a struct") {
        out.push_str(field);
        out.push(':');
        match value {
            Value::Array(list) if !list.is_empty() => {
                for item in list {
                    out.push_str("\n- ");
                    write(item, &mut out);
                }
            }
            value => {
                out.push(' ');
                write(value, &mut out);
            }
        }
        out.push('\n');
    }
    out
}

/// The objects of a YAML document. The error says where it is none.
pub fn read_objects(text: &str) -> Result<Objects, String> {
    // Without them a namespace `y` would be a truth.
    let options = serde_saphyr::options! { strict_booleans: true };
    let document: Value =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())?;
    Objects::from_document(document).map_err(|error| error.to_string())
}

/// What was done to the first objects to make the second of them, one line each and in the order of names. The order
/// of lists is not compared.
#[must_use]
pub fn changes(before: &Objects, after: &Objects) -> Vec<String> {
    let (before, after) = (by_name(before), by_name(after));
    let mut lines = Vec::new();
    for (name, value) in &before {
        match after.get(name) {
            Some(new) => compare(name, &mut Vec::new(), value, new, &mut lines),
            None => lines.push(format!("- {name}")),
        }
    }
    for (name, value) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
        lines.push(format!("+ {name}: {}", text(value)));
    }
    lines
}

/// Every object under its kind, namespace and name, and the settings under theirs.
fn by_name(objects: &Objects) -> BTreeMap<String, Value> {
    let settings = Objects {
        node_name: objects.node_name.clone(),
        pod_cidrs: objects.pod_cidrs.clone(),
        node_addresses: objects.node_addresses.clone(),
        ..Objects::default()
    };
    let settings = settings.to_document();
    let named = objects.values().into_iter().map(|value| {
        let of = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let name = format!("{} {}/{}", of("/kind"), of("/metadata/namespace"), of("/metadata/name"));
        (name.replace(" /", " "), value)
    });
    named.chain([("the settings".to_string(), settings)]).collect()
}

/// Goes into maps and into lists of one length; what differs otherwise is shown whole.
fn compare(name: &str, path: &mut Vec<String>, before: &Value, after: &Value, lines: &mut Vec<String>) {
    let mut below = |step: String, before: &Value, after: &Value| {
        path.push(step);
        compare(name, path, before, after, lines);
        path.pop();
    };
    match (before, after) {
        _ if before == after => {}
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                below(key.clone(), value, new.get(key).unwrap_or(&Value::Null));
            }
            for (key, value) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
                below(key.clone(), &Value::Null, value);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                below(index.to_string(), old, new);
            }
        }
        _ => lines.push(format!("~ {name}: {} {} -> {}", path.join("."), text(before), text(after))),
    }
}

fn text(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

/// In flow style. Which kind an object is of, its list says.
fn write(value: &Value, out: &mut String) {
    match value {
        Value::String(text) if is_plain(text) => out.push_str(text),
        Value::Array(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            let entries = map.iter().filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind"));
            for (index, (key, item)) in entries.enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write(&Value::String(key.clone()), out);
                out.push_str(": ");
                write(item, out);
            }
            out.push('}');
        }
        // JSON's scalars are YAML's.
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// Words that no reader takes for anything but a string, and IPv4 addresses and blocks, which have too many dots to
/// be numbers.
fn is_plain(text: &str) -> bool {
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"./-_".contains(&b))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_lowercase().as_str());
    let is_address = text.split('.').count() == 4
        && text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_digit() || b"./".contains(&b));
    is_word || is_address
}
