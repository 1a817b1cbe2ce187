//! Where things are in a JSON text. A text that is parsed and printed again has lost the order of its keys, its spaces
//! and how its numbers were written; what somebody else wrote is not ours to rewrite, so it is cut and joined.
//!
//! All of it is about texts that a parser has accepted before: on others the answer may be `None` or nonsense, never a
//! panic.

use std::ops::Range;

/// Where the value of member `key` of the object that `text` is stands; of several the last, as parsers have it.
pub(crate) fn member(text: &str, key: &str) -> Option<Range<usize>> {
    let mut found = None;
    let mut at = skip_space(text, expect(text, skip_space(text, 0), b'{')?);
    while text.as_bytes().get(at) == Some(&b'"') {
        let name = at..skip_value(text, at)?;
        let start = skip_space(text, expect(text, skip_space(text, name.end), b':')?);
        let end = skip_value(text, start)?;
        // A name may be written with escapes.
        if serde_json::from_str::<String>(&text[name]).is_ok_and(|name| name == key) {
            found = Some(start..end);
        }
        at = skip_space(text, end);
        match text.as_bytes().get(at)? {
            b',' => at = skip_space(text, at + 1),
            _ => break,
        }
    }
    found
}

/// Where the elements of the array at `array` are.
pub(crate) fn elements(text: &str, array: &Range<usize>) -> Option<Vec<Range<usize>>> {
    let mut found = Vec::new();
    let mut at = skip_space(text, expect(text, array.start, b'[')?);
    while text.as_bytes().get(at)? != &b']' {
        let end = skip_value(text, at)?;
        found.push(at..end);
        at = skip_space(text, end);
        match text.as_bytes().get(at)? {
            b',' => at = skip_space(text, at + 1),
            _ => break,
        }
    }
    Some(found)
}

fn expect(text: &str, at: usize, byte: u8) -> Option<usize> {
    (text.as_bytes().get(at) == Some(&byte)).then_some(at + 1)
}

fn skip_space(text: &str, at: usize) -> usize {
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| b" \t\r\n".contains(byte)).count()
}

/// The end of the value that begins at `at`.
fn skip_value(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut at = at;
    loop {
        match bytes.get(at)? {
            b'"' => at = skip_string(bytes, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            _ if depth == 0 => return Some(skip_word(bytes, at)),
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

fn skip_string(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// A number, true, false or null.
fn skip_word(bytes: &[u8], at: usize) -> usize {
    at + bytes[at..].iter().take_while(|byte| !b",:]} \t\r\n".contains(byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_as_a_parser_finds_them() {
        let text =
            r#" {"a": {"plugins": 1}, "pl\u0075gins" : [ 1 , "]}\"", {"x":[{}]},[] ] ,"n":-1.5e3,"a":null}"#;
        let value = |key| member(text, key).map(|range| &text[range]);
        assert_eq!(value("a"), Some("null"), "the last of two");
        assert_eq!(value("n"), Some("-1.5e3"));
        assert_eq!(value("b"), None);
        let array = member(text, "plugins").expect("it is there");
        let elements = elements(text, &array).expect("an array");
        let parts: Vec<&str> = elements.into_iter().map(|range| &text[range]).collect();
        assert_eq!(parts, ["1", r#""]}\"""#, r#"{"x":[{}]}"#, "[]"]);
        assert_eq!(member("{}", "a"), None);
        assert_eq!(elements_of("[]"), Some(vec![]));
    }

    fn elements_of(text: &str) -> Option<Vec<Range<usize>>> {
        elements(text, &(0..text.len()))
    }

    #[test]
    fn no_text_is_a_panic() {
        let whole = r#"{"é": [1, "\"é", {"b": [true, null]}], "c": "\\"}"#;
        for cut in (0..whole.len()).filter(|cut| whole.is_char_boundary(*cut)) {
            for text in [&whole[..cut], &whole[cut..]] {
                let _ = member(text, "c");
                let _ = elements_of(text);
            }
        }
        for text in ["", "{", "{\"", "{\"a\"", "{\"a\":", "{\"a\":]", "[", "[1", "[}", "\"\\", "}", "{\"a\\"]
        {
            let _ = member(text, "a");
            let _ = elements_of(text);
        }
    }
}
