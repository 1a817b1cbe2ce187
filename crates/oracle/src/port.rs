//! The items of `ports`.

use cellwall_policy::flow::{Direction, Protocol};

use crate::{
    decide::Case,
    objects::api::{ContainerPort, IntOrString, NetworkPolicyPort, Pod},
    party::Party,
};

impl Case<'_> {
    /// "If present, only traffic on the specified protocol AND port will be matched."
    pub(crate) fn port_matches(&self, entry: &NetworkPolicyPort) -> bool {
        // A protocol without ports is not on any of them.
        if !self.flow.protocol.has_ports() {
            self.notes.note(73);
            return false;
        }
        let Some(protocol) = self.protocol(entry.protocol.as_deref()) else { return false };
        let same_protocol = protocol == self.flow.protocol;
        match (&entry.port, entry.end_port) {
            // "If this field is not provided, this matches all port names and numbers."
            (None, None) => {
                self.notes.note(if entry.protocol.is_none() { 36 } else { 37 });
                same_protocol
            }
            // "This field cannot be defined if the port field is not defined or if the port field is defined as a
            // named (string) port."
            (None | Some(IntOrString::String(_)), Some(_)) => {
                self.notes.note(40);
                false
            }
            (Some(IntOrString::Int(port)), end_port) => {
                let in_range = self.range_contains(*port, end_port);
                self.notes.note_if(41, in_range && !same_protocol);
                in_range && same_protocol
            }
            (Some(IntOrString::String(name)), None) => self.name_matches(name, protocol),
        }
    }

    /// "protocol represents the protocol (TCP, UDP, or SCTP) which traffic must match. If not specified, this field
    /// defaults to TCP."
    fn protocol(&self, written: Option<&str>) -> Option<Protocol> {
        self.notes.note_if(35, written.is_none());
        self.notes.note_if(15, written.is_none());
        let protocol = known_protocol(written);
        self.notes.note_if(38, protocol.is_none());
        protocol
    }

    /// "endPort indicates that the range of ports from port to endPort if set, inclusive, should be allowed by the
    /// policy. The endPort must be equal or greater than port."
    fn range_contains(&self, port: i32, end_port: Option<i32>) -> bool {
        let end = end_port.unwrap_or(port);
        self.notes.note_if(40, end_port.is_some());
        let valid = 1 <= port && port <= end && end <= 65535;
        self.notes.note_if(39, !valid && end_port.is_none());
        valid && (port..=end).contains(&i32::from(self.flow.port))
    }

    /// "This can either be a numerical or named port on a pod": on the pod that the flow goes to.
    fn name_matches(&self, name: &str, protocol: Protocol) -> bool {
        let destination = match (self.flow.direction, self.remote) {
            (Direction::Ingress, _) => self.subject,
            (Direction::Egress, Party::Pod(pod)) => pod,
            // An address outside has no names; nor has the node, whatever runs in its network.
            (Direction::Egress, _) => {
                self.notes.note(46);
                return false;
            }
        };
        let number = self.resolve(destination, name, protocol);
        self.notes.note_if(42, number.is_none());
        self.notes.note_if(43, number.is_some());
        number == Some(i32::from(self.flow.port)) && protocol == self.flow.protocol
    }

    /// The number that a pod gives to a name and protocol. If several containers give one, the first counts, and
    /// containers come before sidecars: the order in which EndpointSlices look.
    fn resolve(&self, pod: &Pod, name: &str, protocol: Protocol) -> Option<i32> {
        let spec = pod.spec.as_ref()?;
        let same_name = |port: &&ContainerPort| !name.is_empty() && port.name.as_deref() == Some(name);
        // An init container that is never stopped ("restartPolicy: Always") is a sidecar; any other is over before
        // the pod serves anybody.
        let is_sidecar = |policy: Option<&str>| policy == Some("Always");
        let init = spec.init_containers.iter().flatten();
        let (sidecars, plain): (Vec<_>, Vec<_>) = init.partition(|c| is_sidecar(c.restart_policy.as_deref()));
        let of_containers = spec.containers.iter().flat_map(|c| c.ports.iter().flatten()).filter(same_name);
        let of_sidecars = sidecars.into_iter().flat_map(|c| c.ports.iter().flatten()).filter(same_name);
        let of_plain = plain.into_iter().flat_map(|c| c.ports.iter().flatten()).filter(same_name);
        self.notes.note_if(47, of_sidecars.clone().count() + of_plain.count() > 0);

        let named: Vec<_> = of_containers.chain(of_sidecars).collect();
        let found = named.iter().find(|port| known_protocol(port.protocol.as_deref()) == Some(protocol));
        self.notes.note_if(44, found.is_none() && !named.is_empty());
        found.map(|port| port.container_port)
    }

    /// Whether the destination declares the flow's port; `None` where it is no pod, or the protocol has no ports.
    pub(crate) fn declares_port(&self) -> Option<bool> {
        let destination = match (self.flow.direction, self.remote) {
            (Direction::Ingress, _) => self.subject,
            (Direction::Egress, Party::Pod(pod)) => pod,
            (Direction::Egress, _) => return None,
        };
        let declared = destination.spec.iter().flat_map(|spec| &spec.containers);
        let is_it = |port: &ContainerPort| {
            port.container_port == i32::from(self.flow.port)
                && known_protocol(port.protocol.as_deref()) == Some(self.flow.protocol)
        };
        let is_declared = declared.flat_map(|container| container.ports.iter().flatten()).any(is_it);
        self.flow.protocol.has_ports().then_some(is_declared)
    }

    /// Whether the entry is a name that the flow's destination has, for that port.
    pub(crate) fn is_resolved_name(&self, entry: &NetworkPolicyPort) -> bool {
        matches!(entry.port, Some(IntOrString::String(_))) && self.port_matches(entry)
    }
}

/// The default is the same in a policy and in a container.
fn known_protocol(written: Option<&str>) -> Option<Protocol> {
    match written.unwrap_or("TCP") {
        "TCP" => Some(Protocol::TCP),
        "UDP" => Some(Protocol::UDP),
        "SCTP" => Some(Protocol::SCTP),
        _ => None,
    }
}
