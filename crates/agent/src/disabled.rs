//! The switch on the node: while a file is there, the agent lets go of everything and does nothing. `cellwall node
//! disable` makes it and takes the programs off; no API server and no agent has to answer for that.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tracing::warn;

use crate::http;

/// How soon the switch is noticed.
const LOOK: Duration = Duration::from_millis(250);

/// True when the file is there. What cannot be looked at is not there: a disk that fails must not end enforcement.
pub(crate) fn is_disabled(file: &Path) -> bool {
    match fs::symlink_metadata(file) {
        Ok(_) => true,
        Err(error) => {
            if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                warn!("cannot look at {}: {error}; the node counts as enabled", file.display());
            }
            false
        }
    }
}

/// Ready when the node is disabled.
pub(crate) async fn until_disabled(file: &Path) {
    while !is_disabled(file) {
        sleep(LOOK).await;
    }
}

/// Waits until the node is enabled; true, or false when `stop` came first. Meanwhile it is alive and not ready.
pub(crate) async fn wait(file: &Path, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<bool> {
    warn!(
        "this node is disabled: nothing is enforced here, until `cellwall node enable` removes {}",
        file.display()
    );
    let enabled = async {
        while is_disabled(file) {
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = enabled => Ok(true),
        () = stop => Ok(false),
        ended = http::serve_disabled(listener) => ended.map(|()| false).map_err(Into::into),
    }
}
