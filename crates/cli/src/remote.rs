//! An agent of another machine, from wherever kubectl works.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use cellwall_api::client::{Client, ClientError};
use cellwall_kube::remote::Tunnel;
use cellwall_kube::source;
use clap::Args;

/// Which agent is asked, where it is not the one of this machine.
#[derive(Debug, Args)]
pub(crate) struct Elsewhere {
    /// Ask the agent of this node instead of the one on this machine, from wherever kubectl works.
    ///
    /// The API server leads to the agent's pod, as for kubectl port-forward, and gives a token for agents, of which the agent asks the
    /// API server whose it is. Needs the rights to get cellwallnodes, to create a token of the chart's service account cellwall-reader,
    /// and to port-forward to pods in its namespace; the chart's page says how to give them. A connection
    /// ends after ten minutes, and with it what waits or watches.
    #[arg(long, value_name = "NAME", group = "from")]
    pub(crate) node: Option<String>,
    /// How the API server is reached for that, as for kubectl.
    #[arg(long, value_name = "PATH", requires = "from")]
    kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; its current one otherwise.
    #[arg(long, value_name = "NAME", requires = "from")]
    context: Option<String>,
}

impl Elsewhere {
    /// A client of the API server.
    pub(crate) async fn cluster(&self) -> Result<cellwall_kube::kube::Client> {
        Ok(source::client(self.kubeconfig.as_deref(), self.context.as_deref()).await?)
    }

    /// The agent of `node`.
    pub(crate) async fn agent(&self, node: &str) -> Result<Client> {
        let Tunnel { stream, certificate, token, refused } =
            Tunnel::open(&self.cluster().await?, node).await?;
        match Client::over(stream, &certificate, &token).await {
            Ok(client) => Ok(client),
            Err(error @ (ClientError::Certificate | ClientError::Token)) => bail!(error),
            Err(error) => Err(match refused.await {
                Some(why) => anyhow!("the node {node} does not lead to its agent's port: {why}"),
                None => anyhow!(error).context(format!("cannot ask the agent of {node}")),
            }),
        }
    }
}
