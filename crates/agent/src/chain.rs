//! Keeps the CNI plugin in the configuration that the container runtime reads. Other tools write there too, and may
//! write a list of their own again and again; ours comes back each time, ever more slowly, and the status says so.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cellwall_abi::planted;
use cellwall_cni::entry::Entry;
use cellwall_cni::files::{self, FilesError, Installed};
use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use crate::run::Input;

/// How long a change can go unnoticed that inotify does not see.
const POLL: Duration = Duration::from_secs(5);
/// Changes come in groups: a few more are waited for.
const GROUP: Duration = Duration::from_millis(20);
/// How soon our entry comes back when it was taken out, doubled each time until [`SLOWEST`].
const FIRST: Duration = Duration::from_millis(500);
/// See [`FIRST`].
const SLOWEST: Duration = Duration::from_mins(1);
/// After so long in place the next time is the first again.
const CALM: Duration = Duration::from_mins(10);

/// Whether the plugin is in the configuration that the runtime reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Chained {
    /// Nobody asked for it.
    #[default]
    NotAsked,
    /// It is in this file.
    In(PathBuf),
    /// It is not, or was not just now; why.
    Out(String),
}

/// How often our entry was taken out of late, and when it may come back.
#[derive(Debug, Default)]
struct Strikes {
    count: u32,
    last: Option<Instant>,
}

impl Strikes {
    /// It was put in again.
    fn again(&mut self, now: Instant) {
        let calm = self.last.is_none_or(|last| now - last > CALM);
        self.count = if calm { 1 } else { self.count + 1 };
        self.last = Some(now);
    }

    /// When it may be written again.
    fn until(&self) -> Option<Instant> {
        let delay = FIRST.saturating_mul(1 << self.count.min(10)).min(SLOWEST);
        self.last.map(|last| last + delay)
    }
}

/// Puts `entry` into the configuration that is read from `folder`, and looks after it until the loop has ended.
pub async fn keep(folder: PathBuf, entry: Entry, inputs: mpsc::Sender<Input>) {
    let mut told = Chained::NotAsked;
    let mut before: Option<PathBuf> = None;
    let mut strikes = Strikes::default();
    loop {
        // Made before the folder is read: what happens meanwhile brings the next pass.
        let watch = watch(&folder);
        let found = blocking(&folder, &entry, files::find).await;
        if let (Ok(Installed { path, changed: true }), Some(until)) = (&found, strikes.until())
            && before.as_ref() == Some(path)
        {
            let message = format!(
                "another tool takes our entry out of {} ({} times of late); it comes back in up to {} s. Until then pods \
                 start without waiting for their policies: have that tool leave the file alone",
                path.display(),
                strikes.count,
                SLOWEST.as_secs()
            );
            tell(&mut told, Chained::Out(message), &inputs).await;
            sleep_until(until).await;
        }
        let is_ours_back = before.is_none() || !planted("ours-never-comes-back");
        let step = if is_ours_back { files::install } else { files::find };
        let now = match blocking(&folder, &entry, step).await {
            Ok(Installed { path, changed }) => {
                if changed && before.as_ref() == Some(&path) {
                    strikes.again(Instant::now());
                    warn!("another tool took our entry out of {}; it is there again", path.display());
                } else if changed {
                    info!("our entry was put into {}", path.display());
                }
                before = Some(path.clone());
                Chained::In(path)
            }
            Err(error) => Chained::Out(error.to_string()),
        };
        if let Chained::Out(message) = &now
            && now != told
        {
            warn!("{message}");
        }
        tell(&mut told, now, &inputs).await;
        if inputs.is_closed() {
            return;
        }
        wait(watch).await;
    }
}

async fn tell(told: &mut Chained, now: Chained, inputs: &mpsc::Sender<Input>) {
    if *told != now {
        told.clone_from(&now);
        // An error means that the loop has ended, which `keep` asks next.
        let _ = inputs.send(Input::Chained(now)).await;
    }
}

/// Files are read and synced on a thread that may wait for a disk.
async fn blocking(
    folder: &Path,
    entry: &Entry,
    step: fn(&Path, &Entry) -> Result<Installed, FilesError>,
) -> Result<Installed, FilesError> {
    let (folder, entry) = (folder.to_owned(), entry.clone());
    tokio::task::spawn_blocking(move || step(&folder, &entry)).await.expect("files do not panic")
}

fn watch(folder: &Path) -> io::Result<Inotify> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::CLOSE_WRITE
        | WatchMask::MOVE
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR;
    inotify.watches().add(folder, mask)?;
    Ok(inotify)
}

/// Waits for a change, or until the next poll.
async fn wait(watch: io::Result<Inotify>) {
    let mut buffer = [0; 1024];
    if let Ok(mut changes) = watch.and_then(|inotify| inotify.into_event_stream(&mut buffer)) {
        if timeout(POLL, changes.next()).await.is_ok() {
            sleep(GROUP).await;
        }
    } else {
        sleep(POLL / 5).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_comes_back_ever_more_slowly_and_starts_anew_after_a_calm() {
        let mut strikes = Strikes::default();
        assert_eq!(strikes.until(), None);
        let mut delays = Vec::new();
        for _ in 0..9 {
            let now = Instant::now();
            strikes.again(now);
            delays.push((strikes.until().expect("set") - now).as_secs());
            tokio::time::advance(SLOWEST).await;
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        tokio::time::advance(CALM).await;
        strikes.again(Instant::now());
        assert_eq!(strikes.count, 1);
    }
}
