//! The items of `from` and `to`.

use crate::{
    block,
    decide::Case,
    objects::api::{LabelSelector, NetworkPolicyPeer, Pod},
    party::{self, Party},
    selector::Labels,
};

impl Case<'_> {
    /// Whether the flow's other end is one of the peer's. "Only certain combinations of fields are allowed."
    pub(crate) fn peer_matches(&self, peer: &NetworkPolicyPeer) -> bool {
        let selectors = (peer.namespace_selector.as_ref(), peer.pod_selector.as_ref());
        match (peer.ip_block.as_ref(), selectors) {
            // "If this field is set then neither of the other fields can be."
            (Some(block), (None, None)) => self.block_matches(&block.cidr, block.except.as_deref()),
            (None, (Some(_), _) | (_, Some(_))) => self.selectors_match(selectors.0, selectors.1),
            // Two things at once, or nothing at all: the API server refuses both.
            (Some(_), _) | (None, (None, None)) => {
                self.notes.note(34);
                false
            }
        }
    }

    fn selectors_match(&self, namespaces: Option<&LabelSelector>, pods: Option<&LabelSelector>) -> bool {
        // Selectors select pods. An address that no known pod has is no pod's, and a pod in the node's network
        // is the node.
        let Party::Pod(pod) = self.remote else {
            self.notes.note(28);
            self.notes.note_if(61, self.remote == Party::HostNetwork);
            return false;
        };
        self.notes.note_if(22, namespaces.is_none() || pods.is_none());
        self.notes.note_if(23, namespaces.is_some() && pods.is_some());
        self.notes.note_if(83, party::is_deleting(pod));
        // "If podSelector is also set, then the NetworkPolicyPeer as a whole selects the pods matching podSelector
        // in the namespaces selected by namespaceSelector. Otherwise it selects all pods in the namespaces selected
        // by namespaceSelector."
        let selected = pods.is_none_or(|selector| self.selects(selector, &Labels::of_pod(pod)));
        let namespace = match namespaces {
            Some(selector) => self.selects_namespace_of(selector, pod),
            // "Otherwise it selects the pods matching podSelector in the policy's own namespace", which is the
            // subject's.
            None => party::name(&pod.metadata).0 == party::name(&self.subject.metadata).0,
        };
        self.notes.note_if(24, namespaces.is_none() && selected && !namespace);
        self.notes
            .note_if(85, selected && namespace && party::addresses(pod).next() != Some(self.flow.remote));
        selected && namespace
    }

    /// A namespace that is not known is not selected: its labels could be anything.
    fn selects_namespace_of(&self, selector: &LabelSelector, pod: &Pod) -> bool {
        let name = party::name(&pod.metadata).0;
        let known = self.objects.namespaces.iter().find(|n| n.metadata.name.as_deref() == Some(name));
        known.is_some_and(|namespace| self.selects(selector, &Labels::of_namespace(namespace)))
    }

    fn block_matches(&self, cidr: &str, except: Option<&[String]>) -> bool {
        let address = self.flow.remote;
        let Some(block) = block::parse(cidr) else {
            self.notes.note(57);
            return false;
        };
        let canonical = block.to_string() == cidr;
        self.notes.note_if(57, !canonical);
        self.notes.note_if(58, block.prefix_len() == 0 || block.prefix_len() == block.max_prefix_len());
        self.notes.note_if(56, block.addr().is_ipv4() != address.is_ipv4());
        // "The except entry describes CIDRs that should not be included within this rule." If one of them cannot be
        // read, nobody knows what should not be included.
        let Some(except) =
            except.unwrap_or_default().iter().map(|e| block::parse(e)).collect::<Option<Vec<_>>>()
        else {
            self.notes.note(52);
            return false;
        };
        self.notes.note_if(52, except.iter().any(|e| *e == block || !block.contains(e)));
        let excepted = except.iter().any(|e| e.contains(&address));
        if !block.contains(&address) {
            return false;
        }
        self.notes.note_if(51, excepted);
        // What an address of a pod range is, nobody knows until its pod is known: no allow covers it (S84).
        if self.remote == Party::UnknownPod {
            self.notes.note(84);
            return false;
        }
        self.notes.note_if(53, matches!(self.remote, Party::Pod(_)));
        !excepted
    }
}
