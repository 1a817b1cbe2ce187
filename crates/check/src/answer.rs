//! The answers, as they are printed.

use core::fmt;
use core::net::IpAddr;

use cellwall_abi::Reason;
use cellwall_policy::flow::Direction;
use cellwall_policy::model::RuleRef;
use cellwall_verdict::Verdict;
use serde::Serialize;

/// What is said about one flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Item {
    /// The flow was judged.
    Answer(Answer),
    /// The question cannot be answered: why.
    Error {
        /// What is wrong with the question.
        error: String,
    },
}

/// A flow that was judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Whether its first packet arrives.
    pub verdict: Outcome,
    /// The side of the source.
    pub egress: Side,
    /// The side of the destination.
    pub ingress: Side,
    /// Where a Service may lead, or who may speak for it as the source, each with its own verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<Backend>>,
}

/// A backend of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// Who it is.
    #[serde(flatten)]
    pub end: BackendEnd,
    /// Port there; none for a source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What is said about it.
    #[serde(flatten)]
    pub answer: Answer,
}

/// Who a backend is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendEnd {
    /// `namespace/name`.
    Pod(String),
    /// The address of no known pod.
    Ip(IpAddr),
}

impl fmt::Display for BackendEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "pod/{name}"),
            Self::Ip(address) => write!(f, "{address}"),
        }
    }
}

impl Answer {
    /// Both sides have to let the flow pass (S5).
    #[must_use]
    pub fn new(egress: Side, ingress: Side) -> Self {
        let one_side_suffices = cellwall_policy::planted("check-one-side-suffices");
        let verdict = match (egress.verdict, ingress.verdict) {
            (Outcome::Allow, Outcome::Allow) => Outcome::Allow,
            (Outcome::Allow, _) | (_, Outcome::Allow) if one_side_suffices => Outcome::Allow,
            _ => Outcome::Deny,
        };
        Self { verdict, egress, ingress, backends: None }
    }

    /// What the backends of a Service have in common. From or to one that has none nothing arrives.
    #[must_use]
    pub fn of_service(service: &str, backends: Vec<Backend>) -> Self {
        let nowhere = || Side { verdict: Outcome::Deny, ..Side::open(&format!("{service} has no backends")) };
        let side = |of: fn(&Answer) -> &Side| {
            common(backends.iter().map(|backend| of(&backend.answer))).unwrap_or_else(nowhere)
        };
        let verdicts = backends.iter().map(|backend| backend.answer.verdict);
        let verdict = Outcome::of_all(verdicts).unwrap_or(Outcome::Deny);
        let (egress, ingress) = (side(|answer| &answer.egress), side(|answer| &answer.ingress));
        Self { verdict, egress, ingress, backends: Some(backends) }
    }
}

/// What all sides say, or that they differ; nothing for none.
fn common<'a>(sides: impl Iterator<Item = &'a Side> + Clone) -> Option<Side> {
    let first = sides.clone().next()?;
    if sides.clone().all(|side| side == first) {
        return Some(first.clone());
    }
    let verdict = Outcome::of_all(sides.map(|side| side.verdict))?;
    Some(Side { verdict, ..Side::open("not the same for all backends") })
}

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It passes.
    Allow,
    /// It does not.
    Deny,
    /// To some backends of a Service it passes, or from some.
    Partial,
}

impl Outcome {
    /// The one that all have, else partial; nothing for none.
    fn of_all(mut outcomes: impl Iterator<Item = Self>) -> Option<Self> {
        let first = outcomes.next()?;
        if cellwall_policy::planted("check-one-backend-suffices") {
            return outcomes.chain([first]).min();
        }
        Some(if outcomes.all(|outcome| outcome == first) { first } else { Self::Partial })
    }

    /// The word in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Partial => "partial",
        }
    }
}

/// What one side of a flow says, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// Whether this side lets the flow pass.
    pub verdict: Outcome,
    /// Why, for people.
    pub reason: String,
    /// `namespace/name` of the policies that isolate the pod in this direction.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub isolated_by: Vec<String>,
    /// `namespace/name` of the policy whose rule decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Position of that rule in the policy's list of this direction, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
    /// The pod is audited: what is denied is counted and reported, and passes all the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub audit: bool,
}

impl Side {
    /// A side that no policy has anything to say about (S65).
    pub(crate) fn open(reason: &str) -> Self {
        Self {
            verdict: Outcome::Allow,
            reason: reason.to_owned(),
            isolated_by: Vec::new(),
            policy: None,
            rule: None,
            audit: false,
        }
    }

    /// A verdict in words. `rule` is the one that it names.
    pub(crate) fn new(
        verdict: Verdict,
        isolated_by: Vec<String>,
        rule: Option<&RuleRef>,
        audit: bool,
    ) -> Self {
        let outcome = if verdict.reason.is_drop() { Outcome::Deny } else { Outcome::Allow };
        let before = u32::from(cellwall_policy::planted("the-rule-before-is-named"));
        let reason = match (verdict.reason, rule) {
            (Reason::Allowed, Some(rule)) => format!("allowed by {}", described(rule)),
            (Reason::Denied, Some(rule)) => format!("denied by {}", described(rule)),
            (Reason::NotIsolated | Reason::Allowed, _) => "not isolated".to_owned(),
            (Reason::DefaultDeny, _) => format!("isolated by {}, no rule matched", isolated_by.join(", ")),
            (Reason::OwnNode, _) => "from the pod's own node, which no policy can forbid".to_owned(),
            (Reason::OwnPod, _) => "from the pod to itself, which no policy can forbid".to_owned(),
            (reason, _) if reason.is_drop() => format!("dropped whatever policies say: {}", reason.name()),
            (reason, _) => format!("passes whatever policies say: {}", reason.name()),
        };
        Self {
            verdict: outcome,
            reason,
            isolated_by,
            policy: rule.map(|rule| name(&rule.policy)),
            rule: rule.map(|rule| rule.index.saturating_sub(before)),
            audit,
        }
    }
}

/// A rule as a path in its policy.
fn described(rule: &RuleRef) -> String {
    let direction = match rule.direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    format!("{}: spec.{direction}[{}]", rule.policy, rule.index)
}

/// `namespace/name`, as flows name objects.
pub(crate) fn name(key: &cellwall_policy::model::ObjectKey) -> String {
    if key.namespace.is_empty() { key.name.clone() } else { format!("{}/{}", key.namespace, key.name) }
}
