//! Entries of a rule: peers and ports.

use std::fmt::Display;

use cellwall_policy::{
    flow::Protocol,
    model::{Block, NamespaceMatch, Peer, Port, PortRange, Selector},
};
use k8s_openapi::{
    api::networking::v1::{IPBlock, NetworkPolicyPeer, NetworkPolicyPort},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{cidr, report::Report, selector::selector};

/// The protocol that an API object names (S38).
pub(super) fn protocol(name: &str) -> Option<Protocol> {
    match name {
        "TCP" => Some(Protocol::TCP),
        "UDP" => Some(Protocol::UDP),
        "SCTP" => Some(Protocol::SCTP),
        _ => None,
    }
}

/// Converts one peer; what is wrong makes it match nothing.
pub(super) fn peer(object: &NetworkPolicyPeer, namespace: &str, field: &str, report: &mut Report) -> Peer {
    const NOTHING: &str = "this peer matches nothing";
    match (&object.ip_block, &object.namespace_selector, &object.pod_selector) {
        (Some(block), None, None) => {
            ip_block(block, &format!("{field}.ipBlock"), report).map_or(Peer::Unknown, Peer::Block)
        }
        (Some(_), ..) => {
            report.add(field, format_args!("ipBlock and selectors exclude each other; {NOTHING}"));
            Peer::Unknown
        }
        (None, None, None) => {
            report.add(
                field,
                format_args!("none of ipBlock, namespaceSelector, podSelector is set; {NOTHING}"),
            );
            Peer::Unknown
        }
        (None, namespaces, pods) => {
            let mut complete = true;
            let mut read = |object: &_, name: &str| {
                let (selector, all) = selector(object, format_args!("{field}.{name}"), report);
                complete &= all;
                selector
            };
            // A missing podSelector is all pods, a missing namespaceSelector the policy's own namespace (S22, S24).
            let namespaces = namespaces.as_ref().map_or_else(
                || own_namespace(namespace),
                |object| NamespaceMatch::Labels(read(object, "namespaceSelector")),
            );
            let pods = pods.as_ref().map_or_else(Selector::everything, |object| read(object, "podSelector"));
            if complete {
                return Peer::Pods(namespaces, pods);
            }
            report.add(field, format_args!("a selector cannot be read in full; {NOTHING}"));
            Peer::Unknown
        }
    }
}

fn own_namespace(name: &str) -> NamespaceMatch {
    if cellwall_policy::planted("pod-selector-crosses-namespaces") {
        return NamespaceMatch::Labels(Selector::everything());
    }
    NamespaceMatch::Named(name.to_owned())
}

/// Converts a block with its exceptions; `None` when it, or an exception, cannot be read.
fn ip_block(object: &IPBlock, field: &str, report: &mut Report) -> Option<Block> {
    let cidr = match cidr::block(&object.cidr) {
        Ok(cidr) => cidr,
        Err(why) => {
            report.add(
                format_args!("{field}.cidr"),
                format_args!("`{}` {why}; this peer matches nothing", object.cidr),
            );
            return None;
        }
    };
    let mut except = Vec::new();
    let mut complete = true;
    for (i, text) in object.except.iter().flatten().enumerate() {
        let field = format_args!("{field}.except[{i}]");
        match cidr::block(text) {
            Ok(exception) if exception.contains(&cidr) => {
                // Validation refuses it (S52), yet its meaning is plain: nothing is left.
                report.add(field, format_args!("`{text}` covers all of {cidr}; this peer matches nothing"));
                complete = false;
            }
            Ok(exception) if cidr.contains(&exception) => except.push(exception),
            Ok(_) => report.add(field, format_args!("`{text}` lies outside {cidr}; it is ignored")),
            Err(why) => {
                report.add(field, format_args!("`{text}` {why}; this peer matches nothing"));
                complete = false;
            }
        }
    }
    except.sort();
    except.dedup();
    complete.then_some(Block { cidr, except })
}

/// Converts one entry of `ports`; `None` when something is wrong: it matches nothing.
pub(super) fn port(object: &NetworkPolicyPort, field: &str, report: &mut Report) -> Option<Port> {
    let mut refuse = |name: &str, why: &dyn Display| {
        report.add(format_args!("{field}.{name}"), format_args!("{why}; this entry matches nothing"));
        None
    };
    let name = object.protocol.as_deref().unwrap_or("TCP");
    let Some(protocol) = protocol(name) else {
        return refuse("protocol", &format_args!("`{name}` is none of TCP, UDP, SCTP"));
    };
    match (&object.port, object.end_port) {
        (None, None) => Some(Port::Range(protocol, PortRange::ALL)),
        (None, Some(_)) => refuse("endPort", &"endPort needs a port"),
        (Some(IntOrString::String(name)), Some(_)) => {
            refuse("endPort", &format_args!("endPort cannot follow the name `{name}`"))
        }
        (Some(IntOrString::String(name)), None) => {
            if name.bytes().all(|b| b.is_ascii_digit()) {
                report.add(
                    format_args!("{field}.port"),
                    format_args!(
                        "\"{name}\" in quotes is the name of a port, not a number; no pod can have it"
                    ),
                );
            }
            Some(Port::Named(name.clone(), Some(protocol)))
        }
        (Some(IntOrString::Int(first)), last) => {
            let Some(low) = number(*first) else {
                return refuse("port", &format_args!("{first} is not between 1 and 65535"));
            };
            let Some(high) = last.map_or(Some(low), number) else {
                return refuse(
                    "endPort",
                    &format_args!("{} is not between 1 and 65535", last.unwrap_or_default()),
                );
            };
            if high < low {
                return refuse("endPort", &format_args!("{high} is below port {low}"));
            }
            Some(Port::Range(protocol, PortRange { low, high }))
        }
    }
}

/// A port number, 1 to 65535 (S39).
pub(super) fn number(value: i32) -> Option<u16> {
    u16::try_from(value).ok().filter(|&number| number != 0)
}
