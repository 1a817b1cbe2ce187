//! Collecting what is wrong with one object.

use std::fmt::Display;

use cellwall_policy::model::{ObjectKey, Problem};

/// Problems kept of one object; the rest is counted in the last one. A person mends a few, then looks again.
const PROBLEMS_MAX: usize = 32;

/// Bytes of a message, and of a field, that are kept: text of the object may stand in them, and anybody can write an object.
const TEXT_MAX: usize = 1024;
/// Bytes of a text of the object's own, or of one that may hold it, within a message.
const QUOTED_MAX: usize = 256;

/// The problems of one object.
#[derive(Debug)]
pub(super) struct Report {
    object: ObjectKey,
    problems: Vec<Problem>,
    more: usize,
}

impl Report {
    pub(super) fn new(object: ObjectKey) -> Self {
        Self { object, problems: Vec::new(), more: 0 }
    }

    /// Notes what is wrong with the field at `field`.
    pub(super) fn add(&mut self, field: impl Display, message: impl Display) {
        if self.problems.len() == PROBLEMS_MAX {
            self.more += 1;
            return;
        }
        self.problems.push(Problem {
            object: self.object.clone(),
            field: cut(field.to_string(), TEXT_MAX),
            message: cut(message.to_string(), TEXT_MAX),
        });
    }

    pub(super) fn finish(mut self) -> Vec<Problem> {
        if self.more > 0 {
            let message = format!("{} more problems of this object are not listed", self.more);
            self.problems.push(Problem { object: self.object, field: String::new(), message });
        }
        self.problems
    }
}

/// A text of the object's own, as it may stand within a message.
pub(super) fn quoted(text: impl Display) -> String {
    cut(text.to_string(), QUOTED_MAX)
}

/// Cut where it is too long, between two characters.
fn cut(mut text: String, max: usize) -> String {
    if text.len() > max && !cellwall_policy::planted("problems-are-as-long-as-they-like") {
        text.truncate(text.floor_char_boundary(max));
        text.push('…');
    }
    text
}

/// The problem of an object that cannot be read at all.
pub(super) fn unreadable(key: &ObjectKey, error: &serde_json::Error) -> Problem {
    Problem {
        object: key.clone(),
        field: String::new(),
        message: format!(
            "cannot be read: {}; it has no effect, or the one that its last version had",
            quoted(error)
        ),
    }
}

/// Several problems as one, where the model keeps one for an object.
pub(crate) fn merged(key: &ObjectKey, problems: Vec<Problem>) -> Option<Problem> {
    let mut problems = problems.into_iter();
    let first = problems.next()?;
    let rest: Vec<String> = problems.map(|p| format!("{}: {}", p.field, p.message)).collect();
    if rest.is_empty() {
        return Some(first);
    }
    let message = cut(format!("{}; {}", first.message, rest.join("; ")), TEXT_MAX);
    Some(Problem { object: key.clone(), field: first.field, message })
}
