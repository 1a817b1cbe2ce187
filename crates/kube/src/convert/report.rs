//! Collecting what is wrong with one object.

use std::fmt::Display;

use cellwall_policy::model::{ObjectKey, Problem};

/// Problems kept of one object; the rest is counted in the last one. A person mends a few, then looks again.
const PROBLEMS_MAX: usize = 32;

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
            field: field.to_string(),
            message: message.to_string(),
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

/// The problem of an object that cannot be read at all.
pub(super) fn unreadable(key: &ObjectKey, error: &serde_json::Error) -> Problem {
    Problem {
        object: key.clone(),
        field: String::new(),
        message: format!("cannot be read: {error}; it has no effect, or the one that its last version had"),
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
    let message = format!("{}; {}", first.message, rest.join("; "));
    Some(Problem { object: key.clone(), field: first.field, message })
}
