//! Bad input is a value.

use alloc::string::String;
use core::fmt;

use super::ObjectKey;

/// Something about one object that a person should mend; the rest of it, and all others, are in force.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The object.
    pub object: ObjectKey,
    /// The field, as a path (`spec.ingress[0].from[1].ipBlock.cidr`); empty for the whole object.
    pub field: String,
    /// What is wrong, what follows, what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            write!(f, "{}: {}", self.object, self.message)
        } else {
            write!(f, "{}: {}: {}", self.object, self.field, self.message)
        }
    }
}
