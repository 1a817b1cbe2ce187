//! What can go wrong with a request, and what that means for the watch.

use std::error::Error as _;

use cellwall_policy::model::Kind;
use kube::Error;
use kube::core::Status;

use super::item::plural;
use crate::source::Closed;

/// Why a list or a watch did not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nobody takes the events.
    Closed,
    /// The same request may succeed later: the connection, the credentials, or the server's load.
    Later(String),
    /// The watch cannot go on from where it was: everything is listed again.
    Lost(String),
}

impl From<Closed> for Trouble {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

impl Trouble {
    /// Of a request on this kind.
    pub(super) fn of(kind: Kind, error: &Error) -> Self {
        match error {
            Error::Api(status) => Self::answered(kind, status),
            // Part of what the server said could not be read: a change may have been in it.
            Error::SerdeError(_) | Error::LinesCodecMaxLineLengthExceeded => Self::Lost(chain(error)),
            _ => Self::Later(chain(error)),
        }
    }

    /// The server's own word.
    pub(super) fn answered(kind: Kind, status: &Status) -> Self {
        let Status { code, message, reason, .. } = status;
        let said = if message.is_empty() { reason } else { message };
        match code {
            401 => {
                Self::Later(format!("the API server does not accept the agent's credentials (401): {said}"))
            }
            403 => Self::Later(format!(
                "the agent has not the right to do this (403): {said}; its role needs list and watch on {}",
                plural(kind)
            )),
            429 | 500.. => Self::Later(format!("the API server cannot answer now ({code}): {said}")),
            _ => Self::Lost(format!("{said} ({code})")),
        }
    }
}

/// The error with its causes, in one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
