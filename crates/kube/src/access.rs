//! Who may ask an agent from outside its node. The API server says whose a token is, and whether that one may; here it is only
//! asked, for as few times as can be: whoever reaches the port may show any number of tokens.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cellwall_policy::planted;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use ring::digest::{SHA256, digest};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::answer::in_time;

/// Whom a token is for: one for the API server is not taken here, and one that is taken here is of no use there.
pub const AUDIENCE: &str = "cellwall.dev";

/// How long an answer counts, whatever it is.
const KEPT: Duration = Duration::from_secs(10);
/// Answers that are kept.
const MANY: usize = 128;
/// Tokens that the API server is asked about at a time.
const AT_ONCE: usize = 4;
/// Tokens that it is asked about one right after the other.
const BURST: u32 = 20;
/// Between two, beyond these.
const APART: Duration = Duration::from_millis(200);

/// Why somebody may not ask.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Denied {
    /// Expired, of another cluster, for another audience, or no token at all: it is not said which.
    #[error(
        "the API server does not know this token as one for {AUDIENCE}; `kubectl create token` makes one with --audience {AUDIENCE}"
    )]
    Unknown,
    /// It is known who asks.
    #[error(
        "{user} may not ask the agent of {node}: that takes the verb get on cellwallnodes/agent.cellwall.dev, which the chart's \
         ClusterRole for readers allows"
    )]
    NotAllowed {
        /// Who.
        user: String,
        /// The node.
        node: String,
    },
    /// More than the API server is asked about.
    #[error("too many ask")]
    TooMany,
    /// It did not answer as it should.
    #[error("the agent cannot ask the API server who you are: {0}")]
    Failed(String),
}

/// Asks for one node, and keeps answers for a while.
pub struct Reviews {
    client: Client,
    node: String,
    at_once: Semaphore,
    known: Mutex<Known>,
}

/// What was answered, and when the API server may be asked again.
struct Known {
    /// By a hash of the token. A token is kept nowhere.
    answers: HashMap<[u8; 32], (Instant, Result<(), Denied>)>,
    /// When all questions so far would have been asked, one after the other.
    asked: Instant,
}

impl Reviews {
    /// For the agent of `node`.
    #[must_use]
    pub fn new(client: Client, node: String) -> Self {
        let known = Mutex::new(Known { answers: HashMap::new(), asked: Instant::now() });
        Self { client, node, at_once: Semaphore::new(AT_ONCE), known }
    }

    /// Whether the one with this token may ask.
    pub async fn allow(&self, token: &str) -> Result<(), Denied> {
        let key: [u8; 32] = digest(&SHA256, token.as_bytes()).as_ref().try_into().expect("it has 256 bits");
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(answer) = known.answer(&key, Instant::now()) {
                return answer;
            }
            known.may_ask(Instant::now())?;
        }
        let answer = match self.at_once.try_acquire() {
            Ok(_place) => self.ask(token).await,
            Err(_) => return Err(Denied::TooMany),
        };
        match &answer {
            // The next one may be luckier.
            Err(Denied::Failed(why)) => warn!("nobody can ask from outside the node: {why}"),
            answer => {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.keep(key, Instant::now(), (*answer).clone());
            }
        }
        answer
    }

    async fn ask(&self, token: &str) -> Result<(), Denied> {
        let user = self.whose(token).await?;
        let name = user.username.clone().unwrap_or_default();
        if self.may(user).await? || planted("whoever-is-known-may-ask") {
            info!(user = name, "asks from outside the node");
            Ok(())
        } else {
            Err(Denied::NotAllowed { user: name, node: self.node.clone() })
        }
    }

    /// Whose the token is, if it is for us.
    async fn whose(&self, token: &str) -> Result<UserInfo, Denied> {
        let audiences = (!planted("any-audience-will-do")).then(|| vec![AUDIENCE.to_owned()]);
        let review = TokenReview {
            spec: TokenReviewSpec { audiences, token: token.to_owned() },
            ..TokenReview::default()
        };
        let reviews = Api::<TokenReview>::all(self.client.clone());
        let review = in_time(reviews.create(&PostParams::default(), &review)).await;
        let status = review.map_err(|error| failed("tokenreviews", &error))?.status.unwrap_or_default();
        // An API server that does not look at audiences names none.
        let is_for_us = status.audiences.is_some_and(|audiences| audiences.iter().any(|a| a == AUDIENCE))
            || planted("any-audience-will-do");
        match status.user {
            Some(user) if status.authenticated == Some(true) && is_for_us => Ok(user),
            _ => Err(Denied::Unknown),
        }
    }

    /// Whether that one may ask this node's agent.
    async fn may(&self, user: UserInfo) -> Result<bool, Denied> {
        let text = |text: &str| Some(text.to_owned());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username,
                uid: user.uid,
                groups: user.groups,
                extra: user.extra,
                resource_attributes: Some(ResourceAttributes {
                    group: text("cellwall.dev"),
                    resource: text("cellwallnodes"),
                    subresource: text("agent"),
                    name: text(&self.node),
                    verb: text("get"),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews = Api::<SubjectAccessReview>::all(self.client.clone());
        let review = in_time(reviews.create(&PostParams::default(), &review)).await;
        let status =
            review.map_err(|error| failed("subjectaccessreviews", &error))?.status.unwrap_or_default();
        Ok(status.allowed && status.denied != Some(true))
    }
}

/// Whoever asks is not known yet, and is told no more than that it is not his fault.
fn failed(resource: &str, error: &kube::Error) -> Denied {
    Denied::Failed(match error {
        kube::Error::Api(status) if status.code == 403 => {
            format!("it may not create {resource}, which the chart's ClusterRole allows")
        }
        kube::Error::Api(status) => format!("{resource}: {}", status.message),
        error => format!("{resource}: {error}"),
    })
}

impl Known {
    fn answer(&self, key: &[u8; 32], now: Instant) -> Option<Result<(), Denied>> {
        let (until, answer) = self.answers.get(key)?;
        (*until > now || planted("an-answer-counts-for-ever")).then(|| answer.clone())
    }

    /// Counts a question.
    fn may_ask(&mut self, now: Instant) -> Result<(), Denied> {
        let asked = self.asked.max(now);
        if asked.duration_since(now) >= APART * BURST && !planted("questions-are-not-counted") {
            return Err(Denied::TooMany);
        }
        self.asked = asked + APART;
        Ok(())
    }

    fn keep(&mut self, key: [u8; 32], now: Instant, answer: Result<(), Denied>) {
        self.answers.retain(|_, (until, _)| *until > now);
        // By the rate no more than some 70 still count.
        if self.answers.len() < MANY {
            self.answers.insert(key, (now + KEPT, answer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_kept_are_bounded_and_leave_when_they_count_no_more() {
        let now = Instant::now();
        let mut known = Known { answers: HashMap::new(), asked: now };
        for n in 0..=255 {
            known.keep([n; 32], now, Ok(()));
        }
        assert_eq!(known.answers.len(), MANY);
        known.keep([0; 32], now + KEPT, Err(Denied::Unknown));
        assert_eq!(known.answers.len(), 1);
    }
}
