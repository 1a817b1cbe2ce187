//! What was promised, and the worst that this run saw of it. Ratios of medians, net, within the run.

use crate::growth::Axis;
use crate::packets::{Row, limit};
use crate::report::Results;
use crate::wire::Filter;

/// A promise.
pub(crate) struct Bar {
    pub(crate) what: String,
    pub(crate) worst: String,
    pub(crate) place: String,
    pub(crate) holds: bool,
}

/// The greatest of some ratios against a limit.
fn bar(what: &str, limit: f64, found: impl Iterator<Item = (f64, String)>) -> Option<Bar> {
    let (worst, place) = found.max_by(|a, b| a.0.total_cmp(&b.0))?;
    let what = format!("{what} <= {limit}");
    Some(Bar { what, worst: format!("{worst:.2}"), place, holds: worst <= limit })
}

fn place(row: &Row) -> String {
    format!("{}, {}, {} ports, {} flows", row.case, row.peers, row.ports, row.flows)
}

/// Every promise that this run can judge.
pub(crate) fn bars(results: &Results) -> Vec<Bar> {
    let of = |cases: &'static [&'static str]| {
        let is_one = move |row: &&Row| !row.ipv6 && cases.iter().any(|c| row.case.starts_with(c));
        let rows = results.packets.iter().filter(is_one);
        rows.filter_map(|row| Some((row.ratio()?, place(row))))
    };
    let families = |is_told: fn(&Row) -> bool| {
        let rows = results.packets.iter().filter(move |row| row.ipv6 && is_told(row));
        rows.filter_map(|row| Some((row.ratio()?, place(row))))
    };
    let rates = results.rates.iter().filter(|rate| rate.wanted == 100).map(|rate| {
        (1.0 + rate.more_percent / 100.0, format!("{} flows, {:.0} a second", rate.flows, rate.reached))
    });
    let cidrs = results.growth.iter().filter(|p| p.axis == Axis::Cidrs && p.count == 10_000);
    [
        bar(
            "established and reply against `lean_est`",
            limit("established", false),
            of(&["established", "reply", "out: established"]),
        ),
        bar(
            "first packet, in and out, against `first_lru`",
            limit("first", false),
            of(&["first", "out: first"]),
        ),
        bar(
            "denied, in and out, against `parse_hash_lpm`",
            limit("denied", false),
            of(&["denied", "out: denied"]),
        ),
        bar(
            "instructions of an established packet against the fewest at any number of peers and ports",
            1.0,
            flat(results, |row| row.executed.instructions),
        ),
        bar("and lookups", 1.0, flat(results, |row| row.executed.lookups)),
        bar(
            "IPv6 against IPv4, established and denied",
            limit("", true),
            families(|row| !row.case.contains("first")),
        ),
        bar(
            "IPv6 against IPv4, first packet",
            limit("first", true),
            families(|row| row.case.contains("first")),
        ),
        bar("established with 100 revisions a second against none", 1.1, rates),
        bar("10,000 CIDRs enforced, ms", 500.0, cidrs.map(|p| (p.enforced_ms, "one policy".into()))),
    ]
    .into_iter()
    .flatten()
    .chain(wire(results))
    .collect()
}

/// What an established packet takes, against the fewest of its case at any number of peers and ports.
fn flat(results: &Results, of: fn(&Row) -> u32) -> impl Iterator<Item = (f64, String)> {
    let is_known = |row: &&Row| row.case.contains("established") || row.case.starts_with("reply");
    results.packets.iter().filter(is_known).map(move |row| {
        let same = |other: &&Row| other.case == row.case && other.ipv6 == row.ipv6;
        let fewest = results.packets.iter().filter(same).map(of).min().unwrap_or(1);
        (f64::from(of(row)) / f64::from(fewest), place(row))
    })
}

/// Established packets end to end, against no policy and against every other filter.
fn wire(results: &Results) -> Vec<Bar> {
    let cost = |row: &crate::wire::Row| row.costs["established"].median;
    let Some(none) = results.wire.first().map(cost) else { return Vec::new() };
    let named = |row: &crate::wire::Row| format!("{} rules", row.rules);
    let ours = || results.wire.iter().filter(|row| row.filter == Filter::Cellwall);
    let others = results.wire.iter().filter(|row| row.filter > Filter::Cellwall);
    let best = others.map(cost).fold(f64::INFINITY, f64::min);
    [
        bar(
            "established end to end against no policy",
            1.08,
            ours().map(|row| (cost(row) / none, named(row))),
        ),
        bar("and against the best other filter", 1.0, ours().map(|row| (cost(row) / best, named(row)))),
    ]
    .into_iter()
    .flatten()
    .collect()
}
