//! The connection tables in memory.

use core::cell::{Cell, RefCell, UnsafeCell};
use std::collections::BTreeMap;

use cellwall_abi::{ACTION_ALLOW, Bucket, Chosen, Conn, Direction, Family, Fragment};

/// Connections and fragments of one family. What a pod may add is bounded as in the kernel, in each family by itself;
/// the tables have no bound.
#[derive(Clone, Debug)]
pub struct Connections<F: Family> {
    flows: Rows<F::FlowKey>,
    pending: Rows<F::FlowKey>,
    fragments: RefCell<BTreeMap<F::FragmentKey, Fragment>>,
    chosen: RefCell<BTreeMap<F::ChosenKey, Chosen>>,
    buckets: RefCell<BTreeMap<u32, Bucket>>,
    /// Rows that a pod may still add to FLOWS, by its slot; of others there is no end.
    pub shares: RefCell<BTreeMap<u32, u32>>,
    /// FLOWS takes nothing more.
    pub full: Cell<bool>,
}

impl<F: Family> Default for Connections<F> {
    fn default() -> Self {
        Self {
            flows: Rows::default(),
            pending: Rows::default(),
            fragments: RefCell::default(),
            chosen: RefCell::default(),
            buckets: RefCell::default(),
            shares: RefCell::default(),
            full: Cell::new(false),
        }
    }
}

impl<F: Family> Connections<F> {
    pub(crate) fn flow(&self, key: &F::FlowKey) -> Option<&mut Conn> {
        self.flows.get(key)
    }

    pub(crate) fn pending(&self, key: &F::FlowKey) -> Option<&mut Conn> {
        self.pending.get(key)
    }

    pub(crate) fn insert_flow(&self, key: &F::FlowKey, conn: &Conn, slot: u32) -> bool {
        if self.full.get() {
            return false;
        }
        if let Some(left) = self.shares.borrow_mut().get_mut(&slot) {
            if *left == 0 {
                return false;
            }
            *left -= 1;
        }
        self.flows.put(*key, *conn);
        self.buckets.borrow_mut().entry(slot).or_default().left(conn);
        true
    }

    pub(crate) fn insert_pending(&self, key: &F::FlowKey, conn: &Conn, slot: u32) -> bool {
        let mut buckets = self.buckets.borrow_mut();
        let bucket = buckets.entry(slot).or_default();
        bucket.refill(conn.created);
        let left = bucket.of_opener(conn.flags);
        if *left == 0 || self.pending.get(key).is_some() {
            return false;
        }
        *left -= 1;
        self.pending.put(*key, *conn);
        true
    }

    pub(crate) fn answered(&self, conn: &Conn, slot: u32) {
        self.buckets.borrow_mut().entry(slot).or_default().answered(conn);
    }

    pub(crate) fn remove_flow(&self, key: &F::FlowKey) {
        self.flows.remove(key);
    }

    pub(crate) fn remove_pending(&self, key: &F::FlowKey) {
        self.pending.remove(key);
    }

    pub(crate) fn fragment(&self, key: &F::FragmentKey) -> Option<Fragment> {
        self.fragments.borrow().get(key).copied()
    }

    pub(crate) fn insert_fragment(&self, key: &F::FragmentKey, fragment: &Fragment, at: (u32, Direction)) {
        let (slot, direction) = at;
        let mut buckets = self.buckets.borrow_mut();
        let bucket = buckets.entry(slot).or_default();
        bucket.refill(fragment.seen);
        let left = bucket.of_fragment(direction, fragment);
        let mut fragments = self.fragments.borrow_mut();
        if *left != 0 && (fragment.action == ACTION_ALLOW || !fragments.contains_key(key)) {
            *left -= 1;
            fragments.insert(*key, *fragment);
        }
    }

    /// How many first fragments are remembered.
    pub fn first_fragments(&self) -> usize {
        self.fragments.borrow().len()
    }

    pub(crate) fn chosen(&self, key: &F::ChosenKey) -> Option<Chosen> {
        self.chosen.borrow().get(key).copied()
    }

    pub(crate) fn insert_chosen(&self, key: &F::ChosenKey, chosen: &Chosen) {
        self.chosen.borrow_mut().insert(*key, *chosen);
    }

    /// The answered connections.
    pub fn flows(&self) -> Vec<(F::FlowKey, Conn)> {
        self.flows.all()
    }

    /// The unanswered connections.
    pub fn pendings(&self) -> Vec<(F::FlowKey, Conn)> {
        self.pending.all()
    }

    /// Puts a connection there, as if it had been there before.
    pub fn put(&self, key: F::FlowKey, conn: Conn, answered: bool) {
        if answered { self.flows.put(key, conn) } else { self.pending.put(key, conn) }
    }

    /// Removes every connection, as a sweep would.
    pub fn remove_all(&self) {
        for (key, _) in self.flows().into_iter().chain(self.pendings()) {
            self.flows.remove(&key);
            self.pending.remove(&key);
        }
    }
}

/// A table whose rows are handed out for writing, as the kernel does it: a deleted row stays where it is.
#[derive(Debug)]
#[expect(clippy::vec_box, reason = "references to the rows outlive the table's own moves")]
struct Rows<K> {
    rows: RefCell<BTreeMap<K, Box<UnsafeCell<Conn>>>>,
    deleted: RefCell<Vec<Box<UnsafeCell<Conn>>>>,
}

impl<K> Default for Rows<K> {
    fn default() -> Self {
        Self { rows: RefCell::default(), deleted: RefCell::default() }
    }
}

impl<K: Ord + Copy> Clone for Rows<K> {
    fn clone(&self) -> Self {
        let rows = self.all().into_iter().map(|(key, conn)| (key, Box::new(UnsafeCell::new(conn)))).collect();
        Self { rows: RefCell::new(rows), deleted: RefCell::default() }
    }
}

impl<K: Ord + Copy> Rows<K> {
    // JUSTIFICATION: the decision is given a reference to the live row, in the kernel and here, or it would not be
    // the same code.
    #[expect(unsafe_code, reason = "see above")]
    #[expect(clippy::mut_from_ref, reason = "rows are shared, as in the kernel")]
    fn get(&self, key: &K) -> Option<&mut Conn> {
        let row: *mut Conn = self.rows.borrow().get(key)?.get();
        // SAFETY: the box is neither moved nor freed while `self` lives: removed rows are kept in `deleted`. The
        // decision runs on one thread and uses no earlier reference to a row after it has asked for it again.
        Some(unsafe { &mut *row })
    }

    fn put(&self, key: K, conn: Conn) {
        let before = self.rows.borrow_mut().insert(key, Box::new(UnsafeCell::new(conn)));
        self.deleted.borrow_mut().extend(before);
    }

    fn remove(&self, key: &K) {
        let row = self.rows.borrow_mut().remove(key);
        self.deleted.borrow_mut().extend(row);
    }

    fn all(&self) -> Vec<(K, Conn)> {
        let keys: Vec<K> = self.rows.borrow().keys().copied().collect();
        keys.into_iter().filter_map(|key| self.get(&key).map(|conn| (key, *conn))).collect()
    }
}
