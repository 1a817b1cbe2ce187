//! `spec.policyTypes` and what its absence means.

use cellwall_policy::flow::Direction;

use crate::{decide::Case, objects::api::NetworkPolicySpec};

impl Case<'_> {
    /// True if the policy relates to the direction.
    pub(crate) fn has_type(&self, spec: &NetworkPolicySpec, direction: Direction) -> bool {
        let written = spec.policy_types.as_deref().unwrap_or_default();
        let mut ingress = written.iter().any(|value| value == "Ingress");
        let mut egress = written.iter().any(|value| value == "Egress");
        self.notes.note_if(14, written.len() > usize::from(ingress) + usize::from(egress));

        // "If this field is not specified, it will default based on the existence of ingress or egress rules;
        // policies that contain an egress section are assumed to affect egress, and all policies (whether or not
        // they contain an ingress section) are assumed to affect ingress."
        // The API server refuses other values. One that is stored all the same may mean either direction, and the policy
        // must not isolate less because of a word nobody knows.
        if written.iter().any(|value| value != "Ingress" && value != "Egress") {
            (ingress, egress) = (true, true);
        }
        if !ingress && !egress {
            ingress = true;
            egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
            self.notes.note(15);
            self.notes.note_if(8, egress);
            self.notes.note_if(9, spec.egress.is_some() && !egress);
            self.notes.note_if(10, spec.ingress.is_none());
        }

        // "If you want to write an egress-only policy, you must explicitly specify policyTypes [ "Egress" ]": a
        // section whose type is not listed has no effect.
        self.notes.note_if(11, direction == Direction::Ingress && !ingress && spec.ingress.is_some());
        self.notes.note_if(12, direction == Direction::Egress && !egress && spec.egress.is_some());
        self.notes.note_if(13, ingress && egress && spec.ingress.is_none() && spec.egress.is_none());
        match direction {
            Direction::Ingress => ingress,
            Direction::Egress => egress,
        }
    }
}
