//! Ids for content.
//!
//! An id is a keyed hash of what it stands for, so an agent that starts again finds the ids it gave before and
//! writes nothing; the key is secret, so nobody who only chooses labels can make two contents meet; and content is
//! compared, so two that meet by chance get different ids all the same.

use alloc::collections::{BTreeMap, BTreeSet};
use core::hash::{Hash, Hasher};

use cellwall_abi::{CLASS_NODE, FIRST_FREE_CLASS};
use siphasher::sip::SipHasher13;

/// Gives ids to contents of one kind.
#[derive(Debug)]
pub(crate) struct Interner<T> {
    secret: [u64; 2],
    ids: BTreeMap<T, u32>,
    taken: BTreeSet<u32>,
    used: BTreeSet<u32>,
    /// Used in the round before this one.
    used_before: BTreeSet<u32>,
}

impl<T: Hash + Ord + Clone> Interner<T> {
    /// `kind` keeps contents of different kinds from having the same ids.
    pub(crate) fn new(secret: [u64; 2], kind: u64) -> Self {
        let secret = [secret[0] ^ kind, secret[1]];
        Self {
            secret,
            ids: BTreeMap::new(),
            taken: BTreeSet::new(),
            used: BTreeSet::new(),
            used_before: BTreeSet::new(),
        }
    }

    /// The id of a content; the same one while it stays in use.
    pub(crate) fn id(&mut self, content: &T) -> u32 {
        if let Some(id) = self.ids.get(content) {
            self.used.insert(*id);
            return *id;
        }
        let mut hasher = SipHasher13::new_with_keys(self.secret[0], self.secret[1]);
        content.hash(&mut hasher);
        let hash = hasher.finish();
        #[expect(clippy::cast_possible_truncation, reason = "the halves are folded into one")]
        let mut id = (hash ^ (hash >> 32)) as u32 & !CLASS_NODE;
        while id < FIRST_FREE_CLASS || self.taken.contains(&id) {
            id = (id + 1) & !CLASS_NODE;
        }
        self.ids.insert(content.clone(), id);
        self.taken.insert(id);
        self.used.insert(id);
        id
    }

    /// Ends a round: forgets what neither this one nor the one before asked for. What an id stood for is in the
    /// kernel until the plan of the next round has run, so it is not given away any sooner.
    pub(crate) fn end_round(&mut self) {
        let used = core::mem::take(&mut self.used);
        let before = core::mem::replace(&mut self.used_before, used);
        let used = &self.used_before;
        self.ids.retain(|_, id| used.contains(id) || before.contains(id));
        self.taken.retain(|id| used.contains(id) || before.contains(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of these have one hash.
    #[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
    struct Alike(u32);

    impl Hash for Alike {
        fn hash<H: Hasher>(&self, _: &mut H) {}
    }

    fn ids(interner: &mut Interner<Alike>, contents: &[u32]) -> alloc::vec::Vec<u32> {
        contents.iter().map(|content| interner.id(&Alike(*content))).collect()
    }

    #[test]
    fn contents_that_meet_have_ids_of_their_own() {
        let mut interner = Interner::new([1, 2], 3);
        let first = ids(&mut interner, &[1, 2, 3]);
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3, "{first:?}");
        assert!(first.iter().all(|id| *id >= FIRST_FREE_CLASS && id & CLASS_NODE == 0), "{first:?}");
        assert_eq!(ids(&mut interner, &[3, 1, 2]), [first[2], first[0], first[1]]);
        assert_eq!(ids(&mut Interner::new([1, 2], 3), &[2]), first[..1], "they do meet");
    }

    /// What an id stood for is in the kernel until the plan of a round without it has run.
    #[test]
    fn an_id_is_given_away_again_after_two_rounds_without_it() {
        let mut interner = Interner::new([1, 2], 3);
        let first = ids(&mut interner, &[1])[0];
        for (round, content) in [2, 3].into_iter().enumerate() {
            interner.end_round();
            assert_ne!(ids(&mut interner, &[content])[0], first, "{round}");
        }
        interner.end_round();
        assert_eq!(ids(&mut interner, &[4])[0], first, "nobody has asked for it in two rounds");
    }

    #[test]
    fn who_comes_back_in_time_has_its_id_again() {
        let mut interner = Interner::new([1, 2], 3);
        let first = ids(&mut interner, &[1, 2]);
        for contents in [&[2][..], &[2, 1]] {
            interner.end_round();
            let again = ids(&mut interner, contents);
            assert_eq!(again[0], first[1]);
            assert!(again.get(1).is_none_or(|id| *id == first[0]), "{again:?}");
        }
    }
}
