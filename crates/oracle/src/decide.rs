//! The walk over policies and rules.

use cellwall_policy::flow::{Decision, Direction, Flow};

use crate::{
    objects::{
        Objects,
        api::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec, Pod},
    },
    party::{self, Party},
    statements::{Notes, Statements},
};

/// A decision and its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling<'a> {
    /// What happens to the flow.
    pub decision: Decision,
    /// Every rule that allows the flow: namespace and name of the policy, index of the rule in its direction's list.
    pub allowed_by: Vec<(&'a str, &'a str, usize)>,
    /// Of these rules the one to name, where they decide: the API has no order among them (S4), so it is that of names and
    /// then of the list. None where the pod is not isolated, where no rule allows the flow, and where no policy can forbid it.
    pub decided_by: Option<(&'a str, &'a str, usize)>,
    /// Every policy that isolates the pod in the flow's direction: namespace and name.
    pub isolated_by: Vec<(&'a str, &'a str)>,
    /// The statements that decided, or would have.
    pub statements: Statements,
}

/// One flow under judgement: what every notion of the API may look at.
pub(crate) struct Case<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) flow: Flow,
    /// The pod at whose interface the flow is seen.
    pub(crate) subject: &'a Pod,
    /// Who the other address belongs to.
    pub(crate) remote: Party<'a>,
    pub(crate) notes: Notes,
}

/// A rule of either direction. A list that is missing and a list that is empty mean the same (S31, S32).
struct Rule<'a> {
    peers: &'a [NetworkPolicyPeer],
    ports: &'a [NetworkPolicyPort],
}

/// Decides about the first packet of a connection at the interface of the pod whose address is `flow.local`.
///
/// That pod is [`subject`](crate::subject); policies have nothing to say about a flow without one (S65).
#[must_use]
pub fn decide<'a>(objects: &'a Objects, flow: &Flow) -> Ruling<'a> {
    let notes = Notes::default();
    let Some(subject) = party::subject(objects, flow.local) else {
        notes.note(65);
        let statements = notes.noted();
        return Ruling {
            decision: Decision::Allow,
            allowed_by: vec![],
            decided_by: None,
            isolated_by: vec![],
            statements,
        };
    };
    let remote = party::at(objects, flow.remote, &notes);
    Case { objects, flow: *flow, subject, remote, notes }.rule()
}

impl<'a> Case<'a> {
    fn rule(&self) -> Ruling<'a> {
        let mut allowed_by = Vec::new();
        let mut isolated_by = Vec::new();
        let mut has_rules = false;
        for policy in &self.objects.policies {
            let missing = NetworkPolicySpec::default();
            let spec = policy.spec.as_ref().unwrap_or(&missing);
            let Some(understood) = self.isolates(policy, spec) else { continue };
            let (namespace, name) = party::name(&policy.metadata);
            isolated_by.push((namespace, name));
            let rules = self.rules(spec);
            self.notes.note_if(30, rules.is_empty());
            has_rules |= !rules.is_empty();
            for (index, rule) in rules.iter().enumerate() {
                // Every rule is evaluated, also of a policy that allows nothing, so that the notes are complete.
                if self.allows(rule) && understood {
                    allowed_by.push((namespace, name, index));
                }
            }
        }
        let decision = self.outcome(&allowed_by, &isolated_by);
        let is_denied = decision == Decision::Deny;
        self.notes.note_if(74, is_denied && !has_rules && self.flow.protocol.has_ports());
        // "Not specifying a port here DOES NOT prevent that port from being exposed", nor does it open one.
        self.notes.note_if(49, !isolated_by.is_empty() && self.declares_port() == Some(is_denied));
        let decided_by = allowed_by.iter().min().copied().filter(|_| !self.is_exempt());
        Ruling { decision, allowed_by, decided_by, isolated_by, statements: self.notes.noted() }
    }

    /// Whether no policy can forbid the flow: it is from the pod's own node (S59), or from the pod itself (S64).
    fn is_exempt(&self) -> bool {
        self.flow.remote == self.flow.local
            || self.flow.from_own_node && self.flow.direction == Direction::Ingress
    }

    fn outcome(&self, allowed_by: &[(&str, &str, usize)], isolated_by: &[(&str, &str)]) -> Decision {
        // "Traffic is allowed to a pod if there are no NetworkPolicies selecting the pod, OR if the traffic source is
        // the pod's local node, OR if the traffic matches at least one ingress rule across all of the NetworkPolicy
        // objects whose podSelector matches the pod."
        let isolated = !isolated_by.is_empty();
        let own_node = self.flow.from_own_node && self.flow.direction == Direction::Ingress;
        // "A pod cannot block access to itself", also where the packet left it and was sent back (S64).
        let itself = self.flow.remote == self.flow.local;
        self.notes.note(if isolated { 2 } else { 1 });
        self.notes.note_if(59, own_node);
        self.notes.note_if(64, itself);
        self.notes.note_if(4, isolated_by.len() > 1 && !allowed_by.is_empty());
        let to_own_node = self.objects.node_addresses.contains(&self.flow.remote);
        self.notes.note_if(62, to_own_node && self.flow.direction == Direction::Egress && isolated);
        if !isolated || own_node || itself || !allowed_by.is_empty() {
            Decision::Allow
        } else {
            Decision::Deny
        }
    }

    /// Whether the policy isolates the subject in the flow's direction, and then whether its selector was
    /// understood: if not, it isolates and none of its rules allows anything (S29).
    fn isolates(&self, policy: &NetworkPolicy, spec: &NetworkPolicySpec) -> Option<bool> {
        // "This policy selects particular pods in the same namespace."
        if party::name(&policy.metadata).0 != party::name(&self.subject.metadata).0 {
            self.notes.note(6);
            return None;
        }
        let understood = self.selects_subject(spec)?;
        if !self.has_type(spec, self.flow.direction) {
            self.notes.note(3);
            return None;
        }
        Some(understood)
    }

    fn rules<'s>(&self, spec: &'s NetworkPolicySpec) -> Vec<Rule<'s>> {
        match self.flow.direction {
            Direction::Ingress => spec
                .ingress
                .iter()
                .flatten()
                .map(|rule| Rule {
                    peers: rule.from.as_deref().unwrap_or_default(),
                    ports: rule.ports.as_deref().unwrap_or_default(),
                })
                .collect(),
            Direction::Egress => spec
                .egress
                .iter()
                .flatten()
                .map(|rule| Rule {
                    peers: rule.to.as_deref().unwrap_or_default(),
                    ports: rule.ports.as_deref().unwrap_or_default(),
                })
                .collect(),
        }
    }

    /// "The traffic must match both ports and from."
    fn allows(&self, rule: &Rule<'_>) -> bool {
        // "If this field is empty or missing, this rule matches all sources. If this field is present and contains at
        // least one item, this rule allows traffic only if the traffic matches at least one item in the from list."
        self.notes.note_if(31, rule.peers.is_empty());
        let peer = rule.peers.is_empty() || rule.peers.iter().any(|peer| self.peer_matches(peer));
        // "If this field is empty or missing, this rule matches all ports. If this field is present and contains at
        // least one item, then this rule allows traffic only if the traffic matches at least one port in the list."
        self.notes.note_if(32, rule.ports.is_empty());
        let port = rule.ports.is_empty() || rule.ports.iter().any(|port| self.port_matches(port));
        self.notes.note_if(30, rule.peers.is_empty() && rule.ports.is_empty());
        self.notes.note_if(33, peer != port);
        let by_name = rule.ports.iter().any(|port| self.is_resolved_name(port));
        self.notes.note_if(45, by_name && rule.peers.is_empty() && self.remote_is_of_another_namespace());
        peer && port
    }

    fn remote_is_of_another_namespace(&self) -> bool {
        let Party::Pod(pod) = self.remote else { return false };
        self.flow.direction == Direction::Egress
            && party::name(&pod.metadata).0 != party::name(&self.subject.metadata).0
    }
}
