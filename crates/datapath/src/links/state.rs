//! What has been reported, and so what is news.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use cellwall_abi::Mac;
use cellwall_policy::model::{Change, Link};
use tokio::time::Instant;

use super::LinkEvent;
use super::read::Seen;

/// After how long a link that changed is looked at again, each time.
const LOOKS: [Duration; 8] = [
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

/// A link that has been reported.
#[derive(Debug)]
struct Known {
    seen: Seen,
    preexisting: bool,
    /// When to look again, and how often that has been done.
    due: Option<(Instant, usize)>,
}

/// Everything that has been reported.
#[derive(Debug, Default)]
pub(super) struct State {
    links: BTreeMap<u32, Known>,
    own: Option<Vec<IpAddr>>,
    interfaces: BTreeSet<u32>,
    later: bool,
}

impl State {
    /// What comes from now on was not there before.
    pub(super) fn first_list_done(&mut self) {
        self.later = true;
    }

    /// Interfaces of this namespace.
    pub(super) fn interfaces(&mut self, all: BTreeSet<u32>) -> Option<LinkEvent> {
        if self.interfaces == all {
            return None;
        }
        self.interfaces.clone_from(&all);
        Some(LinkEvent::Interfaces(all))
    }

    /// True when the interface was in the last list.
    pub(super) fn is_known(&self, ifindex: u32) -> bool {
        self.interfaces.contains(&ifindex)
    }

    /// Addresses of this namespace.
    pub(super) fn own_addresses(&mut self, own: Vec<IpAddr>) -> Option<LinkEvent> {
        if self.own.as_ref() == Some(&own) {
            return None;
        }
        self.own = Some(own.clone());
        Some(LinkEvent::Change(Change::NodeAddresses(own)))
    }

    /// An interface was deleted. The message is about what we know when it has the same Ethernet address; else it
    /// is about an earlier one that had its index, and was reported gone when the next was first seen.
    pub(super) fn deleted(&mut self, ifindex: u32, host_mac: Mac) -> Option<LinkEvent> {
        if self.links.get(&ifindex).is_none_or(|known| known.seen.host_mac != host_mac) {
            return None;
        }
        self.gone(ifindex)
    }

    fn gone(&mut self, ifindex: u32) -> Option<LinkEvent> {
        self.links.remove(&ifindex).map(|_| LinkEvent::Change(Change::LinkGone(ifindex)))
    }

    /// A link was heard of and looked at: addresses in its namespace may follow.
    pub(super) fn changed(&mut self, ifindex: u32, seen: Option<Seen>, now: Instant) -> Vec<LinkEvent> {
        let news = self.looked(ifindex, seen);
        if let Some(known) = self.links.get_mut(&ifindex) {
            known.due = Some((now + LOOKS[0], 0));
        }
        news
    }

    /// A link was looked at; `None`: it leads to no other namespace, or is gone.
    pub(super) fn looked(&mut self, ifindex: u32, seen: Option<Seen>) -> Vec<LinkEvent> {
        let mut news = Vec::new();
        let Some(seen) = seen else {
            news.extend(self.gone(ifindex));
            return news;
        };
        let mut preexisting = !self.later;
        let mut due = None;
        if let Some(known) = self.links.get(&ifindex) {
            if known.seen == seen {
                return news;
            }
            if (known.seen.host_mac, known.seen.peer) == (seen.host_mac, seen.peer) {
                (preexisting, due) = (known.preexisting, known.due);
            } else {
                // Another link with the same index.
                news.extend(self.gone(ifindex));
            }
        }
        news.push(LinkEvent::Change(Change::Link(Link {
            ifindex,
            name: seen.name.clone(),
            addresses: seen.addresses.clone(),
            mac: seen.mac,
            preexisting,
        })));
        self.links.insert(ifindex, Known { seen, preexisting, due });
        news
    }

    /// All links were listed.
    pub(super) fn listed(&mut self, all: Vec<Seen>, now: Instant) -> Vec<LinkEvent> {
        let present: BTreeSet<u32> = all.iter().map(|seen| seen.ifindex).collect();
        let missing: Vec<u32> = self.links.keys().filter(|at| !present.contains(at)).copied().collect();
        let mut news: Vec<LinkEvent> = missing.into_iter().filter_map(|at| self.gone(at)).collect();
        for seen in all {
            let ifindex = seen.ifindex;
            let is_new = !self.links.contains_key(&ifindex);
            news.extend(if is_new {
                self.changed(ifindex, Some(seen), now)
            } else {
                self.looked(ifindex, Some(seen))
            });
        }
        news
    }

    /// When the next link is to be looked at.
    pub(super) fn due(&self) -> Option<Instant> {
        self.links.values().filter_map(|known| known.due).map(|(at, _)| at).min()
    }

    /// Links to look at now; each gets its next time.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<u32> {
        let mut all = Vec::new();
        for (ifindex, known) in &mut self.links {
            if let Some((_, count)) = known.due.filter(|(at, _)| *at <= now) {
                all.push(*ifindex);
                known.due = LOOKS.get(count + 1).map(|after| (now + *after, count + 1));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(ifindex: u32, mac: u8, addresses: &[&str]) -> Seen {
        Seen {
            ifindex,
            name: format!("cw{ifindex}"),
            host_mac: Mac::from_octets([2, 0, 0, 0, 0, mac]),
            peer: 2,
            addresses: addresses.iter().map(|a| a.parse().expect("an address")).collect(),
            mac: Mac::from_octets([2, 0, 0, 0, 1, mac]),
        }
    }

    /// Short words for what was sent.
    fn words(news: &[LinkEvent]) -> Vec<String> {
        let word = |event: &LinkEvent| match event {
            LinkEvent::Change(Change::Link(link)) => {
                let old = if link.preexisting { " preexisting" } else { "" };
                format!("link {} {:?}{old}", link.ifindex, link.addresses)
            }
            LinkEvent::Change(Change::LinkGone(ifindex)) => format!("gone {ifindex}"),
            other => format!("{other:?}"),
        };
        news.iter().map(word).collect()
    }

    #[test]
    fn only_news_is_sent() {
        let now = Instant::now();
        let mut state = State::default();
        let news = state.listed(vec![seen(5, 1, &["10.0.0.1"])], now);
        assert_eq!(words(&news), ["link 5 [10.0.0.1] preexisting"]);
        state.first_list_done();
        assert_eq!(words(&state.listed(vec![seen(5, 1, &["10.0.0.1"])], now)), Vec::<String>::new());
        let news = state.looked(5, Some(seen(5, 1, &["10.0.0.2"])));
        assert_eq!(words(&news), ["link 5 [10.0.0.2] preexisting"]);
        assert_eq!(words(&state.changed(6, Some(seen(6, 2, &[])), now)), ["link 6 []"]);
        assert_eq!(words(&state.listed(vec![seen(6, 2, &[])], now)), ["gone 5"]);
        assert_eq!(words(&state.looked(6, None)), ["gone 6"]);
        assert_eq!(words(&state.looked(6, None)), Vec::<String>::new());
    }

    #[test]
    fn another_link_with_the_same_index_is_new() {
        let now = Instant::now();
        let mut state = State::default();
        state.listed(vec![seen(5, 1, &["10.0.0.1"])], now);
        state.first_list_done();
        // Both messages were lost.
        let news = state.listed(vec![seen(5, 2, &["10.0.0.1"])], now);
        assert_eq!(words(&news), ["gone 5", "link 5 [10.0.0.1]"]);
        // The message about the first arrives after the second was seen.
        assert_eq!(state.deleted(5, Mac::from_octets([2, 0, 0, 0, 0, 1])), None);
        // Deleted and made again alike.
        let gone = state.deleted(5, Mac::from_octets([2, 0, 0, 0, 0, 2]));
        assert_eq!(words(&gone.into_iter().collect::<Vec<_>>()), ["gone 5"]);
        assert_eq!(words(&state.changed(5, Some(seen(5, 2, &[])), now)), ["link 5 []"]);
    }

    #[test]
    fn a_new_link_is_looked_at_more_and_more_rarely() {
        let mut now = Instant::now();
        let mut state = State::default();
        state.first_list_done();
        state.changed(5, Some(seen(5, 1, &[])), now);
        let mut looks = 0;
        while let Some(due) = state.due() {
            assert!(due > now);
            now = due;
            assert_eq!(state.take_due(now), [5]);
            looks += 1;
            assert!(looks <= LOOKS.len());
        }
        assert_eq!(looks, LOOKS.len());
        // What is heard starts it anew.
        state.changed(5, Some(seen(5, 1, &[])), now);
        assert!(state.due().is_some());
    }

    #[test]
    fn own_addresses_are_sent_when_they_change() {
        let mut state = State::default();
        assert!(state.own_addresses(Vec::new()).is_some());
        assert!(state.own_addresses(Vec::new()).is_none());
        assert!(state.own_addresses(vec!["10.0.0.1".parse().expect("an address")]).is_some());
    }
}
