//! Label selectors.
//!
//! "The result of matchLabels and matchExpressions are ANDed. An empty label selector matches all objects. A null
//! label selector matches no objects." What a null selector means in a policy is said where the field is read.

use std::collections::BTreeMap;

use crate::{
    decide::Case,
    objects::api::{LabelSelector, LabelSelectorRequirement, Namespace, NetworkPolicySpec, Pod},
};

/// The label that the API server writes on every namespace.
const METADATA_NAME: &str = "kubernetes.io/metadata.name";

/// The labels of an object.
pub(crate) struct Labels<'a> {
    written: Option<&'a BTreeMap<String, String>>,
    /// The name of the object, if it is a namespace.
    namespace: Option<&'a str>,
}

impl<'a> Labels<'a> {
    pub(crate) fn of_pod(pod: &'a Pod) -> Self {
        Self { written: pod.metadata.labels.as_ref(), namespace: None }
    }

    /// With `kubernetes.io/metadata.name`, which a manifest need not write and cannot change (S25).
    pub(crate) fn of_namespace(namespace: &'a Namespace) -> Self {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        Self { written: namespace.metadata.labels.as_ref(), namespace: Some(name) }
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        if self.namespace.is_some() && key == METADATA_NAME {
            return self.namespace;
        }
        self.written?.get(key).map(String::as_str)
    }
}

/// What a requirement says about an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Met {
    Yes,
    No,
    /// Nothing: the requirement is not one.
    Invalid,
}

impl Case<'_> {
    /// Whether the selector, as part of a peer, matches. One that is not valid matches nothing (S29).
    pub(crate) fn selects(&self, selector: &LabelSelector, labels: &Labels<'_>) -> bool {
        let verdicts = self.requirements(selector, labels);
        self.notes.note_if(29, verdicts.contains(&Met::Invalid));
        verdicts.iter().all(|met| *met == Met::Yes)
    }

    /// Whether `spec.podSelector` selects the subject, and then whether all of it was understood. A requirement that
    /// is not valid is left out, which selects more pods: they are isolated, and the caller allows them nothing.
    pub(crate) fn selects_subject(&self, spec: &NetworkPolicySpec) -> Option<bool> {
        // "An empty selector matches all pods in the policy's namespace. This field is optional. If it is not
        // specified, it defaults to an empty selector."
        let missing = LabelSelector::default();
        let selector = spec.pod_selector.as_ref().unwrap_or(&missing);
        let verdicts = self.requirements(selector, &Labels::of_pod(self.subject));
        let understood = !verdicts.contains(&Met::Invalid);
        self.notes.note_if(16, verdicts.is_empty());
        self.notes.note_if(29, !understood);
        (!verdicts.contains(&Met::No)).then_some(understood)
    }

    fn requirements(&self, selector: &LabelSelector, labels: &Labels<'_>) -> Vec<Met> {
        let pairs = selector.match_labels.iter().flatten().map(|(key, value)| self.pair(key, value, labels));
        let expressions = selector.match_expressions.iter().flatten().map(|e| self.expression(e, labels));
        let verdicts: Vec<_> = pairs.chain(expressions).collect();
        self.notes.note_if(17, verdicts.len() > 1);
        verdicts
    }

    /// "A single {key,value} in the matchLabels map is equivalent to an element of matchExpressions, whose key field
    /// is "key", the operator is "In", and the values array contains only "value"."
    fn pair(&self, key: &str, value: &str, labels: &Labels<'_>) -> Met {
        if !is_key(key) || !is_value(value) {
            return Met::Invalid;
        }
        self.notes.note_if(21, value.is_empty());
        self.notes.note_if(25, labels.namespace.is_some() && key == METADATA_NAME);
        met(labels.get(key) == Some(value))
    }

    fn expression(&self, expression: &LabelSelectorRequirement, labels: &Labels<'_>) -> Met {
        // "If the operator is In or NotIn, the values array must be non-empty. If the operator is Exists or
        // DoesNotExist, the values array must be empty."
        let values = expression.values.as_deref().unwrap_or_default();
        let takes_values = match expression.operator.as_str() {
            "In" | "NotIn" => true,
            "Exists" | "DoesNotExist" => false,
            _ => return Met::Invalid,
        };
        if takes_values == values.is_empty()
            || !is_key(&expression.key)
            || !values.iter().all(|v| is_value(v))
        {
            return Met::Invalid;
        }
        let label = labels.get(&expression.key);
        self.notes.note_if(25, labels.namespace.is_some() && expression.key == METADATA_NAME);
        let listed = label.is_some_and(|label| values.iter().any(|value| value == label));
        match expression.operator.as_str() {
            "In" => {
                self.notes.note(18);
                met(listed)
            }
            // An object without the key matches.
            "NotIn" => {
                self.notes.note_if(19, label.is_none());
                met(!listed)
            }
            "Exists" => {
                self.notes.note(20);
                met(label.is_some())
            }
            _ => {
                self.notes.note(20);
                met(label.is_none())
            }
        }
    }
}

fn met(condition: bool) -> Met {
    if condition { Met::Yes } else { Met::No }
}

/// A qualified name: "an optional prefix and name, separated by a slash", the prefix a DNS subdomain.
fn is_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    !name.is_empty() && is_value(name) && prefix.is_none_or(is_subdomain)
}

/// "Must be 63 characters or less (can be empty), unless empty, must begin and end with an alphanumeric character,
/// could contain dashes, underscores, dots, and alphanumerics between."
fn is_value(value: &str) -> bool {
    let ends = |edge: Option<u8>| edge.is_none_or(|b| b.is_ascii_alphanumeric());
    let bytes = value.as_bytes();
    bytes.len() <= 63
        && ends(bytes.first().copied())
        && ends(bytes.last().copied())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// RFC 1123: labels of lower-case letters, digits and inner dashes, joined by dots.
fn is_subdomain(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= 253
        && name.split('.').all(|label| {
            let bytes = label.as_bytes();
            edge(bytes.first())
                && edge(bytes.last())
                && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        })
}
