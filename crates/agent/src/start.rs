//! From the command line to the loop: what is opened, in which order, and what runs beside it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use cellwall_api::{Limits, Publisher, Receivers, Snapshot, Socket};
use cellwall_datapath::{Datapath, memory};
use cellwall_policy::model::Cluster;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info};

use crate::args::{Args, EgressToOwnNode, Enforcement};
use crate::disabled;
use crate::http;
use crate::inputs::{self, Spawned};
use crate::node::Node;
use crate::node::confirm::Unconfirmed;
use crate::node_object;
use crate::remote;
use crate::run::{Outputs, run};
use crate::stats::Stats;
use crate::waits;

/// How long those who ask may take to hear the last answer.
const FAREWELL: Duration = Duration::from_secs(1);

/// Runs the agent until it is told to stop. What is enforced stays enforced.
pub fn start(args: &Args) -> Result<()> {
    loop {
        // The loop blocks in the kernel on this thread; the other two serve meanwhile.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let ended = runtime.block_on(serve_or_wait(args));
        // With it go all tasks of an agent that was disabled: the next one starts from nothing.
        runtime.shutdown_timeout(FAREWELL);
        match ended? {
            Ended::Stopped => return Ok(()),
            Ended::Disabled | Ended::Enabled => {}
        }
    }
}

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// This process was asked to stop.
    Stopped,
    /// The node is not to be enforced any more.
    Disabled,
    /// It is again.
    Enabled,
}

async fn serve_or_wait(args: &Args) -> Result<Ended> {
    let stop = stop()?;
    let file = &args.disabled_file();
    if disabled::is_disabled(file) {
        let http = http::bind(args.http).await?;
        // It ends with the runtime, as all of this turn.
        tokio::spawn(node_object::tell_disabled(args.clone(), node_name(args)?));
        return Ok(if disabled::wait(file, http, stop).await? { Ended::Enabled } else { Ended::Stopped });
    }
    let mut ended = Ended::Stopped;
    let stop = async {
        tokio::select! {
            () = stop => {}
            () = disabled::until_disabled(file) => ended = Ended::Disabled,
        }
    };
    serve(args, stop).await?;
    if ended == Ended::Disabled {
        info!("disabled; what was enforced here is let go");
    }
    Ok(ended)
}

async fn serve(args: &Args, stop: impl Future<Output = ()>) -> Result<()> {
    let node_name = node_name(args)?;
    // The lock on the pins comes first: an agent that may not act must not take the socket of the one that does.
    let settings = args.settings();
    let kernel = Datapath::open(&settings).context("cannot open the data path")?;
    let tables_bytes = memory(&settings).context("cannot read how large the tables are")?;
    let socket = Socket::bind(&args.socket)?;
    let http = http::bind(args.http).await?;
    info!(
        bytes = tables_bytes,
        "the tables take {} MiB, which count as memory of this container",
        tables_bytes >> 20
    );
    info!(node = node_name, socket = %args.socket.display(), http = %args.http, "cellwall-agent {}", env!("CARGO_PKG_VERSION"));

    let (sender, mut received) = mpsc::channel(inputs::QUEUE);
    let (unconfirmed, open) = watch::channel(Unconfirmed::new());
    let Spawned { announcements, client } = inputs::spawn(args, &sender, open).await?;
    drop(sender);

    let mut cluster = Cluster::new(&node_name);
    cluster.pod_cidrs.clone_from(&args.pod_cidrs);
    cluster.audit_all = args.enforcement == Enforcement::Audit;
    cluster.egress_to_own_node = args.egress_to_own_node == EgressToOwnNode::Always;
    let mut node = Node::new(kernel, cluster, args.capacities()).context("cannot read the tables")?;
    if args.confirms() {
        node = node.with_confirmation();
    }
    let publisher = Publisher::new(node.snapshot(std::time::Instant::now()));
    let outputs = Outputs { publisher, stats: watch::Sender::new(node.stats.clone()), unconfirmed };

    let waits = waits::spawn(client.clone(), outputs.publisher.subscribe());
    if let Some(client) = client {
        let snapshots = outputs.publisher.subscribe();
        let remote = remote::spawn(&args.remote, &client, &node_name, waits.clone(), snapshots.clone()).await;
        tokio::spawn(node_object::keep(client, node_name, remote, snapshots));
    }
    let (farewell, stopped) = oneshot::channel();
    let receivers = Receivers { announcements, waits };
    let answering = answer(socket, http, &outputs, receivers, stopped);
    let ended = run(&mut node, &mut received, &outputs, stop).await;
    // Streams end with the publisher, and the server when they have.
    drop(outputs);
    let _ = farewell.send(());
    let _ = tokio::time::timeout(FAREWELL, answering).await;
    info!("ended; what is enforced stays enforced");
    ended
}

/// Answers gRPC and HTTP. Neither ends by itself; if one does, enforcement is worth more than answers.
fn answer(
    socket: Socket,
    http: tokio::net::TcpListener,
    outputs: &Outputs,
    receivers: Receivers,
    stopped: oneshot::Receiver<()>,
) -> tokio::task::JoinHandle<()> {
    let snapshots: watch::Receiver<Arc<Snapshot>> = outputs.publisher.subscribe();
    let stats: watch::Receiver<Stats> = outputs.stats.subscribe();
    let web = http::serve(http, snapshots.clone(), stats);
    tokio::spawn(async move {
        if let Err(error) = web.await {
            error!("the HTTP server ended: {error}");
        }
    });
    tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        if let Err(error) =
            cellwall_api::serve(socket, snapshots, receivers, Limits::default(), stopped).await
        {
            error!("{:#}", anyhow::Error::from(error));
        }
    })
}

/// Ready when this process is asked to stop.
fn stop() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The one that was given, or the host's.
fn node_name(args: &Args) -> Result<String> {
    args.node_name.clone().map_or_else(host_name, Ok)
}

fn host_name() -> Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .context("cannot read the host name; give --node-name")?;
    // The kubelet lowers it, too.
    Ok(name.trim().to_lowercase())
}
