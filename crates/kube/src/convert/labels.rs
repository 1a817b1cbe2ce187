//! What may stand in a selector (k8s.io/apimachinery: validation.IsQualifiedName, IsValidLabelValue). A stored object
//! may hold something else, and then nobody may guess what was meant (S29).

/// A name or a value that is not empty: at most 63 letters, digits, `-`, `_`, `.`, with a letter or digit at its ends.
fn is_name(text: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// A DNS subdomain (RFC 1123): what stands before the slash of a key.
fn is_subdomain(text: &str) -> bool {
    let is_part = |part: &str| {
        let ends = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = part.as_bytes();
        ends(bytes.first())
            && ends(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

/// A label's value: may be empty.
pub(super) fn is_value(text: &str) -> bool {
    text.is_empty() || is_name(text)
}

/// A label's key, with or without a prefix.
pub(super) fn is_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_name(name),
        None => is_name(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for good in ["a", "app", "App_1.x-y", "example.com/app", "a.b-c/d", &"k".repeat(63)] {
            assert!(is_key(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "/a", "a/", "a/b/c", "Example.com/a", "a..b/c", &"k".repeat(64)] {
            assert!(!is_key(bad), "{bad}");
        }
    }

    #[test]
    fn values() {
        for good in ["", "a", "A.1_b-c"] {
            assert!(is_value(good), "{good}");
        }
        for bad in ["not a value!", ".a", "a/b", &"v".repeat(64)] {
            assert!(!is_value(bad), "{bad}");
        }
    }
}
