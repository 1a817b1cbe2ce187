//! The API server: every kind is listed in pages, then watched from where the list was; whatever happens to a watch,
//! it goes on from its last bookmark, or everything is listed again, which tells of what has gone meanwhile.
//!
//! kube's own watcher does not say when a watch that failed is back, nor that a bookmark arrived: without that, one
//! broken connection of a quiet resource would look like an API server that is gone. So the loop is here, and kube
//! does the requests.

mod item;
mod trouble;

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use cellwall_policy::model::{Change, Kind};
use futures::{FutureExt, StreamExt};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::runtime::watcher::DefaultBackoff;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use self::item::{
    CLUSTER_NETWORK_POLICY, ENDPOINT_SLICE, Item, NAMESPACE, NETWORK_POLICY, NODE, POD, SERVICE,
};
use self::trouble::Trouble;
use super::{Closed, Events, SourceEvent};
use crate::convert::Decoded;

/// Objects of a page: client-go's number.
const PAGE: u32 = 500;
/// How long the server keeps a watch open; it sends a bookmark before it ends it. A server that says nothing is
/// noticed this long, and [`MARGIN`], after its last word.
const WATCH_S: u32 = 60;
/// How long any answer may take beyond what was asked for.
const MARGIN: Duration = Duration::from_secs(10);
/// How long a page may take.
const LIST: Duration = Duration::from_mins(1);
/// How often a resource that is not served is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// A list that is older is no part of what goes wrong now.
const LONG_AGO: Duration = Duration::from_mins(1);
/// A watch that the server ends sooner without a word is a failure: without a delay it would be a busy loop.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Lists and watches all kinds until nobody takes the events.
pub async fn api(client: Client, events: mpsc::Sender<SourceEvent>) -> Result<(), Closed> {
    let events = Events(events);
    let watches = [
        follow::<NAMESPACE>(&client, &events).boxed(),
        follow::<NODE>(&client, &events).boxed(),
        follow::<POD>(&client, &events).boxed(),
        follow::<SERVICE>(&client, &events).boxed(),
        follow::<ENDPOINT_SLICE>(&client, &events).boxed(),
        follow::<NETWORK_POLICY>(&client, &events).boxed(),
        follow::<CLUSTER_NETWORK_POLICY>(&client, &events).boxed(),
    ];
    tokio::select! {
        ended = futures::future::select_all(watches) => match ended.0 {
            Err(closed) => Err(closed),
            Ok(never) => match never {},
        },
        () = events.0.closed() => Err(Closed),
    }
}

/// Lists and watches one kind; every failure is told, and followed by a delay that grows to ten or twenty seconds: a third
/// of client-go's, since what is not known here is not enforced.
async fn follow<const KIND: usize>(client: &Client, events: &Events) -> Result<Infallible, Closed> {
    let resource = Resource::<KIND> { client, api: Api::all(client.clone()), events };
    let mut backoff = DefaultBackoff::default();
    let mut version = None;
    let mut listed = None;
    loop {
        let done = match &mut version {
            None => resource.start().await.map(|from| {
                version = from;
                listed = Some(Instant::now());
            }),
            Some(version) => resource.watch(version).await,
        };
        let (why, at_once) = match done {
            Ok(()) => continue,
            Err(Trouble::Closed) => return Err(Closed),
            Err(Trouble::Later(why)) => (why, false),
            Err(Trouble::Lost(why)) => {
                version = None;
                // The server answers, and this watch fell behind: only a list that does not help is worth a delay.
                (why, listed.is_some_and(|at: Instant| at.elapsed() > LONG_AGO))
            }
        };
        events.send(SourceEvent::Failed(Kind::ALL[KIND], why)).await?;
        if !at_once {
            sleep(backoff.next().unwrap_or(LOOK_AGAIN) / 3).await;
        }
    }
}

/// One kind.
struct Resource<'a, const KIND: usize> {
    client: &'a Client,
    api: Api<Item<KIND>>,
    events: &'a Events,
}

impl<const KIND: usize> Resource<'_, KIND> {
    const KIND: Kind = Kind::ALL[KIND];

    /// Lists where the resource is served: from which version to watch. Waits where it is not.
    async fn start(&self) -> Result<Option<String>, Trouble> {
        if self.is_served().await? {
            return self.list().await.map(Some);
        }
        self.events.send(SourceEvent::NotServed(Self::KIND)).await?;
        sleep(LOOK_AGAIN).await;
        Ok(None)
    }

    /// Only a resource that is an add-on may be missing. If any server could say so of pods, a wrong address would
    /// mean that there are none.
    async fn is_served(&self) -> Result<bool, Trouble> {
        if Self::KIND != Kind::ClusterNetworkPolicy {
            return Ok(true);
        }
        let group = <Item<KIND> as kube::Resource>::api_version(&());
        match limited(LIST, self.client.list_api_group_resources(&group)).await? {
            Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == item::plural(Self::KIND))),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(Trouble::of(Self::KIND, &error)),
        }
    }

    /// All pages, and what is there at their end; the version that they show.
    async fn list(&self) -> Result<String, Trouble> {
        let mut params = ListParams::default().limit(PAGE);
        let mut present = Vec::new();
        loop {
            let page = limited(LIST, self.api.list(&params)).await?;
            let page = page.map_err(|error| Trouble::of(Self::KIND, &error))?;
            for item in page.items {
                match item.decoded {
                    Decoded::Object(key, changes) => {
                        present.push(key);
                        self.events.changes(changes).await?;
                    }
                    other => Self::unusable(&other),
                }
            }
            let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
            params.continue_token = filled(page.metadata.continue_);
            if params.continue_token.is_some() {
                continue;
            }
            let version = filled(page.metadata.resource_version)
                .ok_or_else(|| Trouble::Lost("the list has no resourceVersion to watch from".to_owned()))?;
            debug!(kind = Self::KIND.name(), objects = present.len(), version, "listed");
            self.events.send(SourceEvent::Change(Change::Listed(Self::KIND, present))).await?;
            self.tell_version(&version).await?;
            return Ok(version);
        }
    }

    /// Watches from `version`, and keeps it the newest one seen, until the server ends the watch.
    async fn watch(&self, version: &mut String) -> Result<(), Trouble> {
        let broken = |error| Trouble::of(Self::KIND, &error);
        let began = Instant::now();
        let mut heard = false;
        let params = WatchParams::default().timeout(WATCH_S);
        let patience = Duration::from_secs(WATCH_S.into()) + MARGIN;
        let stream = limited(patience, self.api.watch(&params, version)).await?.map_err(broken)?;
        let mut stream = pin!(stream);
        self.events.send(SourceEvent::Current(Self::KIND)).await?;
        while let Some(event) = limited(patience, stream.next()).await? {
            heard = true;
            match event.map_err(broken)? {
                WatchEvent::Added(item) | WatchEvent::Modified(item) => {
                    advance(version, item.version())?;
                    match item.decoded {
                        Decoded::Object(_, changes) => self.events.changes(changes).await?,
                        other => Self::unusable(&other),
                    }
                    self.tell_version(version).await?;
                }
                WatchEvent::Deleted(item) => {
                    advance(version, item.version())?;
                    match item.decoded {
                        Decoded::Object(key, _) => self.events.changes([Change::Gone(key)]).await?,
                        other => Self::unusable(&other),
                    }
                    self.tell_version(version).await?;
                }
                WatchEvent::Bookmark(bookmark) => {
                    advance(version, &bookmark.metadata.resource_version)?;
                    self.events.send(SourceEvent::Current(Self::KIND)).await?;
                }
                // Whatever it is: a watch that goes on from the same version might say it for ever.
                WatchEvent::Error(status) => {
                    return Err(match Trouble::answered(Self::KIND, &status) {
                        Trouble::Later(why) => Trouble::Lost(why),
                        trouble => trouble,
                    });
                }
            }
        }
        if !heard && began.elapsed() < AT_ONCE {
            return Err(Trouble::Later("the API server ended the watch at once".to_owned()));
        }
        Ok(())
    }

    /// Behind what it tells of. Of what is enforced alone: nobody asks how far a node is with anything else.
    async fn tell_version(&self, version: &str) -> Result<(), Closed> {
        if Self::KIND == Kind::NetworkPolicy {
            self.events.send(SourceEvent::Version(Self::KIND, version.to_owned())).await?;
        }
        Ok(())
    }

    /// Without a name there is nothing to keep, nor anybody to tell; an API server does not send such a thing.
    fn unusable(what: &Decoded) {
        warn!(kind = Self::KIND.name(), ?what, "the API server sent something that is no object");
    }
}

/// The next watch goes on from `seen`.
fn advance(version: &mut String, seen: &str) -> Result<(), Trouble> {
    if seen.is_empty() {
        return Err(Trouble::Lost("an event has no resourceVersion to go on from".to_owned()));
    }
    seen.clone_into(version);
    Ok(())
}

/// Waits no longer than `limit`.
async fn limited<T>(limit: Duration, answer: impl Future<Output = T>) -> Result<T, Trouble> {
    timeout(limit, answer)
        .await
        .map_err(|_| Trouble::Later(format!("the API server said nothing for {} s", limit.as_secs())))
}
