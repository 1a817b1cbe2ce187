//! What differs between clusters: who translates Services, and how pods are connected.

use clap::{Args, ValueEnum};

/// What a cluster is made with.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Flavour {
    /// What kube-proxy translates Services with.
    #[arg(long, value_enum, default_value_t)]
    pub proxy: Proxy,
    /// How pods are connected.
    #[arg(long, value_enum, default_value_t)]
    pub network: Network,
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
    Routed,
    /// A bridge on the node.
    Bridge,
}

impl Flavour {
    /// As arguments of `cluster node`.
    pub(crate) fn arguments(self) -> [&'static str; 4] {
        let network = match self.network {
            Network::Routed => "routed",
            Network::Bridge => "bridge",
        };
        ["--proxy", self.proxy.name(), "--network", network]
    }
}

impl Proxy {
    /// As kube-proxy and the command line have it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

impl Network {
    /// The CNI plugin.
    pub(crate) const fn plugin(self) -> &'static str {
        match self {
            Self::Routed => "ptp",
            Self::Bridge => "bridge",
        }
    }
}
