//! What the chart takes for the memory of the tables (`deploy/helm/cellwall/memory.yaml`) is what their types make of it, and
//! its capacities are the defaults.

use std::collections::BTreeMap;
use std::mem::size_of;

use cellwall_abi::{
    Addr6, Be32, Bucket, Chosen, ChosenKey4, ChosenKey6, ClassPair, Conn, EndpointRecord, FlowKey4, FlowKey6,
    Fragment, FragmentKey4, FragmentKey6, PolicyEntry, PolicyKey, PortKey, PortValue, ServiceKey4,
    ServiceKey6, ServiceRecord, Share, tables,
};

const MEMORY: &str = include_str!("../../../deploy/helm/cellwall/memory.yaml");
const VALUES: &str = include_str!("../../../deploy/helm/cellwall/values.yaml");

/// What the kernel adds to a row of a hash (`struct htab_elem`).
const ELEMENT: usize = 48;
/// `struct bucket`. The kernel has a power of two of them: as many as rows where the capacity is one, which the defaults
/// are, and up to twice as many where it is not.
const BUCKET: usize = 16;
/// Sizes that the kernel's allocator has.
const SLABS: [usize; 8] = [32, 64, 96, 128, 192, 256, 512, 1024];

/// Bytes of a row, when the table is full and from the start.
#[derive(Clone, Copy)]
struct Row {
    full: usize,
    start: usize,
}

/// Of a hash with all its rows from the start.
const fn ready<K, V>() -> Row {
    let bytes = BUCKET + ELEMENT + size_of::<K>().next_multiple_of(8) + size_of::<V>().next_multiple_of(8);
    Row { full: bytes, start: bytes }
}

/// Of a hash whose rows are made when they are needed, each with a pointer to the next free one.
fn made<K, V>() -> Row {
    Row { full: BUCKET + slab(ready::<K, V>().full - BUCKET + 8), start: BUCKET }
}

/// Of a longest-prefix table: a node has two children, the length of its prefix, and before 6.13 what its removal needs. As
/// many nodes again may join them.
fn trie<K, V>() -> Row {
    Row { full: 2 * slab(40 + size_of::<K>() + size_of::<V>()), start: 0 }
}

const fn array<V>(rows: usize) -> Row {
    Row { full: rows * size_of::<V>(), start: rows * size_of::<V>() }
}

fn slab(bytes: usize) -> usize {
    SLABS.into_iter().find(|slab| *slab >= bytes).expect("rows are small")
}

/// What each capacity makes, in the order of the files. Which tables follow it is `Settings::capacity` of the data path.
fn rows() -> [(&'static str, u32, Vec<Row>); 8] {
    [
        (
            "endpoints",
            tables::ENDPOINTS.capacity,
            vec![ready::<u32, u32>(), array::<EndpointRecord>(2), array::<Bucket>(1), array::<Share>(1)],
        ),
        (
            "addresses",
            tables::ADDRESSES4.capacity,
            vec![made::<Be32, u32>(), made::<Addr6, u32>(), array::<ClassPair>(2)],
        ),
        ("prefixes", tables::PREFIXES4.capacity, vec![trie::<Be32, ClassPair>(), trie::<Addr6, ClassPair>()]),
        ("policy", tables::POLICY.capacity, vec![made::<PolicyKey, PolicyEntry>()]),
        ("ports", tables::PORTS.capacity, vec![trie::<PortKey, PortValue>()]),
        (
            "services",
            tables::SERVICES4.capacity,
            vec![made::<ServiceKey4, u32>(), made::<ServiceKey6, u32>(), array::<ServiceRecord>(4)],
        ),
        ("flows", tables::FLOWS4.capacity, vec![ready::<FlowKey4, Conn>(), ready::<FlowKey6, Conn>()]),
        ("pending", tables::PENDING4.capacity, vec![ready::<FlowKey4, Conn>(), ready::<FlowKey6, Conn>()]),
    ]
}

/// The numbers below `section:` of a YAML file, by name.
fn section<'a>(text: &'a str, section: &str) -> BTreeMap<&'a str, usize> {
    let after = text.split(&format!("\n{section}:\n")).nth(1).expect("the section is there");
    let lines = after.lines().take_while(|line| line.starts_with("  "));
    let numbers = lines.filter(|line| !line.trim().starts_with('#'));
    numbers
        .map(|line| {
            let (name, number) = line.trim().split_once(": ").expect("a name and a number");
            (name, number.parse().expect("a number"))
        })
        .collect()
}

#[test]
fn the_chart_knows_what_a_row_takes() {
    for (state, bytes) in
        [("full", (|row: &Row| row.full) as fn(&Row) -> usize), ("start", |row: &Row| row.start)]
    {
        let wanted: BTreeMap<&str, usize> =
            rows().iter().map(|(name, _, rows)| (*name, rows.iter().map(bytes).sum())).collect();
        assert_eq!(section(MEMORY, state), wanted, "{state}");
    }
}

#[test]
fn the_chart_knows_what_follows_no_capacity() {
    let fragments = ready::<FragmentKey4, Fragment>().full + ready::<FragmentKey6, Fragment>().full;
    let chosen = ready::<ChosenKey4, Chosen>().full + ready::<ChosenKey6, Chosen>().full;
    let tables = fragments * tables::FRAGMENTS4.capacity as usize
        + chosen * tables::CHOSEN4.capacity as usize
        + tables::EVENTS.capacity as usize;
    let fixed = MEMORY.lines().find_map(|line| line.strip_prefix("fixedMiB: ")).expect("it is there");
    let room = fixed.parse::<usize>().expect("a number") << 20;
    // Programs, counters of every CPU, and what a page rounds up to.
    assert!((tables..tables + (4 << 20)).contains(&(room - (1 << 20))), "{tables} bytes, and {fixed} MiB");
}

#[test]
fn the_chart_has_the_defaults() {
    let wanted: BTreeMap<&str, usize> =
        rows().iter().map(|(name, capacity, _)| (*name, *capacity as usize)).collect();
    assert_eq!(section(VALUES, "capacities"), wanted);
}
