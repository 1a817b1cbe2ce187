//! Who waits for a policy: the question goes to whoever can ask the cluster, and what comes from there is passed on.

use tokio::sync::mpsc;
use tonic::Status;

use crate::v1alpha1::{ObjectReference, WaitEnforcedResponse};

/// `validation.DNS1123SubdomainMaxLength` of Kubernetes: the longest name of a policy.
const LONGEST_NAME: usize = 253;

/// A question for the cluster.
#[derive(Debug)]
pub struct Wait {
    /// Namespace of the policy.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where messages go; closed when nobody waits any more. A refusal is the last one.
    pub answers: mpsc::Sender<Result<WaitEnforcedResponse, Refusal>>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such policy.
    NotFound(String),
    /// This cluster, or this agent, cannot tell.
    Impossible(String),
    /// Too many wait already.
    TooMany,
    /// The cluster could not be asked; it may be possible later.
    Failed(String),
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound(message) => Self::not_found(message),
            Refusal::Impossible(message) => Self::failed_precondition(message),
            Refusal::TooMany => {
                Self::resource_exhausted("too many calls of this agent wait for policies; try again later")
            }
            Refusal::Failed(message) => Self::aborted(message),
        }
    }
}

/// Namespace and name of the policy that is meant.
pub(crate) fn policy(reference: Option<ObjectReference>) -> Result<(String, String), Status> {
    let ObjectReference { kind, namespace, name } = reference.unwrap_or_default();
    if kind != "NetworkPolicy" {
        return Err(Status::invalid_argument(format!(
            "policy.kind: `{kind}` is not NetworkPolicy, which alone is enforced"
        )));
    }
    for (field, text) in [("namespace", &namespace), ("name", &name)] {
        // Of the characters of a name alone: it becomes part of a field selector.
        let is_name =
            text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'));
        if text.is_empty() || text.len() > LONGEST_NAME || !is_name {
            return Err(Status::invalid_argument(format!(
                "policy.{field}: it is the name of an object, of 1 to 253 bytes"
            )));
        }
    }
    Ok((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_a_kind_a_namespace_and_a_name() {
        let of = |kind: &str, namespace: &str, name: &str| {
            let (kind, namespace, name) = (kind.to_owned(), namespace.to_owned(), name.to_owned());
            policy(Some(ObjectReference { kind, namespace, name }))
                .map_err(|status| status.message().to_owned())
        };
        assert_eq!(of("NetworkPolicy", "shop", "db-1.x"), Ok(("shop".to_owned(), "db-1.x".to_owned())));
        assert!(of("Pod", "shop", "db").is_err_and(|why| why.starts_with("policy.kind: `Pod`")));
        assert!(of("NetworkPolicy", "", "db").is_err_and(|why| why.starts_with("policy.namespace")));
        for name in ["", "a,metadata.name=b", "a=b", &"a".repeat(254)] {
            assert!(
                of("NetworkPolicy", "shop", name).is_err_and(|why| why.starts_with("policy.name")),
                "{name}"
            );
        }
        assert!(policy(None).is_err());
    }
}
