//! What the frames of one pod are known to have left behind, so that what belongs to it must pass.
//!
//! Only of a pod of which every frame is seen, and for much less than any of it is remembered: how something ends need
//! not be known then. Who has another clock than the programs knows nothing here.

use core::net::IpAddr;
use std::collections::HashMap;

use cellwall_policy::flow::Direction;

/// A connection as the pod sees it: who opened it, the remote address, both ports, protocol.
pub(super) type Opened = (Direction, IpAddr, (u16, u16), u8);

/// A datagram in fragments: direction, both addresses, identification and, of IPv4, protocol.
pub(super) type Datagram = (Direction, (IpAddr, IpAddr), u32, u8);

/// Ticks for which something is known. The least that is remembered is a connection that was reset, for ten.
const SURE: u32 = 7;
/// Rows after which those that are known no more are left out.
const MANY: usize = 1 << 16;

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The tick of the next frame; `None` for who sees but a part of what there is.
    now: Option<u32>,
    opened: HashMap<Opened, u32>,
    /// Those that the other side has taken, as a handshake is.
    taken: HashMap<Opened, u32>,
    firsts: HashMap<Datagram, u32>,
}

impl Known {
    /// Every frame of the pod is seen, and the next comes in this tick.
    pub(super) fn at(&mut self, tick: u32) {
        self.now = Some(tick);
    }

    pub(super) fn forget(&mut self) {
        self.opened.clear();
        self.taken.clear();
        self.firsts.clear();
    }

    fn note<K: core::hash::Hash + Eq>(rows: &mut HashMap<K, u32>, key: K, now: Option<u32>) {
        let Some(now) = now else { return };
        if rows.len() > MANY {
            rows.retain(|_, at| now.wrapping_sub(*at) <= SURE);
        }
        rows.insert(key, now);
    }

    fn holds<K: core::hash::Hash + Eq>(&self, rows: &HashMap<K, u32>, key: &K) -> bool {
        let age = |at: &u32| self.now.map(|now| now.wrapping_sub(*at));
        rows.get(key).and_then(age).is_some_and(|age| age <= SURE)
    }

    /// A packet that passed has opened this. Who opens it anew is to be answered anew.
    pub(super) fn opens(&mut self, what: Opened) {
        self.taken.remove(&what);
        Self::note(&mut self.opened, what, self.now);
    }

    pub(super) fn is_open(&self, what: &Opened) -> bool {
        self.holds(&self.opened, what)
    }

    /// The other side has answered it as what opens asks for.
    pub(super) fn takes(&mut self, what: Opened) {
        Self::note(&mut self.taken, what, self.now);
    }

    pub(super) fn is_taken(&self, what: &Opened) -> bool {
        self.holds(&self.taken, what)
    }

    /// The first fragment of a datagram has passed.
    pub(super) fn begins(&mut self, what: Datagram) {
        Self::note(&mut self.firsts, what, self.now);
    }

    pub(super) fn has_begun(&self, what: &Datagram) -> bool {
        self.holds(&self.firsts, what)
    }
}
