//! Plans: performed as they say, and read back as the planner sees them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cellwall_abi::{Be32, ClassPair, EndpointRecord, Live, Mac, PolicyEntry, PolicyKey, PortKey, PortValue};
use cellwall_datapath::Datapath;
use cellwall_policy::plan::Op;
use cellwall_policy::wanted::Observed;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::place::place;

/// Numbers that look random and are the same each time (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u32) -> u32 {
        u32::try_from(self.next() % u64::from(end)).expect("below a u32")
    }

    fn address(&mut self) -> IpAddr {
        let n = self.below(40);
        match n % 2 {
            0 => Ipv4Addr::from(0x0a00_0000 + n).into(),
            _ => Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(n)).into(),
        }
    }

    fn prefix(&mut self) -> IpNet {
        let bits = u8::try_from(self.below(33)).expect("small");
        match self.address() {
            IpAddr::V4(v4) => IpNet::V4(Ipv4Net::new(v4, bits).expect("a length").trunc()),
            IpAddr::V6(v6) => IpNet::V6(Ipv6Net::new(v6, 4 * bits.min(32)).expect("a length").trunc()),
        }
    }

    fn entry(&mut self) -> PolicyEntry {
        let mut entry = PolicyEntry::only_rest(1 + u8::from(self.below(2) == 0), self.below(9));
        entry.list = self.below(5);
        entry.intervals[0].rule = self.below(9);
        entry
    }

    fn pair(&mut self) -> ClassPair {
        ClassPair::new([self.below(99), self.below(99)])
    }

    fn record(&mut self) -> EndpointRecord {
        EndpointRecord {
            since: self.next(),
            flags: self.below(4),
            image: [self.below(9), self.below(9)],
            address4: Be32::new(self.below(u32::MAX)),
            mac: Mac([1, 2, 3]),
            default: [self.entry(), self.entry()],
            ..EndpointRecord::default()
        }
    }

    /// A write that a plan could hold where the tables are as `seen`, with those that must come before it.
    fn writes(&mut self, seen: &Observed) -> Vec<Op> {
        let key = PolicyKey { image: self.below(6), class: self.below(6) };
        let prefix =
            PortKey::block(1 + self.below(3), 6, 16 * u16::try_from(self.below(8)).expect("small"), 4);
        match self.below(10) {
            0 => self.new_endpoint(seen),
            1 => vec![Op::DeleteEndpoint { ifindex: 1 + self.below(12) }],
            2 => self.new_address(seen),
            3 => vec![Op::DeleteAddress { address: self.address() }],
            4 => vec![Op::PutPrefix { prefix: self.prefix(), pair: self.pair() }],
            5 => vec![Op::DeletePrefix { prefix: self.prefix() }],
            6 if seen.policy.contains_key(&key) => vec![Op::DeletePolicy { key }],
            6 => vec![Op::InsertPolicy { key, entry: self.entry() }],
            7 if seen.ports.contains_key(&prefix) => vec![Op::DeletePort { prefix }],
            7 => vec![Op::InsertPort { prefix, value: PortValue { rule: 3, action: 1, pad: [0; 3] } }],
            8 => vec![Op::Flip { live: seen.live.next() }],
            _ => vec![Op::Grace],
        }
    }

    fn new_endpoint(&mut self, seen: &Observed) -> Vec<Op> {
        let ifindex = 1 + self.below(12);
        let used: BTreeSet<u32> = seen.endpoints.values().copied().collect();
        let slot = (0..1_000).find(|slot| !used.contains(slot)).expect("few are used");
        let slot = seen.endpoints.get(&ifindex).copied().unwrap_or(slot);
        let mut ops: Vec<Op> =
            (0..2).map(|bank| Op::PutRecord { slot, bank, record: self.record() }).collect();
        if !seen.endpoints.contains_key(&ifindex) {
            ops.push(Op::InsertEndpoint { ifindex, slot });
        }
        ops
    }

    fn new_address(&mut self, seen: &Observed) -> Vec<Op> {
        let address = self.address();
        let used: BTreeSet<u32> = seen.addresses.values().copied().collect();
        let slot = (0..1_000).find(|slot| !used.contains(slot)).expect("few are used");
        let slot = seen.addresses.get(&address).copied().unwrap_or(slot);
        let mut ops = vec![Op::PutClass { slot, pair: self.pair() }];
        if !seen.addresses.contains_key(&address) {
            ops.push(Op::InsertAddress { address, slot });
        }
        ops
    }
}

fn compare(datapath: &Datapath, seen: &Observed, what: &str) {
    let found = datapath.observe().expect("tables");
    assert_eq!(found.live, seen.live, "{what}");
    assert_eq!(found.endpoints, seen.endpoints, "{what}");
    assert_eq!(found.records, seen.records, "{what}");
    assert_eq!(found.addresses, seen.addresses, "{what}");
    assert_eq!(found.classes, seen.classes, "{what}");
    assert_eq!(found.prefixes, seen.prefixes, "{what}");
    assert_eq!(found.policy, seen.policy, "{what}");
    assert_eq!(found.ports, seen.ports, "{what}");
    assert_eq!(&found, seen, "{what}");
}

#[test]
fn what_is_written_is_what_is_read_back() {
    place("tables", |place| {
        let mut datapath = Datapath::open(&place.settings).expect("a data path");
        let mut seen = datapath.observe().expect("tables");
        assert_eq!(seen, Observed::default());
        for seed in 0..200 {
            let mut numbers = Numbers(seed);
            let mut planned = seen.clone();
            let mut ops = Vec::new();
            for _ in 0..=numbers.below(40) {
                let more = numbers.writes(&planned);
                for op in &more {
                    op.apply_to(&mut planned);
                }
                // Grace periods take some milliseconds each.
                ops.extend(more.into_iter().filter(|op| *op != Op::Grace || seed % 20 == 0));
            }
            datapath.run_all(&ops).expect("a plan");
            for op in &ops {
                op.apply_to(&mut seen);
            }
            compare(&datapath, &seen, &format!("seed {seed}: {ops:?}"));
        }
        drop(datapath);
        compare(&Datapath::open(&place.settings).expect("a data path"), &seen, "opened again");
    });
}

fn address(n: u32) -> IpAddr {
    if n.is_multiple_of(2) {
        Ipv4Addr::from(0x0a00_0000 + n).into()
    } else {
        Ipv6Addr::from(u128::from(n)).into()
    }
}

#[test]
fn plans_of_many_batches_arrive_whole() {
    place("tables", |place| {
        const MANY: u32 = 12_000;
        let mut datapath = Datapath::open(&place.settings).expect("a data path");
        let mut seen = Observed::default();
        let mut ops: Vec<Op> =
            (0..MANY).map(|n| Op::PutClass { slot: n, pair: ClassPair::new([n, MANY - n]) }).collect();
        ops.extend((0..MANY).map(|n| Op::InsertAddress { address: address(n), slot: n }));
        ops.extend((0..4_000).map(|n| {
            let net = Ipv4Net::new(Ipv4Addr::from(0x0b00_0000 + 16 * n), 28).expect("a length");
            Op::PutPrefix { prefix: net.into(), pair: ClassPair::new([n, 0]) }
        }));
        ops.extend((0..4_000).map(|n| Op::InsertPolicy {
            key: PolicyKey { image: n, class: n },
            entry: PolicyEntry::only_rest(1, n),
        }));
        ops.push(Op::Flip { live: Live(1) });
        datapath.run_all(&ops).expect("a plan");
        for op in &ops {
            op.apply_to(&mut seen);
        }
        compare(&datapath, &seen, "inserted");
        let used = |datapath: &mut Datapath, table| {
            let all = datapath.usage().expect("tables");
            all.into_iter().find(|usage| usage.table == table).map(|usage| (usage.used, usage.capacity))
        };
        assert_eq!(used(&mut datapath, "ADDRESSES4"), Some((6_000, 8_192)));
        assert_eq!(used(&mut datapath, "POLICY"), Some((4_000, 8_192)));

        // Every third, among many that were never there.
        let mut ops: Vec<Op> =
            (0..3 * MANY).step_by(3).map(|n| Op::DeleteAddress { address: address(n) }).collect();
        ops.extend((1_000..6_000).map(|n| Op::DeletePolicy { key: PolicyKey { image: n, class: n } }));
        datapath.run_all(&ops).expect("a plan");
        for op in &ops {
            op.apply_to(&mut seen);
        }
        compare(&datapath, &seen, "deleted");
        assert_eq!(used(&mut datapath, "POLICY"), Some((1_000, 8_192)));
    });
}

#[test]
fn a_write_that_fails_is_named_and_the_rest_is_not_done() {
    place("tables", |place| {
        let mut datapath = Datapath::open(&place.settings).expect("a data path");
        let one = |n| Op::InsertEndpoint { ifindex: n, slot: n };
        let ops = [one(1), one(2), one(1), one(3)];
        let error = datapath.run_all(&ops).expect_err("a row that is there is never replaced");
        assert_eq!((error.done, error.is_full()), (2, false));
        assert!(error.to_string().contains("insert into ENDPOINTS 1 -> 1"), "{error}");
        let found = datapath.observe().expect("tables");
        assert_eq!(found.endpoints.keys().copied().collect::<Vec<_>>(), [1, 2]);

        let ops: Vec<Op> = (10..100).map(one).collect();
        let error = datapath.run_all(&ops).expect_err("there is room for 64");
        assert!(error.is_full(), "{error}: {:?}", error.source);
        assert_eq!(error.done, 62);
        let outside = Op::PutClass { slot: 1 << 20, pair: ClassPair::default() };
        assert_eq!(datapath.run_all(&[outside]).expect_err("no such element").done, 0);
    });
}
