//! How nodes are connected: each by its eth0 to a machine outside, which is a switch between them and their gateway.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::OUTSIDE;
use super::layout::{FIRST, Node};

/// Connects the first node, whose process this is, and one node for each of `processes`, in their order.
pub(super) fn connect(processes: &[u32]) -> Result<()> {
    ip("netns add outside")?;
    ip("-n outside link set lo up")?;
    ip("-n outside link add br0 type bridge")?;
    for (address, length) in OUTSIDE.iter().zip([24, 64]) {
        ip(&format!("-n outside address add {address}/{length} dev br0"))?;
    }
    // Nobody else has these addresses, and packets go before the kernel would have found that out.
    ip("-n outside link set br0 up addrgenmode none")?;
    let count = u8::try_from(processes.len() + 1).context("too many nodes")?;
    for (node, process) in Node::all(count).skip(1).zip(processes) {
        ip(&format!("netns attach {} {process}", node.name()))?;
    }
    Node::all(count).try_for_each(|node| connect_one(node, count))
}

fn connect_one(node: Node, count: u8) -> Result<()> {
    let name = node.name();
    let inside = |arguments: &str| {
        if node == FIRST { ip(arguments) } else { ip(&format!("-n {name} {arguments}")) }
    };
    inside("link set lo up")?;
    inside(&format!("link add eth0 type veth peer name {name} netns outside"))?;
    ip(&format!("-n outside link set {name} master br0 up"))?;
    let [four, six] = node.addresses();
    inside(&format!("address add {four}/24 dev eth0"))?;
    inside(&format!("address add {six}/64 dev eth0 nodad"))?;
    inside("link set eth0 up")?;
    for (family, gateway) in ["-4", "-6"].iter().zip(OUTSIDE) {
        inside(&format!("{family} route add default via {gateway} dev eth0"))?;
    }
    for (range, address) in node.pods().iter().zip(node.addresses()) {
        ip(&format!("-n outside route add {range} via {address}"))?;
    }
    for other in Node::all(count).filter(|other| *other != node) {
        for (range, address) in other.pods().iter().zip(other.addresses()) {
            inside(&format!("route add {range} via {address}"))?;
        }
    }
    Ok(())
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output().context("cannot run ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {arguments}: {}", said.trim());
    Ok(())
}
