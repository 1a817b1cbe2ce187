//! A folder of manifests: all that the API server would say, from files.
//!
//! Every pass reads the whole folder and tells what differs from what was told before, so it does not matter which
//! change was noticed. A new inotify watch is made before each pass: whatever happens while the folder is read, or to
//! the folder itself, brings the next one; a slow poll finds what inotify cannot see, such as a file behind a link.

mod manifest;
mod merge;
mod once;
mod scan;
mod workloads;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cellwall_policy::model::{Change, Kind, ObjectKey, Problem};
use cellwall_policy::planted;
use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::debug;

pub use self::once::{Manifests, read, read_stream};
use self::scan::Folder;
use super::{Closed, Events, SourceEvent};

/// How long a change can go unnoticed that inotify does not see.
const POLL: Duration = Duration::from_secs(5);
/// Changes come in groups: a few more are waited for.
const GROUP: Duration = Duration::from_millis(20);
/// The first delay after a failure, doubled until [`POLL`].
const FIRST_DELAY: Duration = Duration::from_millis(200);

/// What is known of each object: what the model is told of it.
type Known = BTreeMap<ObjectKey, Vec<Change>>;

/// Reads the folder and follows its changes until nobody takes the events.
///
/// It takes `*.yaml`, `*.yml` and `*.json` directly in the folder, names that begin with a dot left out. A namespace
/// that pods or policies are in and no file has is there all the same, as in every cluster. A file that cannot be
/// read or parsed, or has become empty, leaves its last version in force and is named as a problem, under the kind
/// NetworkPolicy and its path, since a policy may be in it. Only removing the file removes its objects. While a file was
/// never read, or the folder has none, the policies are said to be partial.
pub async fn folder(path: PathBuf, events: mpsc::Sender<SourceEvent>) -> Result<(), Closed> {
    let events = Events(events);
    let mut folder = Folder::new(&path);
    let mut known: Option<Known> = None;
    let mut partial = None;
    let mut delay = FIRST_DELAY;
    loop {
        let watch = watch(&path);
        let read;
        (folder, read) = tokio::task::spawn_blocking(move || {
            let read = folder.read();
            (folder, read)
        })
        .await
        .expect("reading does not panic");
        match read {
            Ok(()) if folder.is_settled() => {
                let missing = folder.missing();
                let mut now = merge::merged(&folder);
                if folder.files.is_empty() {
                    let (key, problem) = empty(&path);
                    now.insert(key, vec![Change::Bad(problem)]);
                }
                if planted("lists-come-before-what-they-lack") {
                    tell(known.as_ref(), &now, &events).await?;
                    known = Some(now.clone());
                }
                // Before the lists: whoever acts on those has to know.
                if known.is_none() || missing != partial {
                    events.send(SourceEvent::Partial(Kind::NetworkPolicy, missing.clone())).await?;
                    partial = missing;
                }
                tell(known.as_ref(), &now, &events).await?;
                known = Some(now);
                delay = FIRST_DELAY;
                wait(watch).await;
            }
            Ok(()) => sleep(scan::SETTLE).await,
            Err(error) => {
                let message = format!(
                    "cannot read the folder {}: {error}; what was known stays in force until it is there again",
                    path.display()
                );
                for kind in Kind::ALL {
                    events.send(SourceEvent::Failed(kind, message.clone())).await?;
                }
                sleep(delay).await;
                delay = (delay * 2).min(POLL);
            }
        }
    }
}

/// What is said of a folder that has nothing: somebody may have meant another, or removed too much.
fn empty(path: &Path) -> (ObjectKey, Problem) {
    let key = ObjectKey::cluster(Kind::NetworkPolicy, &path.display().to_string());
    let message = "the folder has no manifest (*.yaml, *.yml, *.json): no policy is known".to_owned();
    (key.clone(), Problem { object: key, field: String::new(), message })
}

/// Tells what is new or different, then what is there; only that all is current when nothing is.
async fn tell(before: Option<&Known>, now: &Known, events: &Events) -> Result<(), Closed> {
    if before == Some(now) {
        for kind in Kind::ALL {
            events.send(SourceEvent::Current(kind)).await?;
        }
        return Ok(());
    }
    for (key, changes) in now {
        if before.and_then(|before| before.get(key)) != Some(changes) {
            events.changes(changes.iter().cloned()).await?;
        }
    }
    for kind in Kind::ALL {
        let present = now.keys().filter(|key| key.kind == kind).cloned().collect();
        events.changes([Change::Listed(kind, present)]).await?;
    }
    Ok(())
}

/// A watch on the folder as it is now.
fn watch(path: &Path) -> io::Result<Inotify> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::CREATE
        | WatchMask::CLOSE_WRITE
        | WatchMask::MOVE
        | WatchMask::DELETE
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR;
    inotify.watches().add(path, mask)?;
    Ok(inotify)
}

/// Waits for a change, or until the next poll.
async fn wait(watch: io::Result<Inotify>) {
    let mut buffer = [0; 1024];
    match watch.and_then(|inotify| inotify.into_event_stream(&mut buffer)) {
        Ok(mut changes) => {
            if timeout(POLL, changes.next()).await.is_ok() {
                sleep(GROUP).await;
            }
        }
        Err(error) => {
            debug!("changes are found by polling: inotify says {error}");
            sleep(FIRST_DELAY * 5).await;
        }
    }
}
