//! The command line. Every flag can be given in the environment too, which is how the chart does it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use cellwall_abi::tables;
use cellwall_cni::entry::{Entry, FailurePolicy};
use cellwall_cni::files::{disabled_file, installed_file};
use cellwall_datapath::Settings;
use cellwall_policy::plan::Capacities;
use clap::{Args as Group, Parser, ValueEnum};
use ipnet::IpNet;

use crate::log;

/// Enforces the cluster's network policies on the pods of this node.
///
/// It watches policies, pods, namespaces, nodes and Services, compiles what they mean for the pods of this node into kernel
/// tables, and attaches programs to the host side of every pod's interface. The programs, tables and connections
/// are pinned: when the agent ends, however it ends, enforcement goes on, and the next agent takes over without a
/// gap. `cellwall status` on the node asks the agent how it is.
///
/// It needs root, CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and a mounted BPF file system.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "cellwall-agent",
    version,
    after_help = "Without a cluster: cellwall-agent --node-name n1 --source dir:examples/ reads manifests from a \
                  folder and follows their changes.\nTo change a capacity of a node on which the agent ran \
                  before, let the tables be made anew: stop the agent, run `cellwall node cleanup` (with the agent's --bpffs \
                  and --pin-name, if it has any), start the agent with the new capacity. In between the node's pods \
                  are as without policies. The log of the start says how much memory the tables take.\nRUST_LOG says how much is logged, for example \
                  RUST_LOG=info,cellwall_agent=debug.\nExit codes: 0 stopped by SIGTERM or SIGINT, 1 could not go \
                  on, 2 the command line is wrong."
)]
pub struct Args {
    /// Name of this node, as pods have it in spec.nodeName; the host name unless given.
    ///
    /// In a DaemonSet take it from the downward API (fieldRef: spec.nodeName): a name that no pod has means that
    /// no pod is enforced.
    #[arg(long, env = "CELLWALL_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,

    /// Where objects come from: the API server, or a folder of manifests.
    #[arg(long, env = "CELLWALL_SOURCE", value_name = "api|dir:PATH", default_value = "api")]
    pub source: Source,

    /// How to reach the API server from outside the cluster; inside, the pod's service account is used.
    #[arg(long, env = "CELLWALL_KUBECONFIG", value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig; its current one unless given.
    #[arg(long, env = "CELLWALL_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,

    /// A range that pods have addresses from, beside spec.podCIDRs of the nodes; may be repeated.
    ///
    /// An address in such a range that no known pod has is an unknown pod, which no rule allows: so a pod that this
    /// node has not heard of yet is not taken for the outside world.
    #[arg(long = "pod-cidr", env = "CELLWALL_POD_CIDR", value_name = "CIDR", value_delimiter = ',')]
    pub pod_cidrs: Vec<IpNet>,

    /// Whether packets that policies do not allow are dropped.
    #[arg(long, env = "CELLWALL_ENFORCEMENT", value_enum, default_value_t = Enforcement::Enforce)]
    pub enforcement: Enforcement,

    /// Whether a pod may send to the addresses of its own node although a policy isolates its egress.
    #[arg(long, env = "CELLWALL_EGRESS_TO_OWN_NODE", value_enum, default_value_t = EgressToOwnNode::Policy)]
    pub egress_to_own_node: EgressToOwnNode,

    /// Unix socket on which `cellwall` and other clients ask; only root can use it.
    #[arg(long, env = "CELLWALL_SOCKET", value_name = "PATH", default_value = cellwall_api::DEFAULT_SOCKET)]
    pub socket: PathBuf,

    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "CELLWALL_HTTP", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9964")]
    pub http: SocketAddr,

    /// Where the BPF file system is mounted.
    #[arg(long, env = "CELLWALL_BPFFS", value_name = "PATH", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,

    /// Folder in it that holds our pins. Two names are two agents that know nothing of each other.
    #[arg(long, env = "CELLWALL_PIN_NAME", value_name = "NAME", default_value = "cellwall")]
    pub pin_name: String,

    /// How many seconds to wait at the start for another agent with the same pins to end, as in an upgrade.
    #[arg(long, env = "CELLWALL_WAIT", value_name = "SECONDS", default_value_t = 30,
          value_parser = clap::value_parser!(u16).range(0..=600))]
    pub wait: u16,

    /// The bit of the packet mark on packets whose destination may still be translated, as that of a Service is; they
    /// are judged where they leave the node. No other software on the node may use it. 0: none, and a Service is an
    /// address like any other.
    ///
    /// kube-proxy has 0x4000 and 0x8000, the portmap plugin 0x2000, Calico the upper half.
    #[arg(long, env = "CELLWALL_MARK", value_name = "BIT", default_value = "0x1000", value_parser = mark)]
    pub mark: u32,

    /// While this file is there nothing is enforced on this node: `cellwall node disable` makes it, and `cellwall node
    /// enable` removes it. Default: cellwall.disabled in the folder of CNI configurations, which is /etc/cni/net.d where
    /// none is given. In a container its folder has to be mounted.
    #[arg(long, env = "CELLWALL_DISABLED_FILE", value_name = "PATH")]
    pub disabled_file: Option<PathBuf>,

    /// How large the tables are.
    #[command(flatten)]
    pub capacity: Capacity,

    /// How pods start.
    #[command(flatten)]
    pub cni: Cni,

    /// Who asks from elsewhere.
    #[command(flatten)]
    pub remote: Remote,

    /// How log lines look.
    #[arg(long, env = "CELLWALL_LOG", value_enum, default_value_t = log::Format::Text)]
    pub log: log::Format,
}

/// The CNI plugin, by which a pod is enforced before its first container starts.
#[derive(Clone, Debug, Group)]
#[command(next_help_heading = "Start of a pod")]
pub struct Cni {
    /// Folder of the container runtime's CNI configurations, often /etc/cni/net.d. Our plugin is put last into the
    /// configuration that the runtime reads, and again when another tool takes it out. Without this flag nothing there
    /// is touched.
    ///
    /// In a container it and the socket have to be mounted at the paths that they have on the node, since the plugin is
    /// told these. The binary cellwall-cni has to be in the runtime's folder of plugins before. An interface whose pod
    /// is not known drops everything then, unless the failure policy is ignore or nothing is enforced.
    #[arg(long = "cni-conf-dir", env = "CELLWALL_CNI_CONF_DIR", value_name = "PATH")]
    pub conf_dir: Option<PathBuf>,

    /// What becomes of a pod whose enforcement nobody confirms in time. With --enforcement audit it starts in any case.
    #[arg(long = "cni-failure-policy", env = "CELLWALL_CNI_FAILURE_POLICY", value_enum,
          default_value_t = Failure::Fail)]
    pub failure_policy: Failure,

    /// How many seconds a pod waits.
    #[arg(long = "cni-timeout", env = "CELLWALL_CNI_TIMEOUT", value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=60))]
    pub timeout: u64,

    /// A namespace whose pods do not wait; may be repeated. What an agent needs to become ready belongs there.
    #[arg(long = "cni-exempt-namespace", env = "CELLWALL_CNI_EXEMPT_NAMESPACE", value_name = "NAME",
          value_delimiter = ',', default_value = cellwall_cni::entry::EXEMPT)]
    pub exempt_namespaces: Vec<String>,
}

/// What becomes of a pod whose enforcement nobody confirms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Failure {
    /// It does not start; the kubelet tries again.
    Fail,
    /// It starts.
    Ignore,
}

impl Cni {
    /// See [`Args::entry`]. Where nothing is enforced, nothing is a reason to keep a pod from starting.
    fn entry(&self, socket: &Path, enforcement: Enforcement) -> Option<(PathBuf, Entry)> {
        let folder = self.conf_dir.clone()?;
        let entry = Entry {
            socket: socket.to_owned(),
            timeout_seconds: self.timeout,
            failure_policy: match (self.failure_policy, enforcement) {
                (Failure::Fail, Enforcement::Enforce) => FailurePolicy::Fail,
                (Failure::Ignore, _) | (_, Enforcement::Audit) => FailurePolicy::Ignore,
            },
            // An empty variable is a list of one empty name.
            exempt_namespaces: self
                .exempt_namespaces
                .iter()
                .filter(|name| !name.is_empty())
                .cloned()
                .collect(),
            installed_file: Some(installed_file(&folder)),
        };
        Some((folder, entry))
    }

    /// Every pod is announced before it runs.
    fn vouches(&self) -> bool {
        self.conf_dir.is_some() && self.failure_policy == Failure::Fail
    }
}

/// The port on which the agent answers those who are not root on its node: `cellwall status --node NAME` from wherever kubectl works.
#[derive(Clone, Debug, Group)]
#[command(next_help_heading = "Questions from outside the node")]
pub struct Remote {
    /// Port on 127.0.0.1, which is reached by forwarding a port of the agent's pod. 0: none.
    ///
    /// It speaks TLS with a certificate that is made at the start, answers what reads and nothing else, and asks the API server
    /// (TokenReview, SubjectAccessReview) whether whoever asks may get cellwallnodes/agent of this node. Without an API server, or
    /// outside a pod, nobody could reach it and it is not opened.
    #[arg(long = "remote-port", env = "CELLWALL_REMOTE_PORT", value_name = "PORT", default_value_t = 9965)]
    pub port: u16,

    /// ServiceAccount in the namespace of the agent's pod that may ask; the command takes a token of it.
    #[arg(
        long = "remote-service-account",
        env = "CELLWALL_REMOTE_SERVICE_ACCOUNT",
        value_name = "NAME",
        default_value = "cellwall-reader"
    )]
    pub service_account: String,

    /// Namespace of the agent's pod. Take it from the downward API (fieldRef: metadata.namespace).
    #[arg(long, env = "CELLWALL_POD_NAMESPACE", value_name = "NAME")]
    pub pod_namespace: Option<String>,

    /// Name of the agent's pod. Take it from the downward API (fieldRef: metadata.name).
    #[arg(long, env = "CELLWALL_POD_NAME", value_name = "NAME")]
    pub pod_name: Option<String>,
}

/// Rows of the tables. What does not fit is left out whole and named in the status; nothing is open because of it.
#[derive(Clone, Copy, Debug, Group)]
#[command(next_help_heading = "Capacities, in rows")]
pub struct Capacity {
    /// Pods on this node.
    #[arg(long = "capacity-endpoints", env = "CELLWALL_CAPACITY_ENDPOINTS", value_name = "ROWS",
          default_value_t = tables::ENDPOINTS.capacity, value_parser = rows())]
    pub endpoints: u32,
    /// Addresses of pods and nodes in the cluster, of each family.
    #[arg(long = "capacity-addresses", env = "CELLWALL_CAPACITY_ADDRESSES", value_name = "ROWS",
          default_value_t = tables::ADDRESSES4.capacity, value_parser = rows())]
    pub addresses: u32,
    /// CIDRs that policies of this node name, of each family.
    #[arg(long = "capacity-prefixes", env = "CELLWALL_CAPACITY_PREFIXES", value_name = "ROWS",
          default_value_t = tables::PREFIXES4.capacity, value_parser = rows())]
    pub prefixes: u32,
    /// Policy entries: distinct policies of pods times the classes of peers they name.
    #[arg(long = "capacity-policy", env = "CELLWALL_CAPACITY_POLICY", value_name = "ROWS",
          default_value_t = tables::POLICY.capacity, value_parser = rows())]
    pub policy: u32,
    /// Port ranges beyond three for a policy entry.
    #[arg(long = "capacity-ports", env = "CELLWALL_CAPACITY_PORTS", value_name = "ROWS",
          default_value_t = tables::PORTS.capacity, value_parser = rows())]
    pub ports: u32,
    /// Addresses and ports that this node translates (Services, node ports, host ports), of each family.
    #[arg(long = "capacity-services", env = "CELLWALL_CAPACITY_SERVICES", value_name = "ROWS",
          default_value_t = tables::SERVICES4.capacity, value_parser = rows())]
    pub services: u32,
    /// Answered connections, of each family.
    #[arg(long = "capacity-flows", env = "CELLWALL_CAPACITY_FLOWS", value_name = "ROWS",
          default_value_t = tables::FLOWS4.capacity, value_parser = rows())]
    pub flows: u32,
    /// Connections that nobody has answered yet, of each family.
    #[arg(long = "capacity-pending", env = "CELLWALL_CAPACITY_PENDING", value_name = "ROWS",
          default_value_t = tables::PENDING4.capacity, value_parser = rows())]
    pub pending: u32,
}

/// Enough to be of use, and what the kernel can double without an overflow.
fn rows() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(16..=1 << 26)
}

/// One bit or none, in decimal or with 0x.
fn mark(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.ok().filter(|bits| bits.count_ones() <= 1).ok_or_else(|| "it is one bit, or 0".to_owned())
}

/// Where objects come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The API server.
    Api,
    /// A folder of manifests.
    Folder(PathBuf),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "api" => Ok(Self::Api),
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Folder(PathBuf::from(path))),
            _ => Err("it is either api or dir:PATH".to_owned()),
        }
    }
}

/// Whether packets that policies do not allow are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Enforcement {
    /// They are, except for pods and namespaces with the annotation cellwall.dev/enforcement: audit.
    Enforce,
    /// They are judged, counted and reported, and pass, for every pod of this node.
    Audit,
}

/// Who says whether a pod may send to its own node. What the node sends to its pods is always let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EgressToOwnNode {
    /// Policies: an isolated pod needs a rule.
    Policy,
    /// Nobody: it always may.
    Always,
}

impl Args {
    /// The file that switches this node off.
    pub(crate) fn disabled_file(&self) -> PathBuf {
        let folder = self.cni.conf_dir.as_deref().unwrap_or(Path::new(cellwall_cni::files::FOLDER));
        self.disabled_file.clone().unwrap_or_else(|| disabled_file(folder))
    }

    /// The folder of CNI configurations, and our entry for the one in it.
    pub(crate) fn entry(&self) -> Option<(PathBuf, Entry)> {
        self.cni.entry(&self.socket, self.enforcement)
    }

    /// Somebody waits for a pod's policies, and the API server can be asked which there are.
    pub(crate) fn confirms(&self) -> bool {
        self.cni.conf_dir.is_some() && self.source == Source::Api
    }

    /// What the data path is opened with.
    pub fn settings(&self) -> Settings {
        Settings {
            bpffs: self.bpffs.clone(),
            pin_name: self.pin_name.clone(),
            capacities: self.capacities(),
            mark: self.mark,
            strict: self.cni.vouches() && self.enforcement == Enforcement::Enforce,
            flows: self.capacity.flows,
            pending: self.capacity.pending,
            wait: (self.wait > 0).then(|| Duration::from_secs(self.wait.into())),
            ..Settings::default()
        }
    }

    /// What plans must fit into.
    pub fn capacities(&self) -> Capacities {
        let Capacity { endpoints, addresses, prefixes, policy, ports, services, flows: _, pending: _ } =
            self.capacity;
        Capacities { endpoints, addresses, prefixes, policy, ports, services }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_variable() {
        for arg in Args::command()
            .get_arguments()
            .filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()))
        {
            let flag = arg.get_long().expect("no positional arguments");
            let variable = format!("CELLWALL_{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().and_then(|v| v.to_str()), Some(variable.as_str()), "--{flag}");
        }
    }

    #[test]
    fn sources() {
        assert_eq!("api".parse(), Ok(Source::Api));
        assert_eq!("dir:/a:b".parse(), Ok(Source::Folder(PathBuf::from("/a:b"))));
        for wrong in ["", "dir", "dir:", "API", "file:x"] {
            assert!(wrong.parse::<Source>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn waiting_for_another_agent_is_bounded_and_can_be_switched_off() {
        let wait = |args: &[&str]| {
            let args = ["cellwall-agent"].into_iter().chain(args.iter().copied());
            Args::try_parse_from(args).map(|args| args.settings().wait).ok()
        };
        assert_eq!(wait(&[]), Some(Some(Duration::from_secs(30))));
        assert_eq!(wait(&["--wait", "0"]), Some(None));
        assert_eq!(wait(&["--wait", "601"]), None);
    }

    #[test]
    fn unknown_interfaces_are_closed_where_the_plugin_vouches_for_all_pods() {
        let strict = |args: &[&str]| {
            let args = ["cellwall-agent"].into_iter().chain(args.iter().copied());
            Args::try_parse_from(args).expect("a command line").settings().strict
        };
        let with = ["--cni-conf-dir", "/etc/cni/net.d"];
        assert!(strict(&with));
        assert!(!strict(&[]));
        assert!(!strict(&[&with[..], &["--cni-failure-policy", "ignore"]].concat()));
        assert!(!strict(&[&with[..], &["--enforcement", "audit"]].concat()));
    }

    #[test]
    fn the_plugin_is_told_what_it_needs() {
        let line = "cellwall-agent --socket /run/x/agent.sock --cni-conf-dir /etc/cni/net.d --cni-timeout 5 \
                    --cni-exempt-namespace kube-system,cellwall";
        let args = Args::try_parse_from(line.split_whitespace()).expect("a command line");
        let (folder, entry) = args.entry().expect("asked for");
        assert_eq!(folder, Path::new("/etc/cni/net.d"));
        assert_eq!(
            entry.to_json(),
            r#"{"type":"cellwall-cni","socket":"/run/x/agent.sock","timeoutSeconds":5,"failurePolicy":"Fail","exemptNamespaces":["kube-system","cellwall"],"installedFile":"/etc/cni/net.d/cellwall.installed"}"#
        );
        let audited = Args { enforcement: Enforcement::Audit, ..args };
        assert_eq!(audited.entry().expect("asked for").1.failure_policy, FailurePolicy::Ignore);
        assert_eq!(Args::try_parse_from(["cellwall-agent"]).expect("a command line").entry(), None);
    }

    #[test]
    fn a_mark_is_one_bit_or_none() {
        assert_eq!(["0x1000", "4096", "0", "0x80000000"].map(mark), [Ok(4096), Ok(4096), Ok(0), Ok(1 << 31)]);
        for wrong in ["", "0x", "3", "0x1001", "-1", "0x100000000", "x"] {
            assert!(mark(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn capacities_are_bounded() {
        let parse = |rows: &str| Args::try_parse_from(["cellwall-agent", "--capacity-policy", rows]);
        assert_eq!(parse("1000").expect("in range").capacities().policy, 1000);
        assert!(parse("0").is_err());
        assert!(parse("4294967295").is_err());
    }
}
