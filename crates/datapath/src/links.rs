//! Which addresses are behind which interface, told by netlink alone: no runtime is asked and no file is read.
//!
//! A veth says in which network namespace its other end is (`IFLA_LINK_NETNSID`), and a dump of addresses can be
//! asked of that namespace (`IFA_TARGET_NETNSID`, with strict checking); CAP_NET_ADMIN is enough for both. What it
//! cannot do is hear when an address is added in there, which needs CAP_NET_BROADCAST. So a link that is new or
//! changes is looked at again after 10, 20, 50 ms and so on until it has been quiet for two seconds, and all are
//! looked at every five seconds.
//!
//! An interface is reported as soon as it is there, with the addresses that it shows so far; that none of them is a
//! pod's is the reader's to say (some sandboxes show none, see `UnplacedReason::NoInterface`). A link that was
//! deleted is reported gone before another with its index is reported, even when both happened between two looks.

mod read;
mod state;

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use cellwall_policy::model::Change;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::error::WatchError;
use crate::netlink::{DEL_LINK, Events, Message, NEW_LINK};
pub(crate) use read::with_xdp;
use read::{Reader, Seen};
use state::State;

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV6_IFADDR`.
const GROUPS: [u32; 3] = [1, 5, 9];
/// How long something that nobody reports goes unseen.
const RELIST: Duration = Duration::from_secs(5);

/// `LOOPBACK_IFINDEX`: the same in every namespace.
const LOOPBACK: u32 = 1;

/// What the watch sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// [`Change::Link`], [`Change::LinkGone`], [`Change::NodeAddresses`], or what a [`Look`] was for.
    Change(Change),
    /// All interfaces of this namespace but the loopback, whenever one comes or goes.
    Interfaces(BTreeSet<u32>),
    /// Everything that was there at first has been sent.
    Listed,
}

/// What somebody says of interfaces whose other ends are ready: it comes after what is seen there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Indices of the interfaces.
    pub interfaces: Vec<u32>,
    /// What is said.
    pub then: Change,
}

/// Watches the interfaces of this network namespace and sends what it sees, until the receiver is closed.
/// Interfaces that are there at first are `preexisting`. What comes from `looks` is done at once.
pub async fn watch(
    changes: mpsc::Sender<LinkEvent>,
    mut looks: mpsc::Receiver<Look>,
) -> Result<(), WatchError> {
    let events = Events::open(&GROUPS).and_then(register).map_err(WatchError::Socket)?;
    let mut watch =
        Watch { events, reader: Reader::open().map_err(WatchError::Socket)?, state: State::default() };
    let mut news = watch.relist()?;
    watch.state.first_list_done();
    news.push(LinkEvent::Listed);
    let mut next_list = Instant::now() + RELIST;
    loop {
        for event in news {
            if changes.send(event).await.is_err() {
                return Ok(());
            }
        }
        let due = watch.state.due().map_or(next_list, |due| due.min(next_list));
        news = tokio::select! {
            heard = watch.hear() => watch.follow(&heard?)?,
            Some(look) = looks.recv() => watch.look_for(look)?,
            () = sleep_until(due) => {
                if Instant::now() >= next_list {
                    next_list = Instant::now() + RELIST;
                    watch.relist()?
                } else {
                    watch.look_at_due()?
                }
            }
            () = changes.closed() => return Ok(()),
        };
    }
}

fn register(events: Events) -> io::Result<AsyncFd<Events>> {
    // JUSTIFICATION: tokio has no safe way to wait for a descriptor that it did not open.
    // SAFETY: the descriptor is that of the socket in `events`, which owns it, never changes it, and lives in the
    // value that is returned.
    #[expect(unsafe_code, reason = "registers a descriptor with the runtime")]
    let registered = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) };
    Ok(registered?)
}

struct Watch {
    events: AsyncFd<Events>,
    reader: Reader,
    state: State,
}

/// What has been heard since the last time.
#[derive(Debug, Default)]
struct Heard {
    messages: Vec<Message>,
    /// The kernel had more to say than the socket has room for.
    lost: bool,
}

impl Watch {
    /// Waits until something is heard, and takes all of it.
    async fn hear(&mut self) -> Result<Heard, WatchError> {
        let mut guard = self.events.readable_mut().await.map_err(WatchError::Socket)?;
        let mut heard = Heard::default();
        loop {
            match guard.try_io(|events| events.get_mut().read()) {
                Ok(Ok(messages)) => heard.messages.extend(messages),
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => heard.lost = true,
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(WatchError::Socket(error)),
                Err(_would_block) => return Ok(heard),
            }
        }
    }

    /// Looks at what was heard of. Messages only say where to look: what they describe may be over already.
    fn follow(&mut self, heard: &Heard) -> Result<Vec<LinkEvent>, WatchError> {
        let mut news = Vec::new();
        let mut look = BTreeSet::new();
        let mut interfaces = false;
        let mut own_addresses = false;
        for message in &heard.messages {
            match message.kind {
                NEW_LINK | DEL_LINK => {
                    let Some(link) = read::link(message) else { continue };
                    interfaces |= message.kind == DEL_LINK || !self.state.is_known(link.ifindex);
                    if message.kind == DEL_LINK {
                        news.extend(self.state.deleted(link.ifindex, link.host_mac));
                    }
                    look.insert(link.ifindex);
                }
                _ => own_addresses = true,
            }
        }
        if heard.lost {
            news.extend(self.relist()?);
            return Ok(news);
        }
        if interfaces {
            news.extend(self.interfaces()?);
        }
        for ifindex in look {
            let seen = self.reader.one(ifindex).map_err(refused("an interface"))?;
            news.extend(self.state.changed(ifindex, seen, Instant::now()));
        }
        if own_addresses {
            news.extend(self.own_addresses()?);
        }
        Ok(news)
    }

    fn interfaces(&mut self) -> Result<Option<LinkEvent>, WatchError> {
        let mut all = self.reader.interfaces().map_err(refused("interfaces"))?;
        all.remove(&LOOPBACK);
        Ok(self.state.interfaces(all))
    }

    fn own_addresses(&mut self) -> Result<Option<LinkEvent>, WatchError> {
        let own = self.reader.own_addresses().map_err(refused("addresses"))?;
        Ok(self.state.own_addresses(own))
    }

    fn relist(&mut self) -> Result<Vec<LinkEvent>, WatchError> {
        let mut news: Vec<LinkEvent> = self.own_addresses()?.into_iter().chain(self.interfaces()?).collect();
        let all: Vec<Seen> = self.reader.all().map_err(refused("interfaces"))?;
        news.extend(self.state.listed(all, Instant::now()));
        Ok(news)
    }

    fn look_at(&mut self, ifindex: u32) -> Result<Vec<LinkEvent>, WatchError> {
        let seen = self.reader.one(ifindex).map_err(refused("an interface"))?;
        Ok(self.state.looked(ifindex, seen))
    }

    fn look_for(&mut self, look: Look) -> Result<Vec<LinkEvent>, WatchError> {
        let mut news = Vec::new();
        for ifindex in look.interfaces {
            news.extend(self.look_at(ifindex)?);
        }
        news.push(LinkEvent::Change(look.then));
        Ok(news)
    }

    fn look_at_due(&mut self) -> Result<Vec<LinkEvent>, WatchError> {
        let mut news = Vec::new();
        for ifindex in self.state.take_due(Instant::now()) {
            news.extend(self.look_at(ifindex)?);
        }
        Ok(news)
    }
}

fn refused(what: &'static str) -> impl FnOnce(io::Error) -> WatchError {
    move |source| WatchError::Refused { what, source }
}
