//! The maps, and how the decision sees them. Names, keys and values are those of `cellwall_abi::tables`.

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap};
use cellwall_abi::{
    ACTION_ALLOW, Addr6, Be16, Be32, Bucket, CLASS_WORLD, CONFIG_STRICT, Chosen, ChosenKey4, ChosenKey6,
    ClassPair, Config, Conn, Direction, EndpointRecord, Family, FlowKey4, FlowKey6, Fragment, FragmentKey4,
    FragmentKey6, Live, PolicyEntry, PolicyKey, PortKey, PortValue, SERVICE_TRANSLATED, ServiceKey4,
    ServiceKey6, ServiceRecord, Share, TICK_SHIFT, V4, V6, record_index, tables as t,
};
use cellwall_verdict::Tables;

#[map]
static LIVE: Array<Live> = Array::with_max_entries(t::LIVE.capacity, 0);
#[map]
static CONFIG: Array<Config> = Array::with_max_entries(t::CONFIG.capacity, 0);
#[map]
static ENDPOINTS: HashMap<u32, u32> = HashMap::with_max_entries(t::ENDPOINTS.capacity, 0);
#[map]
static RECORDS: Array<EndpointRecord> = Array::with_max_entries(t::RECORDS.capacity, 0);
#[map]
static BUCKETS: Array<Bucket> = Array::with_max_entries(t::BUCKETS.capacity, 0);
#[map]
static SHARES: Array<Share> = Array::with_max_entries(t::SHARES.capacity, 0);
// Not preallocated: clusters are small more often than the capacity is used, and memory is charged to the agent.
#[map]
static ADDRESSES4: HashMap<Be32, u32> = HashMap::with_max_entries(t::ADDRESSES4.capacity, BPF_F_NO_PREALLOC);
#[map]
static ADDRESSES6: HashMap<Addr6, u32> = HashMap::with_max_entries(t::ADDRESSES6.capacity, BPF_F_NO_PREALLOC);
#[map]
static CLASSES: Array<ClassPair> = Array::with_max_entries(t::CLASSES.capacity, 0);
#[map]
static PREFIXES4: LpmTrie<Be32, ClassPair> =
    LpmTrie::with_max_entries(t::PREFIXES4.capacity, BPF_F_NO_PREALLOC);
#[map]
static PREFIXES6: LpmTrie<Addr6, ClassPair> =
    LpmTrie::with_max_entries(t::PREFIXES6.capacity, BPF_F_NO_PREALLOC);
#[map]
static POLICY: HashMap<PolicyKey, PolicyEntry> =
    HashMap::with_max_entries(t::POLICY.capacity, BPF_F_NO_PREALLOC);
#[map]
static PORTS: LpmTrie<PortKey, PortValue> = LpmTrie::with_max_entries(t::PORTS.capacity, BPF_F_NO_PREALLOC);
#[map]
static SERVICES4: HashMap<ServiceKey4, u32> =
    HashMap::with_max_entries(t::SERVICES4.capacity, BPF_F_NO_PREALLOC);
#[map]
static SERVICES6: HashMap<ServiceKey6, u32> =
    HashMap::with_max_entries(t::SERVICES6.capacity, BPF_F_NO_PREALLOC);
#[map]
static SERVICE_RECORDS: Array<ServiceRecord> = Array::with_max_entries(t::SERVICE_RECORDS.capacity, 0);
#[map]
static PENDING4: LruHashMap<FlowKey4, Conn> = LruHashMap::with_max_entries(t::PENDING4.capacity, 0);
#[map]
static PENDING6: LruHashMap<FlowKey6, Conn> = LruHashMap::with_max_entries(t::PENDING6.capacity, 0);
#[map]
static FLOWS4: HashMap<FlowKey4, Conn> = HashMap::with_max_entries(t::FLOWS4.capacity, 0);
#[map]
static FLOWS6: HashMap<FlowKey6, Conn> = HashMap::with_max_entries(t::FLOWS6.capacity, 0);
#[map]
static FRAGMENTS4: LruHashMap<FragmentKey4, Fragment> =
    LruHashMap::with_max_entries(t::FRAGMENTS4.capacity, 0);
#[map]
static FRAGMENTS6: LruHashMap<FragmentKey6, Fragment> =
    LruHashMap::with_max_entries(t::FRAGMENTS6.capacity, 0);
#[map]
static CHOSEN4: LruHashMap<ChosenKey4, Chosen> = LruHashMap::with_max_entries(t::CHOSEN4.capacity, 0);
#[map]
static CHOSEN6: LruHashMap<ChosenKey6, Chosen> = LruHashMap::with_max_entries(t::CHOSEN6.capacity, 0);

/// The maps of this object.
pub struct Maps;

/// Current tick.
#[inline(always)]
fn now() -> u32 {
    // SAFETY: the helper has no arguments and cannot fail.
    (unsafe { bpf_ktime_get_coarse_ns() } >> TICK_SHIFT) as u32
}

/// The bucket of the pod in `slot`. Two CPUs may spend what is there once: a bound on what a flood can take is no exact
/// count.
#[inline(always)]
fn bucket(slot: u32) -> Option<&'static mut Bucket> {
    // SAFETY: a live array element of plain numbers; races are benign, see above.
    BUCKETS.get_ptr_mut(slot).map(|bucket| unsafe { &mut *bucket })
}

/// Spends one of `left` on `add`; false when there is none, or nothing was added and it is there still.
#[inline(always)]
fn spend(left: &mut u32, add: impl FnOnce() -> bool) -> bool {
    if *left == 0 || !add() {
        return false;
    }
    *left = left.saturating_sub(1);
    true
}

/// Adds a row to FLOWS if the pod in `slot` has room for it there.
#[inline(always)]
fn take_room(slot: u32, is_v6: bool, add: impl FnOnce() -> bool) -> bool {
    let Some(share) = SHARES.get_ptr_mut(slot) else { return false };
    // SAFETY: as for [`bucket`]; what a race or the agent loses is counted at the next sweep.
    let taken = unsafe { &mut (*share).taken[usize::from(is_v6)] };
    if *taken == u32::MAX || !add() {
        return false;
    }
    *taken = taken.saturating_add(1);
    true
}

macro_rules! tables {
    ($family:ty, $addr:ty, $bits:literal, $flow_key:ty, $fragment_key:ty, $service_key:ident, $chosen_key:ty,
     $services:ident, $chosen:ident, $addresses:ident, $prefixes:ident, $pending:ident, $flows:ident, $fragments:ident) => {
        impl Tables<$family> for Maps {
            #[inline(always)]
            fn live(&self) -> Live {
                LIVE.get(0).copied().unwrap_or_default()
            }

            #[inline(always)]
            fn strict(&self) -> bool {
                CONFIG.get(0).is_some_and(|config| config.flags & CONFIG_STRICT != 0)
            }

            #[inline(always)]
            fn record(&self, ifindex: u32, bank: u32) -> Option<(u32, &EndpointRecord)> {
                // SAFETY: rows of ENDPOINTS are never replaced, only inserted and deleted.
                let slot = *unsafe { ENDPOINTS.get(&ifindex) }?;
                Some((slot, RECORDS.get(record_index(slot, bank))?))
            }

            #[inline(always)]
            fn record_of(&self, slot: u32, bank: u32) -> Option<&EndpointRecord> {
                RECORDS.get(record_index(slot, bank))
            }

            #[inline(always)]
            fn mark(&self) -> u32 {
                CONFIG.get(0).map_or(0, |config| config.mark)
            }

            #[inline(always)]
            fn service(
                &self,
                address: &$addr,
                port: Be16,
                protocol: u8,
                bank: u32,
            ) -> Option<&ServiceRecord> {
                let key = $service_key { address: *address, port, protocol, pad: 0 };
                // SAFETY: rows of the table are never replaced, only inserted and deleted.
                let slot = *unsafe { $services.get(&key) }?;
                SERVICE_RECORDS
                    .get(record_index(slot, bank))
                    .filter(|record| record.flags & SERVICE_TRANSLATED != 0)
            }

            #[inline(always)]
            fn class(&self, address: &$addr, bank: u32) -> u32 {
                // SAFETY: rows of the exact table are never replaced, only inserted and deleted.
                if let Some(slot) = unsafe { $addresses.get(address) }
                    && let Some(pair) = CLASSES.get(*slot)
                {
                    return pair.class(bank);
                }
                $prefixes.get(&Key::new($bits, *address)).map_or(CLASS_WORLD, |pair| pair.class(bank))
            }

            #[inline(always)]
            fn policy(&self, key: &PolicyKey) -> Option<&PolicyEntry> {
                // SAFETY: rows of POLICY are never replaced, only inserted and deleted.
                unsafe { POLICY.get(key) }
            }

            #[inline(always)]
            fn port(&self, key: &PortKey) -> Option<PortValue> {
                PORTS.get(&Key::new(PortKey::BITS, *key)).copied()
            }

            #[inline(always)]
            fn flow(&self, key: &$flow_key) -> Option<&mut Conn> {
                // SAFETY: the row stays readable and writable for this run of the program even if it is deleted;
                // concurrent writes are to single words, and Conn says what they can do.
                $flows.get_ptr_mut(key).map(|row| unsafe { &mut *row })
            }

            #[inline(always)]
            fn pending(&self, key: &$flow_key) -> Option<&mut Conn> {
                // SAFETY: as above.
                $pending.get_ptr_mut(key).map(|row| unsafe { &mut *row })
            }

            #[inline(always)]
            fn insert_flow(&self, key: &$flow_key, conn: &Conn, slot: u32) -> bool {
                let is_v6 = <$family as Family>::V6;
                if !take_room(slot, is_v6, || $flows.insert(key, conn, 0).is_ok()) {
                    return false;
                }
                if let Some(bucket) = bucket(slot) {
                    bucket.left(conn);
                }
                true
            }

            #[inline(always)]
            fn insert_pending(&self, key: &$flow_key, conn: &Conn, slot: u32) -> bool {
                let Some(bucket) = bucket(slot) else { return false };
                bucket.refill(conn.created);
                spend(bucket.of_opener(conn.flags), || {
                    $pending.insert(key, conn, u64::from(BPF_NOEXIST)).is_ok()
                })
            }

            #[inline(always)]
            fn answered(&self, conn: &Conn, slot: u32) {
                if let Some(bucket) = bucket(slot) {
                    bucket.answered(conn);
                }
            }

            #[inline(always)]
            fn remove_flow(&self, key: &$flow_key) {
                let _ = $flows.remove(key);
            }

            #[inline(always)]
            fn remove_pending(&self, key: &$flow_key) {
                let _ = $pending.remove(key);
            }

            #[inline(always)]
            fn fragment(&self, key: &$fragment_key) -> Option<Fragment> {
                // SAFETY: copied at once; a row that is recycled meanwhile is of another datagram of this node,
                // and its verdict is at most as old as this one's.
                unsafe { $fragments.get(key) }.copied()
            }

            #[inline(always)]
            fn insert_fragment(&self, key: &$fragment_key, fragment: &Fragment, at: (u32, Direction)) {
                let (slot, direction) = at;
                let Some(bucket) = bucket(slot) else { return };
                bucket.refill(fragment.seen);
                // Without a branch, which the verifier would follow both ways of. Without the flag it is BPF_ANY, 0.
                let flags = u64::from(BPF_NOEXIST) * u64::from(fragment.action != ACTION_ALLOW);
                let add = || $fragments.insert(key, fragment, flags).is_ok();
                spend(bucket.of_fragment(direction, fragment), add);
            }

            #[inline(always)]
            fn chosen(&self, key: &$chosen_key) -> Option<Chosen> {
                // SAFETY: copied at once. The revision of a row that is recycled meanwhile may be another's: the one it
                // was, or the live one, of a destination that policy allows.
                unsafe { $chosen.get(key) }.copied()
            }

            #[inline(always)]
            fn insert_chosen(&self, key: &$chosen_key, chosen: &Chosen) {
                let _ = $chosen.insert(key, chosen, 0);
            }

            #[inline(always)]
            fn now(&self) -> u32 {
                now()
            }

            #[inline(always)]
            fn now_us(&self) -> u32 {
                // SAFETY: the helper has no arguments and cannot fail.
                (unsafe { bpf_ktime_get_coarse_ns() } / 1000) as u32
            }
        }
    };
}

tables!(
    V4,
    Be32,
    32,
    FlowKey4,
    FragmentKey4,
    ServiceKey4,
    ChosenKey4,
    SERVICES4,
    CHOSEN4,
    ADDRESSES4,
    PREFIXES4,
    PENDING4,
    FLOWS4,
    FRAGMENTS4
);
tables!(
    V6,
    Addr6,
    128,
    FlowKey6,
    FragmentKey6,
    ServiceKey6,
    ChosenKey6,
    SERVICES6,
    CHOSEN6,
    ADDRESSES6,
    PREFIXES6,
    PENDING6,
    FLOWS6,
    FRAGMENTS6
);
