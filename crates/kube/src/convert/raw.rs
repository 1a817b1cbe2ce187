//! Reading a NetworkPolicy from JSON entry by entry.
//!
//! A typed decoder drops fields it does not know and gives up the whole object at a field of a wrong type. Both would
//! widen access: a dropped field may be the one that restricts. So entries are tried one at a time, and one that
//! is not understood in full is replaced by an entry that the API's own rules call invalid: it matches nothing.

use cellwall_policy::model::{ObjectKey, Problem};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use serde::de::DeserializeOwned;
use serde_ignored::Path;
use serde_json::{Value, json};

use super::report::{self, Report};

/// A NetworkPolicy of which every part is understood, or replaced.
#[derive(Debug)]
pub(super) struct Understood {
    /// The object with the replacements in it.
    pub(super) object: NetworkPolicy,
    /// What was wrong with what was replaced.
    pub(super) problems: Vec<Problem>,
    /// Paths of the fields that hold a replacement.
    pub(super) replaced: Vec<String>,
}

/// Reads a NetworkPolicy; the error is for an object of which not even the frame can be read.
pub(super) fn network_policy(key: &ObjectKey, mut value: Value) -> Result<Understood, Problem> {
    let mut reader = Reader { report: Report::new(key.clone()), replaced: Vec::new() };
    if let Some(spec) = value.get_mut("spec").filter(|spec| spec.is_object()) {
        reader.rules::<NetworkPolicyIngressRule>(spec, "ingress", "from");
        reader.rules::<NetworkPolicyEgressRule>(spec, "egress", "to");
        reader.frame(spec).map_err(|error| report::unreadable(key, &error))?;
    }
    let (object, unknown) = read::<NetworkPolicy>(&value).map_err(|error| report::unreadable(key, &error))?;
    // Those of the spec have been dealt with above.
    for field in unknown.into_iter().filter(|field| !field.starts_with("spec.")) {
        reader.report.add(field, "this field is not known; it has no effect");
    }
    Ok(Understood { object, problems: reader.report.finish(), replaced: reader.replaced })
}

#[derive(Debug)]
struct Reader {
    report: Report,
    replaced: Vec<String>,
}

impl Reader {
    /// Tries each rule of one direction, and each entry of its lists.
    fn rules<R: DeserializeOwned>(&mut self, spec: &mut Value, direction: &str, peers: &str) {
        let Some(Value::Array(rules)) = spec.get_mut(direction) else { return };
        for (i, rule) in rules.iter_mut().enumerate() {
            let field = format!("spec.{direction}[{i}]");
            if let Some(Value::Array(entries)) = rule.get_mut(peers) {
                self.entries::<NetworkPolicyPeer>(entries, &format!("{field}.{peers}"), &json!({}));
            }
            if let Some(Value::Array(entries)) = rule.get_mut("ports") {
                self.entries::<NetworkPolicyPort>(
                    entries,
                    &format!("{field}.ports"),
                    &json!({"protocol": ""}),
                );
            }
            if !self.understands::<R>(rule, &field, "this rule matches nothing") {
                *rule = json!({ peers: [{}] });
            }
        }
    }

    fn entries<E: DeserializeOwned>(&mut self, entries: &mut [Value], list: &str, replacement: &Value) {
        for (i, entry) in entries.iter_mut().enumerate() {
            if !self.understands::<E>(entry, &format!("{list}[{i}]"), "this entry matches nothing") {
                *entry = replacement.clone();
            }
        }
    }

    /// True when `value` is a `T` without unknown fields; else it is reported and counts as replaced.
    fn understands<T: DeserializeOwned>(&mut self, value: &Value, field: &str, consequence: &str) -> bool {
        match read::<T>(value) {
            Ok((_, unknown)) if unknown.is_empty() => return true,
            Ok((_, unknown)) => {
                for name in unknown {
                    self.report.add(
                        format_args!("{field}.{name}"),
                        format_args!("this field is not known and may restrict; {consequence}"),
                    );
                }
            }
            Err(error) => self.report.add(field, format_args!("{error}; {consequence}")),
        }
        self.replaced.push(field.to_owned());
        false
    }

    /// The spec without its rules. An unknown field here may restrict which pods or rules are meant: the selector
    /// is made one that cannot be read in full, which keeps the isolation and drops the rules.
    fn frame(&mut self, spec: &mut Value) -> Result<(), serde_json::Error> {
        let lists = ["ingress", "egress"];
        let rules = lists.map(|list| spec.get_mut(list).map(Value::take));
        let (_, unknown) = read::<NetworkPolicySpec>(spec)?;
        for (list, rules) in lists.into_iter().zip(rules) {
            if let Some(rules) = rules {
                spec[list] = rules;
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        for name in unknown {
            self.report.add(
                format_args!("spec.{name}"),
                "this field is not known and may restrict; the pods stay isolated, no rule applies",
            );
        }
        let selector = &mut spec["podSelector"];
        if selector.is_null() {
            *selector = json!({});
        }
        let expressions = &mut selector["matchExpressions"];
        if expressions.is_null() {
            *expressions = json!([]);
        }
        expressions
            .as_array_mut()
            .expect("it was just read as a list")
            .push(json!({"key": "", "operator": ""}));
        self.replaced.push("spec.podSelector".to_owned());
        Ok(())
    }
}

/// Decodes a value and lists the fields of it that the type does not have.
fn read<T: DeserializeOwned>(value: &Value) -> Result<(T, Vec<String>), serde_json::Error> {
    let mut unknown = Vec::new();
    let object = serde_ignored::deserialize(value, |path| unknown.push(written(&path)))?;
    Ok((object, unknown))
}

/// A path as the API writes it: `spec.ingress[0].from`.
fn written(path: &Path<'_>) -> String {
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", written(parent)),
        Path::Map { parent, key } => match written(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            written(parent)
        }
    }
}
