//! From ordered rules with tiers, Accept, Deny and Pass to intervals that do not overlap.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use cellwall_abi::{
    ACTION_ALLOW, ACTION_DENY, INLINE_INTERVALS, Interval, PolicyEntry, PortKey, PortValue, RULE_NONE,
};

use super::rules::{FlatRule, Image};
use crate::flow::Protocol;
use crate::model::{Action, PortRange, Tier};
use crate::wanted::PortPrefix;

/// The protocols of which rules can name ports.
const PROTOCOLS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];

/// Which rules an address can match.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ClassContent<'a> {
    /// The ids of the peer sets it is in, sorted.
    Sets(&'a [u32]),
    /// An unknown pod: every Deny, no Accept and no Pass but those for any address (S84). A Pass that matched
    /// could hide a Deny behind it.
    UnknownPod,
}

/// Action and rule.
type Outcome = (u8, u32);

/// An image's answer to one class. `list` holds the intervals when they do not fit into `entry`, whose `list` id the
/// caller gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flat {
    pub(crate) entry: PolicyEntry,
    pub(crate) list: Vec<Interval>,
}

impl Flat {
    /// True when this port of a protocol that has ports is allowed.
    pub(crate) fn allows(&self, protocol: u8, port: u16) -> bool {
        let inline = &self.entry.intervals[..usize::from(self.entry.count)];
        let intervals = if self.list.is_empty() { inline } else { &self.list[..] };
        let mut named = intervals.iter().filter(|interval| interval.protocol == protocol);
        let found = named.find(|interval| (interval.low..=interval.high).contains(&port));
        found.map_or(self.entry.rest_action, |interval| interval.action) == ACTION_ALLOW
    }
}

/// Flattens an image for one class.
pub(crate) fn flatten(image: &Image, class: ClassContent<'_>) -> Flat {
    let rules: Vec<&FlatRule> = image.rules.iter().filter(|rule| can_match(rule, class)).collect();
    let rest = decide(image.isolated, &rules, None);
    let mut intervals = Vec::new();
    let mut some = if rest.0 == ACTION_ALLOW { PolicyEntry::protocol_bit(0) } else { 0 };
    for protocol in PROTOCOLS {
        let pieces = pieces(image.isolated, &rules, protocol);
        if pieces.iter().any(|piece| piece.action == ACTION_ALLOW) {
            some |= PolicyEntry::protocol_bit(protocol.0);
        }
        intervals.extend(pieces.into_iter().filter(|piece| (piece.action, piece.rule) != rest));
    }
    let mut entry = PolicyEntry { some, ..PolicyEntry::only_rest(rest.0, rest.1) };
    if intervals.len() > INLINE_INTERVALS {
        return Flat { entry, list: intervals };
    }
    for (place, interval) in entry.intervals.iter_mut().zip(&intervals) {
        *place = *interval;
    }
    entry.count = u8::try_from(intervals.len()).expect("no more than are inline");
    Flat { entry, list: Vec::new() }
}

fn can_match(rule: &FlatRule, class: ClassContent<'_>) -> bool {
    match (rule.peers, class) {
        (None, _) => true,
        (Some(set), ClassContent::Sets(sets)) => sets.binary_search(&set).is_ok(),
        (Some(_), ClassContent::UnknownPod) => {
            rule.action == Action::Deny && !crate::planted("unknown-pod-escapes-deny")
        }
    }
}

/// The outcomes over all ports of a protocol, neighbours with one outcome merged.
fn pieces(isolated: bool, rules: &[&FlatRule], protocol: Protocol) -> Vec<Interval> {
    let mut starts = BTreeSet::from([0_u16]);
    for range in rules.iter().filter_map(|rule| rule.ports.as_ref()).flatten().filter(|p| p.0 == protocol) {
        starts.insert(range.1.low);
        starts.extend(range.1.high.checked_add(1));
    }
    let starts: Vec<u16> = starts.into_iter().collect();
    let mut pieces: Vec<Interval> = Vec::new();
    for (i, start) in starts.iter().enumerate() {
        let high = starts.get(i + 1).map_or(u16::MAX, |next| next - 1);
        let (action, rule) = decide(isolated, rules, Some((protocol, *start)));
        match pieces.last_mut() {
            Some(last) if (last.action, last.rule) == (action, rule) => last.high = high,
            _ => pieces.push(Interval { low: *start, high, rule, protocol: protocol.0, action, pad: [0; 2] }),
        }
    }
    pieces
}

/// The first rule of each tier that matches decides, tier after tier (C1 to C9). `at` is `None` for what has no
/// ports.
fn decide(isolated: bool, rules: &[&FlatRule], at: Option<(Protocol, u16)>) -> Outcome {
    let first = |tier| rules.iter().find(|rule| rule.tier == tier && matches_port(rule, at));
    let outcome = |rule: &FlatRule| match rule.action {
        Action::Accept => Some((ACTION_ALLOW, rule.rule)),
        Action::Deny => Some((ACTION_DENY, rule.rule)),
        Action::Pass if crate::planted("pass-accepts") => Some((ACTION_ALLOW, rule.rule)),
        Action::Pass => None,
    };
    if let Some(decided) = first(Tier::Admin).and_then(|rule| outcome(rule)) {
        return decided;
    }
    if isolated {
        return first(Tier::NetworkPolicy).and_then(|rule| outcome(rule)).unwrap_or((ACTION_DENY, RULE_NONE));
    }
    first(Tier::Baseline).and_then(|rule| outcome(rule)).unwrap_or((ACTION_ALLOW, RULE_NONE))
}

fn matches_port(rule: &FlatRule, at: Option<(Protocol, u16)>) -> bool {
    match (&rule.ports, at) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(ports), Some((protocol, port))) => {
            let last = |range: &PortRange| {
                range.high - u16::from(range.high > range.low && crate::planted("end-port-exclusive"))
            };
            ports.iter().any(|(p, range)| *p == protocol && range.low <= port && port <= last(range))
        }
    }
}

/// The rows of the table of ports for a list.
pub(crate) fn list_rows(
    list: u32,
    intervals: &[Interval],
) -> impl Iterator<Item = (PortPrefix, PortValue)> + '_ {
    intervals.iter().flat_map(move |interval| {
        let value = PortValue { rule: interval.rule, action: interval.action, pad: [0; 3] };
        let range = PortRange { low: interval.low, high: interval.high };
        blocks(range)
            .into_iter()
            .map(move |(port, bits)| (PortKey::block(list, interval.protocol, port, bits), value))
    })
}

/// The aligned blocks of powers of two that make up a range: (first port, free bits).
fn blocks(range: PortRange) -> Vec<(u16, u32)> {
    let mut blocks = Vec::new();
    let (mut low, end) = (u32::from(range.low), u32::from(range.high) + 1);
    while low < end {
        let alignment = if low == 0 { 16 } else { low.trailing_zeros() };
        let size = (end - low).ilog2();
        let bits = alignment.min(size);
        blocks.push((u16::try_from(low).expect("below the end of a range of ports"), bits));
        low += 1 << bits;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_a_range_exactly() {
        for (low, high) in
            [(0, 65535), (1, 65535), (80, 80), (0, 0), (1000, 2000), (32768, 61000), (65535, 65535)]
        {
            let mut covered = Vec::new();
            for (port, bits) in blocks(PortRange { low, high }) {
                covered.extend(u32::from(port)..u32::from(port) + (1 << bits));
            }
            let expected: Vec<u32> = (u32::from(low)..=u32::from(high)).collect();
            assert_eq!(covered, expected, "{low}-{high}");
        }
    }
}
