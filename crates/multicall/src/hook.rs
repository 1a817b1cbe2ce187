//! `cellwall-hook`: what the chart's pods need beside the agent and the command. An image without a shell has nothing that
//! stays or copies, and helm waits for Jobs, not for DaemonSets.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cellwall_kube::kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use clap::{Parser, Subcommand};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use crate::install::install;

const PERIOD: Duration = Duration::from_secs(1);

/// What the pods of the chart run beside the agent and the command `cellwall`.
#[derive(Debug, Parser)]
#[command(name = "cellwall-hook", version)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Do nothing until told to stop: a pod is ready for as long, once its init containers have done their work.
    Stay,
    /// Put the CNI plugin into the folder in which the container runtime looks for plugins.
    InstallPlugin {
        /// The folder, as it is mounted here.
        folder: PathBuf,
    },
    /// Wait until a DaemonSet has a ready pod on every node that it is for.
    Await {
        /// Its namespace.
        #[arg(short, long, value_name = "NAME")]
        namespace: String,
        /// Its name.
        daemonset: String,
        /// How long that may take.
        #[arg(long, value_name = "SECONDS", default_value_t = 300)]
        timeout: u64,
    },
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> ExitCode {
    let done = match Args::parse().task {
        Task::Stay => stay().await,
        // The file that this process runs, whatever it is called by.
        Task::InstallPlugin { folder } => {
            install(Path::new("/proc/self/exe"), &folder).map(|said| println!("{said}"))
        }
        Task::Await { namespace, daemonset, timeout } => {
            await_daemonset(&namespace, &daemonset, timeout).await
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn stay() -> Result<()> {
    signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?.recv().await;
    Ok(())
}

async fn await_daemonset(namespace: &str, name: &str, limit_s: u64) -> Result<()> {
    let client = cellwall_kube::source::client(None, None).await?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "DaemonSet"));
    let daemonsets: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource);
    let mut missing = "it was not asked for yet".to_owned();
    let waiting = async {
        loop {
            // A server that does not answer now may answer the next time.
            missing = match daemonsets.get(name).await {
                Ok(daemonset) => match unfinished(&daemonset.data["status"], daemonset.metadata.generation) {
                    None => return,
                    Some(missing) => missing,
                },
                Err(error) => error.to_string(),
            };
            sleep(PERIOD).await;
        }
    };
    if timeout(Duration::from_secs(limit_s), waiting).await.is_err() {
        bail!(
            "the DaemonSet {namespace}/{name} is not ready on every node after {limit_s} s: {missing}; see \
             kubectl -n {namespace} get pods -o wide"
        );
    }
    Ok(())
}

/// What the status of a DaemonSet lacks; `None` when nothing does.
fn unfinished(status: &Value, generation: Option<i64>) -> Option<String> {
    let number = |field: &str| status[field].as_i64().unwrap_or_default();
    // A status that nobody has written yet says 0 of 0.
    if status["observedGeneration"].as_i64() < generation {
        return Some("it is not scheduled yet".to_owned());
    }
    let (ready, wanted) = (number("numberReady"), number("desiredNumberScheduled"));
    (ready < wanted).then(|| format!("{ready} of {wanted} pods are ready"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    fn status(observed: i64, ready: i64, wanted: i64) -> Value {
        json!({"observedGeneration": observed, "numberReady": ready, "desiredNumberScheduled": wanted})
    }

    #[test]
    fn a_daemonset_is_there_when_it_is_on_every_node() {
        assert_eq!(unfinished(&status(1, 3, 3), Some(1)), None);
        assert_eq!(unfinished(&status(1, 0, 0), Some(1)), None, "a cluster without such nodes");
        for (unready, why) in [
            (Value::Null, "not seen"),
            (json!({"numberReady": 0}), "not seen"),
            (status(1, 2, 3), "one is missing"),
            (status(0, 3, 3), "that was an older one"),
        ] {
            assert!(unfinished(&unready, Some(1)).is_some(), "{why}");
        }
    }
}
