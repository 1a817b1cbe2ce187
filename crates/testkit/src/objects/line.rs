//! Flows as lines of text: `x/a <- y/a TCP 80` is into x/a from y/a, judged at x/a; `10.1.0.1 -> 192.0.2.1 UDP 53` is
//! out of the pod with that address. `6` after a name is the pod's IPv6 address, and `node` at the end says that the
//! own node made the packet.

use core::net::IpAddr;

use cellwall_oracle::{Flow, Objects, api::Pod};
use cellwall_policy::flow::{Direction, Protocol};

use super::flows::addresses;

/// The flow of a line; the names in it are those of the objects' pods. A comment may follow after `#`.
///
/// Panics with the line if it cannot be read: it was written by hand for a test.
#[must_use]
pub fn read_flow(objects: &Objects, line: &str) -> Flow {
    let words: Vec<_> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
    let (local, arrow, remote, protocol, port, from_own_node) = match words[..] {
        [local, arrow, remote, protocol, port] => (local, arrow, remote, protocol, port, false),
        [local, arrow, remote, protocol, port, "node"] => (local, arrow, remote, protocol, port, true),
        _ => panic!("five words, and perhaps `node`: {line}"),
    };
    let direction = match arrow {
        "<-" => Direction::Ingress,
        "->" => Direction::Egress,
        _ => panic!("no direction in {line}"),
    };
    let address = |word| address(objects, word).unwrap_or_else(|| panic!("no address of {word} in {line}"));
    let (local, remote) = (address(local), address(remote));
    assert_eq!(local.is_ipv4(), remote.is_ipv4(), "two families in {line}");
    let protocol = match protocol {
        "TCP" => Protocol::TCP,
        "UDP" => Protocol::UDP,
        "SCTP" => Protocol::SCTP,
        "ICMP" => Protocol::ICMP,
        "ICMPv6" => Protocol::ICMPV6,
        number => Protocol(number.parse().unwrap_or_else(|_| panic!("no protocol in {line}"))),
    };
    let port = port.parse().unwrap_or_else(|_| panic!("no port in {line}"));
    Flow { local, direction, remote, from_own_node, protocol, port }
}

/// The line of a flow with addresses, and after `#` the names of the pods that have them.
#[must_use]
pub fn write_flow(objects: &Objects, flow: &Flow) -> String {
    let arrow = match flow.direction {
        Direction::Ingress => "<-",
        Direction::Egress => "->",
    };
    let protocol = match flow.protocol {
        Protocol::TCP | Protocol::UDP | Protocol::SCTP | Protocol::ICMP | Protocol::ICMPV6 => {
            flow.protocol.to_string()
        }
        Protocol(number) => number.to_string(),
    };
    let Flow { local, remote, port, .. } = flow;
    let node = if flow.from_own_node { " node" } else { "" };
    format!(
        "{local} {arrow} {remote} {protocol} {port}{node}  # {} {arrow} {}",
        names(objects, *local),
        names(objects, *remote),
    )
}

fn names(objects: &Objects, address: IpAddr) -> String {
    let pods = objects.pods.iter().filter(|pod| addresses(pod).any(|a| a == address));
    let names: Vec<_> = pods.map(full_name).collect();
    if names.is_empty() { "no pod".into() } else { names.join(" or ") }
}

fn address(objects: &Objects, word: &str) -> Option<IpAddr> {
    if let Ok(address) = word.parse() {
        return Some(address);
    }
    let (name, ipv6) = word.strip_suffix('6').map_or((word, false), |name| (name, true));
    let pod = objects.pods.iter().find(|pod| full_name(pod) == name)?;
    addresses(pod).find(|address| address.is_ipv6() == ipv6)
}

fn full_name(pod: &Pod) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    format!("{namespace}/{}", pod.metadata.name.as_deref().unwrap_or_default())
}
