//! Our entry in the text of a configuration list (`*.conflist`): how it gets in and out, and nothing else changes.

use std::ops::Range;

use serde_json::Value;

use crate::entry::TYPE;
use crate::json;

/// A text that our entry cannot be put into.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConflistError {
    /// It cannot be parsed. Runtimes pass over such a file, or stop at it.
    #[error("it is not JSON: {0}")]
    NotJson(String),
    /// A configuration of one plugin (`*.conf`), after which none can come.
    #[error(
        "it is a single plugin's configuration, which no other can be chained to; make it a list: {{\"cniVersion\": .., \
         \"name\": .., \"plugins\": [..]}} in a file that ends in .conflist"
    )]
    Single,
    /// A list without plugins, or with none but ours.
    #[error("its list of plugins is empty, and somebody has to make the interfaces of pods")]
    Empty,
}

/// The text with `entry` as the last plugin and no other of ours; `None`: it is that already.
pub fn with_entry(text: &str, entry: &str) -> Result<Option<String>, ConflistError> {
    let plugins = Plugins::of(text)?;
    let wanted: Option<Value> = serde_json::from_str(entry).ok();
    let at: Vec<usize> = plugins.ours().collect();
    if at == [plugins.values.len() - 1] && plugins.values.last() == wanted.as_ref() {
        return Ok(None);
    }
    let text = without_entry(text)?.unwrap_or_else(|| text.to_owned());
    let Plugins { spans, .. } = Plugins::of(&text)?;
    let Some(last) = spans.last() else { return Err(ConflistError::Empty) };
    // As the last one is indented.
    let before = &text[..last.start];
    let space = &before[before.trim_end_matches([' ', '\t', '\r', '\n']).len()..];
    Ok(Some([&text[..last.end], ",", space, entry, &text[last.end..]].concat()))
}

/// The text without any entry of ours; `None`: there is none.
pub fn without_entry(text: &str) -> Result<Option<String>, ConflistError> {
    let mut text = text.to_owned();
    let mut changed = false;
    loop {
        let plugins = Plugins::of(&text)?;
        let Some(index) = plugins.ours().next() else { return Ok(changed.then_some(text)) };
        let spans = &plugins.spans;
        // With the comma and the space before it, or after it where it is the first.
        let cut = match (index.checked_sub(1), spans.get(index + 1)) {
            (Some(before), _) => spans[before].end..spans[index].end,
            (None, Some(next)) => spans[index].start..next.start,
            (None, None) => return Err(ConflistError::Empty),
        };
        text.replace_range(cut, "");
        changed = true;
    }
}

/// The plugins of a list, and where they stand.
struct Plugins {
    values: Vec<Value>,
    spans: Vec<Range<usize>>,
}

impl Plugins {
    fn of(text: &str) -> Result<Self, ConflistError> {
        let parsed: Value =
            serde_json::from_str(text).map_err(|error| ConflistError::NotJson(error.to_string()))?;
        let Some(values) = parsed.get("plugins").and_then(Value::as_array) else {
            return Err(if parsed.get("type").is_some() {
                ConflistError::Single
            } else {
                ConflistError::Empty
            });
        };
        let spans = json::member(text, "plugins").and_then(|array| json::elements(text, &array));
        match spans {
            Some(spans) if spans.len() == values.len() && !spans.is_empty() => {
                Ok(Self { values: values.clone(), spans })
            }
            _ => Err(ConflistError::Empty),
        }
    }

    fn ours(&self) -> impl Iterator<Item = usize> {
        let is_ours = |value: &Value| value.get("type").and_then(Value::as_str) == Some(TYPE);
        self.values.iter().enumerate().filter(move |(_, value)| is_ours(value)).map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = r#"{"type":"cellwall-cni","timeoutSeconds":10}"#;
    const LIST: &str = r#"{
  "name": "k8s-pod-network", "cniVersion": "0.3.1",
  "x-unknown": [1.0, {"b": 1, "a": 2}],
  "plugins": [
    {"type": "calico", "mtu": 1.440e3},
    {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}
  ], "disableCheck": false
}
"#;

    #[test]
    fn nothing_else_changes_and_what_went_in_comes_out() {
        let with = with_entry(LIST, ENTRY).expect("a list").expect("it is new");
        let line = "    {\"type\": \"portmap\", \"snat\": true, \"capabilities\": {\"portMappings\": true}}";
        assert_eq!(with, LIST.replace(line, &format!("{line},\n    {ENTRY}")));
        assert_eq!(with_entry(&with, ENTRY), Ok(None), "once is enough");
        assert_eq!(without_entry(&with), Ok(Some(LIST.to_owned())));
        assert_eq!(without_entry(LIST), Ok(None));
        let tight = r#"{"plugins":[{"type":"ptp"}]}"#;
        let with = with_entry(tight, ENTRY).expect("a list").expect("it is new");
        assert_eq!(with, format!(r#"{{"plugins":[{{"type":"ptp"}},{ENTRY}]}}"#));
        assert_eq!(without_entry(&with), Ok(Some(tight.to_owned())));
    }

    #[test]
    fn an_entry_that_is_old_or_in_the_wrong_place_is_put_right() {
        let old = r#"{"plugins":[{"type":"cellwall-cni"},{"type":"ptp"},{"type":"cellwall-cni","a":1},{"type":"tuning"}]}"#;
        let right = format!(r#"{{"plugins":[{{"type":"ptp"}},{{"type":"tuning"}},{ENTRY}]}}"#);
        assert_eq!(with_entry(old, ENTRY), Ok(Some(right)));
        assert_eq!(
            without_entry(old),
            Ok(Some(r#"{"plugins":[{"type":"ptp"},{"type":"tuning"}]}"#.to_owned()))
        );
        // Another order of keys is the same entry.
        let same = r#"{"plugins":[{"type":"ptp"},{"timeoutSeconds":10,"type":"cellwall-cni"}]}"#;
        assert_eq!(with_entry(same, ENTRY), Ok(None));
    }

    #[test]
    fn what_is_no_list_is_left_alone() {
        for (text, error) in [
            (r#"{"type": "bridge"}"#, ConflistError::Single),
            (r#"{"plugins": []}"#, ConflistError::Empty),
            (r#"{"plugins": {}}"#, ConflistError::Empty),
            (r#"{"plugins": [{"type": "cellwall-cni"}]}"#, ConflistError::Empty),
            ("[]", ConflistError::Empty),
            ("null", ConflistError::Empty),
        ] {
            assert_eq!(with_entry(text, ENTRY), Err(error), "{text}");
        }
        assert!(matches!(with_entry("{\"plugins\": [", ENTRY), Err(ConflistError::NotJson(_))));
        assert!(matches!(without_entry(""), Err(ConflistError::NotJson(_))));
    }
}
