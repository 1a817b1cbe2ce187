//! Label selectors as people type them after `-l` (apimachinery `labels.Parse`).

use cellwall_policy::model::Selector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

use super::requirement;

/// Reads `app=web`, `app==web`, `app!=web`, `app in (a, b)`, `app notin (a, b)`, `app` and `!app`, with commas between. All
/// of them must hold; an empty text selects everything. The error says which part is not understood, and why.
pub fn parse_selector(text: &str) -> Result<Selector, String> {
    let mut depth = 0_usize;
    let between = |c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    let parts = text.split(between).map(str::trim);
    let requirements = parts
        .filter(|_| !text.trim().is_empty())
        .map(|part| requirement(&read(part)).map_err(|why| format!("`{part}`: {why}")))
        .collect::<Result<_, _>>()?;
    Ok(Selector::new(requirements))
}

/// One part. What is none of the forms is taken for a key, which it then is not.
fn read(part: &str) -> LabelSelectorRequirement {
    let (key, operator, values) = if let Some((key, value)) = part.split_once("!=") {
        (key, "NotIn", Some(value))
    } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (key, "In", Some(value))
    } else if let Some((head, list)) = part.strip_suffix(')').and_then(|part| part.split_once('(')) {
        match head.trim_end().rsplit_once(char::is_whitespace) {
            Some((key, "in")) => (key, "In", Some(list)),
            Some((key, "notin")) => (key, "NotIn", Some(list)),
            _ => (part, "Exists", None),
        }
    } else if let Some(key) = part.strip_prefix('!') {
        (key, "DoesNotExist", None)
    } else {
        (part, "Exists", None)
    };
    LabelSelectorRequirement {
        key: key.trim().to_owned(),
        operator: operator.to_owned(),
        values: values.map(|list| list.split(',').map(|value| value.trim().to_owned()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use cellwall_policy::model::{Labels, Requirement};

    use super::*;

    #[test]
    fn every_form_is_read() {
        let set = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect();
        let is = |key: &str, values| Requirement::In(key.to_owned(), set(values));
        let not = |key: &str, values| Requirement::NotIn(key.to_owned(), set(values));
        for (text, expected) in [
            ("", vec![]),
            ("app=web", vec![is("app", &["web"])]),
            (" app == web ", vec![is("app", &["web"])]),
            ("app=", vec![is("app", &[""])]),
            ("app!=web,tier=x", vec![not("app", &["web"]), is("tier", &["x"])]),
            ("app in (a, b),!old", vec![is("app", &["a", "b"]), Requirement::DoesNotExist("old".to_owned())]),
            (
                "example.com/app notin (a),app",
                vec![not("example.com/app", &["a"]), Requirement::Exists("app".to_owned())],
            ),
        ] {
            assert_eq!(parse_selector(text), Ok(Selector::new(expected)), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused_with_the_part() {
        for (text, part) in [
            ("app=web,", "``"),
            ("app=a b", "`app=a b`"),
            ("app in a", "`app in a`"),
            ("app on (a)", "`app on (a)`"),
            ("tier=x,app in (a", "`app in (a`"),
            ("=web", "`=web`"),
            ("app=(a,b)", "`app=(a,b)`"),
        ] {
            let why = parse_selector(text).expect_err(text);
            assert!(why.starts_with(&format!("{part}: ")), "{text}: {why}");
        }
    }

    #[test]
    fn a_missing_key_is_not_the_value() {
        let selector = parse_selector("app!=web").expect("reads");
        assert!(selector.matches(&Labels::new()));
    }
}
