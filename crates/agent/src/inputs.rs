//! The tasks that listen to the cluster and to the kernel, and bring what they hear to the loop.

use std::error::Error;
use std::future::Future;

use anyhow::{Context, Result};
use cellwall_datapath::links;
use cellwall_kube::kube::Client;
use cellwall_kube::source::{self, SourceEvent};
use cellwall_policy::model::Announced;
use tokio::sync::{mpsc, watch};

use crate::args::{Args, Source};
use crate::node::confirm::Unconfirmed;
use crate::run::Input;
use crate::{announcements, chain, confirm};

/// Inputs that wait for the loop; sources wait when there are more.
pub(crate) const QUEUE: usize = 16_384;
/// Announced pods whose interfaces are to be looked at.
const LOOKS: usize = 256;

/// What [`spawn`] has for others.
pub(crate) struct Spawned {
    /// Where the CNI plugin's announcements go.
    pub(crate) announcements: mpsc::Sender<Announced>,
    /// Of the API server, where objects come from one.
    pub(crate) client: Option<Client>,
}

/// Starts them. A watch that ends says so, and with it the loop ends. `unconfirmed` has the pods that the API server is to be
/// asked for.
pub(crate) async fn spawn(
    args: &Args,
    inputs: &mpsc::Sender<Input>,
    unconfirmed: watch::Receiver<Unconfirmed>,
) -> Result<Spawned> {
    let (looks, asked) = mpsc::channel(LOOKS);
    let announcements = announcements::spawn(&args.socket, inputs.clone(), looks).await;
    if let Some((folder, entry)) = args.entry() {
        tokio::spawn(chain::keep(folder, entry, inputs.clone()));
    }
    let (events, received) = mpsc::channel(QUEUE);
    let mut spawned = Spawned { announcements, client: None };
    match &args.source {
        Source::Folder(path) => {
            let watch = source::folder(path.clone(), events);
            listen("folder", watch, received, from_source, inputs.clone());
        }
        Source::Api => {
            let client = client(args).await?;
            spawned.client = Some(client.clone());
            if args.confirms() {
                let client = client.clone();
                let ask = move |namespace: String| {
                    let client = client.clone();
                    async move { source::policies_of(&client, &namespace).await }
                };
                tokio::spawn(confirm::keep(ask, unconfirmed, inputs.clone()));
            }
            listen("API server", source::api(client, events), received, from_source, inputs.clone());
        }
    }
    let (changes, received) = mpsc::channel(QUEUE);
    listen("interfaces", links::watch(changes, asked), received, from_links, inputs.clone());
    Ok(spawned)
}

/// A client of the API server.
pub(crate) async fn client(args: &Args) -> Result<Client> {
    source::client(args.kubeconfig.as_deref(), args.context.as_deref())
        .await
        .context("cannot find out how to reach the API server")
}

/// Runs `watch` and forwards what it sends to `received`, until it ends.
fn listen<T: Send + 'static, E: Error + Send + Sync + 'static>(
    what: &'static str,
    watch: impl Future<Output = Result<(), E>> + Send + 'static,
    mut received: mpsc::Receiver<T>,
    input: fn(T) -> Input,
    inputs: mpsc::Sender<Input>,
) {
    tokio::spawn(async move {
        let forward = async {
            while let Some(event) = received.recv().await {
                // An error means that the loop has ended, and this task ends with the runtime.
                let _ = inputs.send(input(event)).await;
            }
        };
        let (ended, ()) = tokio::join!(watch, forward);
        let why =
            ended.map_or_else(|error| format!(": {:#}", anyhow::Error::from(error)), |()| String::new());
        let _ = inputs.send(Input::Ended(format!("the watch on the {what} ended{why}"))).await;
    });
}

fn from_source(event: SourceEvent) -> Input {
    match event {
        SourceEvent::Change(change) => Input::Change(change),
        SourceEvent::Current(kind) => Input::Current(kind),
        SourceEvent::Version(kind, version) => Input::Version(kind, version),
        SourceEvent::NotServed(kind) => Input::NotServed(kind),
        SourceEvent::Partial(kind, why) => Input::Partial(kind, why),
        SourceEvent::Failed(kind, error) => Input::Failed(kind, error),
    }
}

fn from_links(event: links::LinkEvent) -> Input {
    match event {
        links::LinkEvent::Change(change) => Input::Change(change),
        links::LinkEvent::Interfaces(interfaces) => Input::Interfaces(interfaces),
        links::LinkEvent::Listed => Input::LinksListed,
    }
}
