//! What differs between clusters: how many nodes, who translates Services, how pods are connected, and with which
//! addresses.

use std::fmt;

use clap::{Args, ValueEnum};

/// What a cluster is made with.
#[derive(Clone, Copy, Debug, Args)]
pub struct Flavour {
    /// How many nodes it has. The first one also has the control plane.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=99))]
    pub nodes: u8,
    /// What kube-proxy translates Services with.
    #[arg(long, value_enum, default_value_t)]
    pub proxy: Proxy,
    /// The CNI plugin, which says how pods are connected.
    #[arg(long = "cni", value_enum, default_value_t)]
    pub network: Network,
    /// Which addresses pods and Services have; the first family is the primary one.
    #[arg(long, value_enum, default_value_t)]
    pub families: Families,
}

impl Default for Flavour {
    fn default() -> Self {
        Self { nodes: 1, proxy: Proxy::default(), network: Network::default(), families: Families::default() }
    }
}

/// Modes of kube-proxy.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Proxy {
    /// Maps of nftables.
    #[default]
    Nftables,
    /// Chains of iptables.
    Iptables,
}

/// Networks of pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// A route to each pod.
    #[default]
    #[value(name = "ptp")]
    Routed,
    /// A bridge on the node.
    Bridge,
}

/// Families of addresses.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Families {
    /// IPv4 and IPv6.
    #[default]
    Dual,
    /// IPv6 and IPv4.
    DualIpv6,
    /// IPv4 alone.
    Ipv4,
    /// IPv6 alone.
    Ipv6,
}

impl Flavour {
    /// As arguments of `cluster node`.
    pub(crate) fn arguments(self) -> Vec<String> {
        let nodes = self.nodes.to_string();
        [
            ["--nodes", &nodes],
            ["--proxy", self.proxy.name()],
            ["--cni", self.network.plugin()],
            ["--families", self.families.name()],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (plugin, proxy, families) = (self.network.plugin(), self.proxy.name(), self.families.name());
        write!(f, "{plugin}, {proxy}, {families}, {} nodes", self.nodes)
    }
}

impl Proxy {
    /// As kube-proxy and the command line have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

impl Network {
    /// The CNI plugin, and its name on the command line.
    pub const fn plugin(self) -> &'static str {
        match self {
            Self::Routed => "ptp",
            Self::Bridge => "bridge",
        }
    }
}

impl Families {
    /// As the command line has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dual => "dual",
            Self::DualIpv6 => "dual-ipv6",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }

    /// Of something for IPv4 and something for IPv6 what is used, the primary one first.
    pub fn of<T: Clone>(self, [four, six]: &[T; 2]) -> Vec<T> {
        match self {
            Self::Dual => vec![four.clone(), six.clone()],
            Self::DualIpv6 => vec![six.clone(), four.clone()],
            Self::Ipv4 => vec![four.clone()],
            Self::Ipv6 => vec![six.clone()],
        }
    }
}
