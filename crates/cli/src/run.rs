//! One command: ask, print, and say how it went.

use std::io::{self, Write};
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use cellwall_api::client::Client;
use cellwall_api::v1alpha1::{Endpoint, ListEndpointsResponse, ListPoliciesResponse};
use cellwall_policy::model::Selector;
use clap::CommandFactory;
use futures::StreamExt;

use crate::args::{Args, Command, Format, Scope};
use crate::check;
use crate::cluster::{Nodes, WholeCluster};
use crate::node;
use crate::output::{Versions, render};
use crate::wait;

/// The node answered and is not ready.
const NOT_READY: u8 = 3;

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let format = args.output;
    match args.command {
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "cellwall", &mut io::stdout());
            return Ok(ExitCode::SUCCESS);
        }
        Command::Version { client: true, .. } => return version(None, format),
        Command::Node(command) => {
            print(&node::run(&command, &args.socket)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Status { cluster: WholeCluster { cluster: true }, ref elsewhere, .. } => {
            let nodes = Nodes::of(elsewhere).await?;
            print(&render(&nodes, format)?)?;
            return Ok(exit_code(nodes.are_all_ready()));
        }
        Command::Check(args) => {
            let (text, code) = check::run(args, format)?;
            print(&text)?;
            return Ok(code);
        }
        _ => {}
    }
    let named = args.command.elsewhere().and_then(|elsewhere| Some((elsewhere, elsewhere.node.as_deref()?)));
    let mut client = match named {
        Some((elsewhere, node)) => elsewhere.agent(node).await?,
        None => on_this_machine(&args.socket).await?,
    };
    match args.command {
        Command::Status { watch: true, .. } => watch(client, format).await,
        Command::Status { watch: false, .. } => {
            let status = client.status().await?;
            print(&render(&status, format)?)?;
            Ok(exit_code(status.ready))
        }
        Command::Endpoints { scope, selector, .. } => {
            let mut endpoints = client.endpoints(namespace(&scope)).await?;
            if let Some(selector) = selector {
                endpoints.retain(|endpoint| is_selected(&selector, endpoint));
            }
            print(&render(&ListEndpointsResponse { endpoints }, format)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Policies { scope, selector, .. } => {
            let mut policies = client.policies(namespace(&scope)).await?;
            if let Some(selector) = selector {
                let endpoints = client.endpoints("").await?;
                let selected = endpoints.iter().filter(|endpoint| is_selected(&selector, endpoint));
                let pods: Vec<_> = selected.filter_map(|endpoint| endpoint.pod.as_ref()).collect();
                policies.retain(|policy| policy.selects.iter().any(|pod| pods.contains(&pod)));
            }
            print(&render(&ListPoliciesResponse { policies }, format)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Wait(what) => {
            print(&wait::run(client, what, format).await?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Version { .. } => version(Some(client.status().await?.agent_version), format),
        Command::Completion { .. } | Command::Node(_) | Command::Check(_) => Ok(ExitCode::SUCCESS),
    }
}

async fn on_this_machine(socket: &Path) -> Result<Client> {
    match Client::connect(socket).await {
        Err(error) if node::is_disabled() => {
            bail!("this node is disabled: nothing is enforced here until `cellwall node enable` ({error})")
        }
        connected => Ok(connected?),
    }
}

fn namespace(scope: &Scope) -> &str {
    scope.namespace.as_deref().unwrap_or_default()
}

/// What is behind an interface whose pod is not known has no labels, so not even `!app` finds it.
fn is_selected(selector: &Selector, endpoint: &Endpoint) -> bool {
    endpoint.pod.is_some() && selector.matches(&endpoint.labels.clone().into_iter().collect())
}

fn version(agent: Option<String>, format: Format) -> Result<ExitCode> {
    let versions = Versions { client: env!("CARGO_PKG_VERSION").to_owned(), agent };
    print(&render(&versions, format)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints until the agent ends or this command is interrupted.
async fn watch(mut client: Client, format: Format) -> Result<ExitCode> {
    let mut statuses = pin!(client.watch_status().await?);
    let mut first = true;
    while let Some(status) = statuses.next().await {
        let separator = match format {
            _ if std::mem::take(&mut first) => "",
            Format::Yaml => "---\n",
            Format::Table | Format::Wide => "\n",
            Format::Json | Format::Name => "",
        };
        print(&format!("{separator}{}", render(&status?, format)?))?;
    }
    bail!("the agent ended")
}

fn exit_code(ready: bool) -> ExitCode {
    if ready { ExitCode::SUCCESS } else { ExitCode::from(NOT_READY) }
}

/// A reader that has seen enough (`cellwall policies | head`) is not an error.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.context("cannot print"),
    }
}
