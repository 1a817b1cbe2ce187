//! Reading a NetworkPolicy from JSON entry by entry.
//!
//! A typed decoder drops fields it does not know and gives up the whole object at a field of a wrong type. Both would
//! widen access: a dropped field may be the one that restricts, and a policy that is given up isolates nothing. So
//! entries are tried one at a time, and one that is not understood in full is replaced by an entry that the API's own
//! rules call invalid: it matches nothing. What frames them is replaced by what isolates most: all pods of the
//! namespace, both directions. Whatever else is wrong, a NetworkPolicy with a name is one.

use cellwall_policy::model::{ObjectKey, Problem};
use cellwall_policy::planted;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::de::DeserializeOwned;
use serde_ignored::Path;
use serde_json::{Map, Value, json};

use super::report::Report;

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

/// Reads a NetworkPolicy of this key, whatever it looks like.
pub(super) fn network_policy(key: &ObjectKey, mut value: Value) -> Understood {
    let mut reader = Reader { report: Report::new(key.clone()), replaced: Vec::new() };
    reader.metadata(key, &mut value);
    if let Some(spec) = value.get_mut("spec").filter(|spec| !spec.is_null()) {
        reader.spec(spec);
    }
    let object = match read::<NetworkPolicy>(&value) {
        Ok((object, unknown)) => {
            // Those of the spec have been dealt with above.
            for field in unknown.into_iter().filter(|field| !field.starts_with("spec.")) {
                reader.report.add(field, "this field is not known; it has no effect");
            }
            object
        }
        Err(error) => reader.closed(key, &error),
    };
    Understood { object, problems: reader.report.finish(), replaced: reader.replaced }
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

    /// Only the name and the namespace decide anything.
    fn metadata(&mut self, key: &ObjectKey, value: &mut Value) {
        if let Err(error) = read::<ObjectMeta>(&value["metadata"]) {
            let consequence = "only its name and namespace count";
            self.report.add("metadata", format_args!("cannot be read: {error}; {consequence}"));
            value["metadata"] = json!({"name": key.name, "namespace": key.namespace});
        }
    }

    fn spec(&mut self, spec: &mut Value) {
        if !spec.is_object() {
            self.report
                .add("spec", "is no object; all pods of the namespace are isolated in both directions");
            self.replaced.push("spec".to_owned());
            *spec = json!({"policyTypes": ["Ingress", "Egress"]});
        }
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            let rules = spec.get_mut(direction).filter(|rules| !rules.is_null() && !rules.is_array());
            if let Some(rules) = rules {
                self.report
                    .add(format_args!("spec.{direction}"), "is no list; no rule of this direction applies");
                self.replaced.push(format!("spec.{direction}"));
                *rules = json!([{ peers: [{}] }]);
            }
        }
        self.rules::<NetworkPolicyIngressRule>(spec, "ingress", "from");
        self.rules::<NetworkPolicyEgressRule>(spec, "egress", "to");
        self.policy_types(spec);
        self.selector(spec);
    }

    fn policy_types(&mut self, spec: &mut Value) {
        let Some(types) = spec.get_mut("policyTypes").filter(|types| !types.is_null()) else { return };
        if let Err(error) = read::<Vec<String>>(types) {
            self.report.add("spec.policyTypes", format_args!("{error}; both directions are isolated"));
            self.replaced.push("spec.policyTypes".to_owned());
            let all = ["Ingress", "Egress"];
            *types = if planted("unreadable-types-are-none") { Value::Null } else { json!(all) };
        }
    }

    /// The selector of the policy itself. An unknown field in it or beside it may restrict which pods or rules are
    /// meant: it is made one that cannot be read in full, which keeps the isolation and drops the rules.
    fn selector(&mut self, spec: &mut Value) {
        if let Some(selector) = spec.get_mut("podSelector").filter(|selector| !selector.is_null())
            && let Err(error) = read::<LabelSelector>(selector)
        {
            let consequence = "all pods of the namespace are isolated, no rule applies";
            self.report.add("spec.podSelector", format_args!("{error}; {consequence}"));
            self.cut(spec);
        }
        let frame: Map<String, Value> = spec
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| !["ingress", "egress"].contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        // What cannot be read even now is reported with the whole object.
        let unknown =
            read::<NetworkPolicySpec>(&frame.into()).map_or_else(|_| Vec::new(), |(_, unknown)| unknown);
        for name in &unknown {
            self.report.add(
                format_args!("spec.{name}"),
                "this field is not known and may restrict; the pods are isolated, no rule applies",
            );
        }
        if !unknown.is_empty() {
            self.cut(spec);
        }
        // One beside the others may be `policyTypes`, mistyped.
        if unknown.iter().any(|name| !name.contains('.')) {
            self.replaced.push("spec.policyTypes".to_owned());
            spec["policyTypes"] = json!(["Ingress", "Egress"]);
        }
    }

    /// Makes the selector one of which a part is missing, or everything where it is no selector.
    fn cut(&mut self, spec: &mut Value) {
        let selector = &mut spec["podSelector"];
        if read::<LabelSelector>(selector).is_err() {
            *selector = json!({});
        }
        let expressions = &mut selector["matchExpressions"];
        if !expressions.is_array() {
            *expressions = json!([]);
        }
        if let Value::Array(expressions) = expressions {
            expressions.push(json!({"key": "", "operator": ""}));
        }
        self.replaced.push("spec.podSelector".to_owned());
    }

    /// A policy of which nothing is left but its key: all pods of its namespace are isolated.
    fn closed(&mut self, key: &ObjectKey, error: &serde_json::Error) -> NetworkPolicy {
        let consequence = "all pods of the namespace are isolated in both directions";
        self.report.add("", format_args!("cannot be read: {error}; {consequence}"));
        NetworkPolicy {
            metadata: ObjectMeta {
                name: Some(key.name.clone()),
                namespace: Some(key.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(NetworkPolicySpec {
                policy_types: Some(["Ingress", "Egress"].map(str::to_owned).to_vec()),
                ..NetworkPolicySpec::default()
            }),
        }
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
