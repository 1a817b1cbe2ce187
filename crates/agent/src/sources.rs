//! What is known of each source of objects, as far as ready depends on it.

use std::time::{Duration, Instant};

use cellwall_policy::model::Kind;

/// For how long a source may fail before the node is not ready.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The watch on one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The kind.
    pub kind: Kind,
    /// The cluster knows the resource.
    pub served: bool,
    /// The list was complete once.
    pub listed: bool,
    /// Why there may be objects that are not in the list.
    pub partial: Option<String>,
    /// When something was last heard.
    pub last_event: Option<Instant>,
    /// Up to which resourceVersion all of it is known; of policies alone, and empty where the source has none.
    pub known: String,
    /// Up to which resourceVersion all of it is live in the kernel.
    pub enforced: String,
    /// Since when it fails, and why.
    pub failing: Option<(Instant, String)>,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources(Vec<Source>);

impl Default for Sources {
    fn default() -> Self {
        let source = |kind| Source {
            kind,
            served: true,
            listed: false,
            partial: None,
            last_event: None,
            known: String::new(),
            enforced: String::new(),
            failing: None,
        };
        Self(Kind::ALL.map(source).to_vec())
    }
}

impl Sources {
    /// In the order of [`Kind::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.0.iter()
    }

    fn get(&mut self, kind: Kind) -> &mut Source {
        self.0.iter_mut().find(|source| source.kind == kind).expect("there is one for each kind")
    }

    /// Something arrived.
    pub fn heard(&mut self, kind: Kind, now: Instant) {
        let source = self.get(kind);
        source.served = true;
        source.last_event = Some(now);
        source.failing = None;
    }

    /// Everything up to this resourceVersion is known.
    pub fn known(&mut self, kind: Kind, version: String) {
        self.get(kind).known = version;
    }

    /// All that is known is live.
    pub fn all_enforced(&mut self) {
        for source in &mut self.0 {
            source.enforced.clone_from(&source.known);
        }
    }

    /// A list is complete.
    pub fn listed(&mut self, kind: Kind, now: Instant) {
        self.heard(kind, now);
        self.get(kind).listed = true;
    }

    /// The cluster does not know the resource: it counts as listed and empty.
    pub fn not_served(&mut self, kind: Kind) {
        let source = self.get(kind);
        source.served = false;
        source.listed = true;
        source.failing = None;
    }

    /// There may be objects that no list has, or not any more.
    pub fn partial(&mut self, kind: Kind, why: Option<String>) {
        self.get(kind).partial = why;
    }

    /// An attempt to list or watch failed; true when it did not fail like this before.
    pub fn failed(&mut self, kind: Kind, error: String, now: Instant) -> bool {
        let source = self.get(kind);
        let (since, before) = source.failing.take().unzip();
        let is_new = before.as_ref() != Some(&error);
        source.failing = Some((since.unwrap_or(now), error));
        is_new
    }

    /// True when every served kind was listed once.
    pub fn all_listed(&self) -> bool {
        self.0.iter().all(|source| source.listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unserved_kind_counts_as_listed_until_it_appears_and_does_not_undo_a_start() {
        let now = Instant::now();
        let mut sources = Sources::default();
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::ClusterNetworkPolicy) {
            assert!(!sources.all_listed());
            sources.listed(kind, now);
        }
        assert!(!sources.all_listed());
        sources.not_served(Kind::ClusterNetworkPolicy);
        assert!(sources.all_listed());
        sources.heard(Kind::ClusterNetworkPolicy, now);
        assert!(sources.all_listed());
        assert!(sources.iter().all(|source| source.served));
    }

    #[test]
    fn a_failure_counts_from_its_beginning_until_something_arrives() {
        let start = Instant::now();
        let mut sources = Sources::default();
        assert!(sources.failed(Kind::Pod, "one".to_owned(), start));
        assert!(!sources.failed(Kind::Pod, "one".to_owned(), start));
        assert!(sources.failed(Kind::Pod, "two".to_owned(), start + PATIENCE));
        let failing = |sources: &Sources| sources.iter().find_map(|source| source.failing.clone());
        assert_eq!(failing(&sources), Some((start, "two".to_owned())));
        sources.heard(Kind::Pod, start + PATIENCE);
        assert_eq!(failing(&sources), None);
    }
}
