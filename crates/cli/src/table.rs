//! Columns as kubectl prints them: no borders, two blanks between, nothing at the end of a line.

use cellwall_api::v1alpha1::ObjectReference;
use comfy_table::{ContentArrangement, Table, presets};

/// A table with its heading; nothing at all when there are no rows.
pub(crate) fn rows<const N: usize>(heading: [&str; N], rows: Vec<[String; N]>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heading);
    for row in rows {
        table.add_row(row.map(|cell| printable(&cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

/// Names with a colon, and their values, one below the other.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let line = |(name, value): &(&str, String)| {
        format!("{:width$}{}", format!("{name}:"), or_dash(printable(value)))
    };
    facts.iter().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

/// Tables one below the other with an empty line between; empty ones left out.
pub(crate) fn sections(sections: &[String]) -> String {
    sections.iter().filter(|section| !section.is_empty()).cloned().collect::<Vec<_>>().join("\n")
}

/// Text from objects may hold what moves a terminal's cursor; here it cannot.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// `namespace/name`, or the name alone for objects of the whole cluster, or a dash.
pub(crate) fn name(object: Option<&ObjectReference>) -> String {
    match object {
        None => "-".to_owned(),
        Some(object) if object.namespace.is_empty() => object.name.clone(),
        Some(object) => format!("{}/{}", object.namespace, object.name),
    }
}

/// What kubectl takes after `get`.
pub(crate) fn kubectl_name(object: &ObjectReference) -> String {
    format!("{}/{}", object.kind.to_lowercase(), object.name)
}

/// Names of objects, or a dash.
pub(crate) fn names(objects: &[ObjectReference]) -> String {
    list(objects.iter().map(|object| name(Some(object))))
}

/// Words with commas, or a dash.
pub(crate) fn list(words: impl IntoIterator<Item = String>) -> String {
    or_dash(words.into_iter().collect::<Vec<_>>().join(","))
}

/// A dash for nothing.
pub(crate) fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// `yes` or `no`.
pub(crate) fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_cannot_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[2J\nb\u{9b}é"), "a\\u{1b}[2J\\nb\\u{9b}é");
    }

    #[test]
    fn a_table_without_rows_is_nothing() {
        assert_eq!(rows(["A", "B"], Vec::new()), "");
        assert_eq!(sections(&[String::new(), "x\n".to_owned(), "y\n".to_owned()]), "x\n\ny\n");
    }
}
