//! What the plugins before ours say: addresses of the pod, and interfaces of the node that lead to it.

use std::net::IpAddr;

use cellwall_api::v1alpha1::NodeInterface;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use serde_json::{Map, Value};

use crate::error::{Code, Error};

/// As many as the agent takes of either.
const MANY: usize = 16;

/// Addresses in the order in which they are listed, without prefix lengths.
pub(crate) fn addresses(previous: &Map<String, Value>) -> Result<Vec<String>, Error> {
    let mut addresses: Vec<String> = Vec::new();
    for entry in list(previous, "ips") {
        let text = entry.get("address").and_then(Value::as_str).unwrap_or_default();
        let address: IpAddr = text.split('/').next().unwrap_or_default().parse().map_err(|_| {
            Error::new(
                Code::InvalidConfig,
                format!(
                    "prevResult has an address that is none: {entry}; look at the plugin before this one"
                ),
            )
        })?;
        let address = address.to_string();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    match addresses.len() {
        0 => Err(Error::new(
            Code::InvalidConfig,
            "prevResult has no addresses in `ips`: this plugin comes after one that gives the pod an address",
        )),
        1..=MANY => Ok(addresses),
        many => Err(Error::new(
            Code::InvalidConfig,
            format!("prevResult has {many} addresses, and 16 are supported"),
        )),
    }
}

/// Interfaces of the node, those without a sandbox, that are there. A bridge may be among them; the agent knows which
/// one leads to the pod. Some plugins name none.
pub(crate) fn interfaces(previous: &Map<String, Value>) -> Vec<NodeInterface> {
    let on_node =
        |interface: &&Value| interface.get("sandbox").and_then(Value::as_str).is_none_or(str::is_empty);
    let names = list(previous, "interfaces").iter().filter(on_node).filter_map(|i| i.get("name")?.as_str());
    // The kernel answers for the namespace that this process is in, which is the node's.
    let Ok(any_socket) = socket(AddressFamily::UNIX, SocketType::DGRAM, None) else { return Vec::new() };
    let interface = |name: &str| {
        let ifindex = netdevice::name_to_index(&any_socket, name).ok()?;
        Some(NodeInterface { ifindex, name: name.to_owned() })
    };
    names.filter_map(interface).take(MANY).collect()
}

fn list<'a>(previous: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    previous.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn previous(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).expect("an object")
    }

    #[test]
    fn addresses_of_all_versions() {
        let old = r#"{"ips": [{"version": "4", "address": "10.0.0.2/24"}, {"version": "6", "address": "FD00::2/64"},
                      {"address": "10.0.0.2/32"}]}"#;
        assert_eq!(addresses(&previous(old)), Ok(vec!["10.0.0.2".to_owned(), "fd00::2".to_owned()]));
        for wrong in
            ["{}", r#"{"ips": []}"#, r#"{"ips": 1}"#, r#"{"ips": [{"address": "x/24"}]}"#, r#"{"ips": [1]}"#]
        {
            assert_eq!(addresses(&previous(wrong)).expect_err(wrong).code, Code::InvalidConfig);
        }
        let many: Vec<String> = (0..17).map(|n| format!(r#"{{"address": "10.0.0.{n}/24"}}"#)).collect();
        assert!(addresses(&previous(&format!(r#"{{"ips": [{}]}}"#, many.join(",")))).is_err());
    }

    #[test]
    fn interfaces_of_the_node_that_are_there() {
        let text = r#"{"interfaces": [{"name": "lo"}, {"name": "eth0", "sandbox": "/run/netns/x"},
                       {"name": "lo", "sandbox": ""}, {"name": "no-such-interface"}, {"name": 1}, {}, 1]}"#;
        let found = interfaces(&previous(text));
        assert_eq!(
            found.iter().map(|i| (i.ifindex, i.name.as_str())).collect::<Vec<_>>(),
            [(1, "lo"), (1, "lo")]
        );
        assert!(interfaces(&previous("{}")).is_empty());
    }
}
