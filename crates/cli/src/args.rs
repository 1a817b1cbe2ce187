//! The command line.

use std::path::PathBuf;

use cellwall_kube::convert::parse_selector;
use cellwall_policy::model::Selector;
use clap::{Args as Group, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::check::Check;
use crate::cluster::WholeCluster;
use crate::node::NodeCommand;
use crate::remote::Elsewhere;
use crate::wait::Wait;

/// Asks the agent of a node what it enforces.
///
/// The agent of this machine listens on a unix socket that only root can use, so run this as root on the node, or in the agent's
/// container: kubectl exec -n cellwall DAEMONSET-POD -- cellwall status
///
/// From a laptop name the node: cellwall status --node NAME, or every one in short: cellwall status --cluster
#[derive(Debug, Parser)]
#[command(
    name = "cellwall",
    disable_version_flag = true,
    after_help = "Exit codes:\n  0  done\n  1  the agent could not be asked, or answered with an error\n  \
                  2  the command line is wrong\n  3  status: the node, or with --cluster one of them, is not ready\n\n\
                  check has its own: cellwall check --help"
)]
pub(crate) struct Args {
    /// Socket of the agent.
    #[arg(long, global = true, value_name = "PATH", env = "CELLWALL_SOCKET",
          default_value = cellwall_api::DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
    /// How to print the answer.
    ///
    /// json and yaml hold everything and keep their field names; table and wide are for people and may change.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to ask.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show whether this node, or with --cluster every node, enforces its policies, and if not, why.
    ///
    /// Exits with 3 when the node, or one of them, is not ready.
    Status {
        /// Print again after every change, until interrupted.
        #[arg(short, long)]
        watch: bool,
        #[command(flatten)]
        cluster: WholeCluster,
        #[command(flatten)]
        elsewhere: Elsewhere,
    },
    /// List the pods enforced on this node, with the policies that select them.
    #[command(visible_alias = "ep", alias = "endpoint")]
    Endpoints {
        #[command(flatten)]
        scope: Scope,
        /// Only pods with these labels: `app=web`, `app!=web`, `app in (a,b)`, `app`, `!app`; commas between.
        #[arg(short = 'l', long, value_name = "LABELS", value_parser = parse_selector)]
        selector: Option<Selector>,
        #[command(flatten)]
        elsewhere: Elsewhere,
    },
    /// List the policies, with the pods of this node that each selects.
    #[command(visible_alias = "pol", alias = "policy")]
    Policies {
        #[command(flatten)]
        scope: Scope,
        /// Only policies that select a pod of this node with these labels, written as for endpoints.
        #[arg(short = 'l', long, value_name = "LABELS", value_parser = parse_selector)]
        selector: Option<Selector>,
        #[command(flatten)]
        elsewhere: Elsewhere,
    },
    /// Wait until every node enforces a NetworkPolicy as it is stored now.
    ///
    /// The agent that is asked looks at what all agents say in their CellwallNodes (kubectl get cellwallnodes). Nodes without
    /// selected pods count as well, since one may start there at any moment. Exits with 1 when the time is over, and
    /// says which nodes are missing, and why.
    Wait(Wait),
    /// Try policies without a cluster: which flows they allow, and which rule says so.
    ///
    /// Asks no agent, and needs no cluster, kernel or root: manifests are compiled to the tables of a node, and the code
    /// that runs in the kernel judges the first packet of each flow on them.
    Check(Check),
    /// Switch enforcement on this node off and on, or take it away.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Print the versions of this command and of the agent.
    Version {
        /// Do not ask the agent.
        #[arg(long, conflicts_with = "from")]
        client: bool,
        #[command(flatten)]
        elsewhere: Elsewhere,
    },
    /// Print a completion script for a shell.
    ///
    /// For bash: cellwall completion bash > /etc/bash_completion.d/cellwall
    Completion {
        /// The shell.
        shell: Shell,
    },
}

impl Command {
    /// Which agent is asked, of those commands that ask one.
    pub(crate) fn elsewhere(&self) -> Option<&Elsewhere> {
        match self {
            Self::Status { elsewhere, .. }
            | Self::Endpoints { elsewhere, .. }
            | Self::Policies { elsewhere, .. }
            | Self::Wait(Wait { elsewhere, .. })
            | Self::Version { elsewhere, .. } => Some(elsewhere),
            Self::Check(_) | Self::Node(_) | Self::Completion { .. } => None,
        }
    }
}

/// Which namespaces. A node has no current namespace, so without a flag it is all of them.
#[derive(Debug, Group)]
pub(crate) struct Scope {
    /// Only objects of this namespace.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Objects of all namespaces; the default.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns.
    Table,
    /// More columns.
    Wide,
    /// The answer as JSON.
    Json,
    /// The answer as YAML.
    Yaml,
    /// One name a line, as kubectl takes it.
    Name,
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
    fn one_namespace_or_all() {
        assert!(Args::try_parse_from(["cellwall", "policies", "-n", "a", "-o", "json"]).is_ok());
        assert!(Args::try_parse_from(["cellwall", "ep", "-A"]).is_ok());
        assert!(Args::try_parse_from(["cellwall", "endpoints", "-n", "a", "-A"]).is_err());
        assert!(Args::try_parse_from(["cellwall", "ep", "-l", "app in (a,b),!old"]).is_ok());
        assert!(Args::try_parse_from(["cellwall", "ep", "-l", "app on (a)"]).is_err());
        assert!(Args::try_parse_from(["cellwall", "pol", "-n", "a", "-l", "app=web"]).is_ok());
        assert!(Args::try_parse_from(["cellwall", "pol", "-l", "app on (a)"]).is_err());
    }

    #[test]
    fn another_agent_is_named_where_one_is_asked_and_a_kubeconfig_only_there() {
        let is_taken = |line: &str| Args::try_parse_from(format!("cellwall {line}").split(' ')).is_ok();
        for command in ["status", "status -w", "endpoints -n a", "policies", "wait policy/a -n b", "version"]
        {
            assert!(is_taken(&format!("{command} --node n1 --kubeconfig k --context c")), "{command}");
            assert!(!is_taken(&format!("{command} --kubeconfig k")), "{command}");
        }
        assert!(is_taken("status --cluster --context c"));
        for wrong in
            ["status --cluster --node n1", "version --client --node n1", "check -f a --flows b --node n1"]
        {
            assert!(!is_taken(wrong), "{wrong}");
        }
    }

    #[test]
    fn the_socket_is_shown_where_it_is_used() {
        let help = |args: &[&str]| Args::try_parse_from(args).expect_err("help").to_string();
        assert!(help(&["cellwall", "status", "--help"]).contains("--socket"));
        let check = help(&["cellwall", "check", "--help"]);
        assert!(!check.contains("--socket") && check.contains("--flows"), "{check}");
        // Scripts that give it to every command go on.
        let flows = ["check", "-f", "a", "--flows", "b"];
        let before = [&["cellwall", "--socket", "/s"], &flows[..]].concat();
        let behind = [&["cellwall"], &flows[..], &["--socket", "/s"]].concat();
        for args in [before, behind] {
            assert_eq!(Args::try_parse_from(args).expect("accepted").socket, PathBuf::from("/s"));
        }
    }
}
