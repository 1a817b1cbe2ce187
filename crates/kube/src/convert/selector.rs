//! Label selectors (`metav1.LabelSelectorAsSelector`).

mod text;

use std::fmt::Display;

use cellwall_policy::model::{Requirement, Selector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

pub use text::parse_selector;

use super::labels::{is_key, is_value};
use super::report::Report;

/// Converts a selector: what could be read of it, and whether that was all.
pub(super) fn selector(object: &LabelSelector, field: impl Display, report: &mut Report) -> (Selector, bool) {
    let mut requirements = Vec::new();
    let mut complete = true;
    for (key, value) in object.match_labels.iter().flatten() {
        if is_key(key) && is_value(value) {
            requirements.push(Requirement::In(key.clone(), [value.clone()].into()));
        } else {
            complete = false;
            report.add(format_args!("{field}.matchLabels"), format!("`{key}: {value}` is no label"));
        }
    }
    for (i, expression) in object.match_expressions.iter().flatten().enumerate() {
        match requirement(expression) {
            Ok(requirement) => requirements.push(requirement),
            Err(why) => {
                complete = false;
                report.add(format_args!("{field}.matchExpressions[{i}]"), why);
            }
        }
    }
    (Selector::new(requirements), complete)
}

fn requirement(object: &LabelSelectorRequirement) -> Result<Requirement, String> {
    let key = object.key.clone();
    if key.is_empty() {
        return Err("the key is missing".to_owned());
    }
    if !is_key(&key) {
        return Err(format!("`{key}` is no label key"));
    }
    let values = object.values.as_deref().unwrap_or_default();
    if let Some(wrong) = values.iter().find(|value| !is_value(value)) {
        return Err(format!("`{wrong}` is no label value"));
    }
    let operator = object.operator.as_str();
    match (operator, values.is_empty()) {
        ("In", false) => Ok(Requirement::In(key, values.iter().cloned().collect())),
        ("NotIn", false) => Ok(Requirement::NotIn(key, values.iter().cloned().collect())),
        ("Exists", true) => Ok(Requirement::Exists(key)),
        ("DoesNotExist", true) => Ok(Requirement::DoesNotExist(key)),
        ("In" | "NotIn", true) => Err(format!("operator {operator} needs values")),
        ("Exists" | "DoesNotExist", false) => Err(format!("operator {operator} takes no values")),
        _ => Err(format!("operator `{operator}` is none of In, NotIn, Exists, DoesNotExist")),
    }
}
