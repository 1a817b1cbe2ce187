//! Ways to filter what is forwarded to a pod, each as an operator would write it: what belongs to an answered connection
//! first, then the peers, then nothing.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use cellwall_testkit::net::Namespace;
use serde::Serialize;

/// A way to filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum Filter {
    /// Nothing at all.
    None,
    /// An empty program by tcx, in both directions.
    EmptyTcx,
    /// The floor of an established packet by tcx, towards the pod.
    LeanEst,
    Cellwall,
    /// nftables: one rule with a set of addresses.
    NftSet,
    /// nftables: a rule for each address.
    NftRules,
    /// iptables: a rule for each address.
    Iptables,
    /// iptables: one rule with a set of addresses.
    Ipset,
}

impl Filter {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "no policy",
            Self::EmptyTcx => "empty tcx program",
            Self::LeanEst => "floor: lean_est",
            Self::Cellwall => "cellwall",
            Self::NftSet => "nftables, set",
            Self::NftRules => "nftables, rules",
            Self::Iptables => "iptables, rules",
            Self::Ipset => "iptables, ipset",
        }
    }

    /// Filters in `node` what goes to `pod`: these sources may reach `port` by UDP and TCP.
    pub(crate) fn set_up(self, node: &Namespace, pod: Ipv4Addr, peers: &[Ipv4Addr], port: u16) -> Result<()> {
        match self {
            Self::None | Self::EmptyTcx | Self::LeanEst | Self::Cellwall => Ok(()),
            Self::NftSet | Self::NftRules => {
                feed(node, Command::new("nft").args(["-f", "-"]), &self.nft(pod, peers, port))
            }
            Self::Iptables | Self::Ipset => {
                if self == Self::Ipset {
                    let mut text = String::from("create peers hash:ip maxelem 1000000\n");
                    for peer in peers {
                        let _ = writeln!(text, "add peers {peer}");
                    }
                    feed(node, Command::new("ipset").arg("restore"), &text)?;
                }
                feed(node, &mut Command::new("iptables-restore"), &self.iptables(pod, peers, port))
            }
        }
    }

    /// The peers stand in a chain of their own, so that there is one rule for each whatever the protocols are.
    fn nft(self, pod: Ipv4Addr, peers: &[Ipv4Addr], port: u16) -> String {
        let (mut set, mut rules) = (String::new(), String::new());
        if self == Self::NftSet {
            let list: Vec<String> = peers.iter().map(ToString::to_string).collect();
            set = format!("set peers {{ type ipv4_addr; elements = {{ {} }} }}\n", list.join(", "));
            rules.push_str("ip saddr @peers accept\n");
        } else {
            for peer in peers {
                let _ = writeln!(rules, "ip saddr {peer} accept");
            }
        }
        format!(
            "table ip bench {{\n{set}chain peers {{\n{rules}}}\n\
             chain forward {{ type filter hook forward priority filter; policy accept;\n\
             ct state established,related accept\n\
             ip daddr {pod} meta l4proto {{ tcp, udp }} th dport {port} jump peers\n\
             ip daddr {pod} drop\n}}\n}}\n"
        )
    }

    fn iptables(self, pod: Ipv4Addr, peers: &[Ipv4Addr], port: u16) -> String {
        let mut rules = String::new();
        if self == Self::Ipset {
            rules.push_str("-A PEERS -m set --match-set peers src -j ACCEPT\n");
        } else {
            for peer in peers {
                let _ = writeln!(rules, "-A PEERS -s {peer} -j ACCEPT");
            }
        }
        format!(
            "*filter\n:FORWARD ACCEPT [0:0]\n:PEERS - [0:0]\n\
             -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             -A FORWARD -d {pod} -p tcp --dport {port} -j PEERS\n\
             -A FORWARD -d {pod} -p udp --dport {port} -j PEERS\n\
             -A FORWARD -d {pod} -j DROP\n{rules}COMMIT\n"
        )
    }
}

/// Runs a command in a namespace with this input.
fn feed(node: &Namespace, command: &mut Command, input: &str) -> Result<()> {
    let name = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = node.run(|| command.spawn()).with_context(|| name.clone())?;
    let mut stdin = child.stdin.take().context("it was piped")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
