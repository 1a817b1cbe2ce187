//! Of which connection a packet is.

use cellwall_abi::{Be16, Direction, Family, planted};

use crate::entry::Hook;
use crate::header::{ICMP, ICMPV6};
use crate::icmp;
use crate::parse::Headers;

/// `remote_port` of ICMP that is no echo: no entry has it.
const NO_ECHO: Be16 = Be16::new(0);
/// `remote_port` of an echo that the pod asked.
const ECHO_ASKED_BY_POD: Be16 = Be16::new(1);
/// `remote_port` of an echo that the pod was asked.
const ECHO_ASKED_OF_POD: Be16 = Be16::new(2);

/// The key of a packet's connection.
#[inline(always)]
pub(crate) fn key<F: Family>(hook: &Hook, headers: &Headers<F>) -> F::FlowKey {
    key_at(hook.ifindex, hook.direction(), headers)
}

/// The same where the direction is known when the program is built.
#[inline(always)]
pub(crate) fn key_at<F: Family>(ifindex: u32, direction: Direction, headers: &Headers<F>) -> F::FlowKey {
    // References, since copies of both pairs would stand on the stack.
    let (local, remote, mut ports) = match direction {
        Direction::Egress => {
            (&headers.source, &headers.destination, (headers.source_port, headers.destination_port))
        }
        Direction::Ingress => {
            (&headers.destination, &headers.source, (headers.destination_port, headers.source_port))
        }
    };
    if matches!(headers.protocol, ICMP | ICMPV6) {
        let from_pod = matches!(direction, Direction::Egress);
        ports.1 = match (icmp::is_request(headers), icmp::is_reply(headers)) {
            (true, _) if from_pod => ECHO_ASKED_BY_POD,
            (true, _) => ECHO_ASKED_OF_POD,
            (_, true) if from_pod => ECHO_ASKED_OF_POD,
            (_, true) => ECHO_ASKED_BY_POD,
            // Nothing else answers an echo, whatever stands where its identifier would.
            _ if planted("any-icmp-answers-an-echo") => ECHO_ASKED_BY_POD,
            _ => NO_ECHO,
        };
    }
    let ifindex = if planted("connections-of-all-pods") { 0 } else { ifindex };
    F::flow_key(ifindex, (*local, *remote), ports, headers.protocol)
}
