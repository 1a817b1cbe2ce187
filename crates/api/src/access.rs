//! Who asks from outside the node says so with a token. Whether that one may is for whoever can ask the cluster; here the token
//! is found, and the answer becomes a status.

use std::fmt;

use cellwall_abi::planted;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;
use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::header::AUTHORIZATION;

/// A token of a service account has some 1,200 bytes.
const TOKEN_BYTES: usize = 8 << 10;

/// Somebody asks from outside the node.
pub struct Access {
    /// What was shown; of 1 to 8,192 visible ASCII characters.
    pub token: String,
    /// Where the answer goes; closed when nobody waits for it any more.
    pub answer: oneshot::Sender<Result<(), Denial>>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever has the token may ask.
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

/// Why somebody gets no answer. Which of the reasons for not being known it is, nobody is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The token is nobody's, or not for this.
    Unknown(String),
    /// Whose it is may not ask.
    NotAllowed(String),
    /// Too many ask at once.
    TooMany,
    /// The cluster could not be asked.
    Unavailable(String),
}

impl From<Denial> for Status {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Unknown(message) => Self::unauthenticated(message),
            Denial::NotAllowed(message) => Self::permission_denied(message),
            Denial::TooMany => {
                Self::resource_exhausted("too many ask this agent who they are; try again in some seconds")
            }
            Denial::Unavailable(message) => Self::unavailable(message),
        }
    }
}

/// The one token of a request.
pub(crate) fn token(headers: &HeaderMap) -> Result<String, Status> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    };
    // The scheme's letters may be of any case (RFC 9110, 11.1).
    let token = value
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token)
        .filter(|token| {
            (1..=TOKEN_BYTES).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic())
        });
    token.map(str::to_owned).ok_or_else(|| {
        Status::unauthenticated(
            "a call from outside the node has one header `authorization: Bearer TOKEN`, with a token of up to 8,192 bytes",
        )
    })
}

/// Asks whether the one with this token may ask.
pub(crate) async fn admit(token: String, accesses: &mpsc::Sender<Access>) -> Result<(), Status> {
    let (answer, answered) = oneshot::channel();
    let stopping = || Status::unavailable("the agent is stopping; ask the next one");
    accesses.try_send(Access { token, answer }).map_err(|error| match error {
        TrySendError::Full(_) => Denial::TooMany.into(),
        TrySendError::Closed(_) => stopping(),
    })?;
    let answer = answered.await.map_err(|_| stopping())?;
    if planted("who-is-denied-is-answered") { Ok(()) } else { answer.map_err(Status::from) }
}
