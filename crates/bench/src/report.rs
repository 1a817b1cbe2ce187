//! The results as a page, and as JSON beside it.

use std::fmt::Write as _;

use serde::Serialize;

use crate::bars::{Bar, bars};
use crate::growth::{Axis, Point, line};
use crate::machine::Machine;
use crate::memory::Table;
use crate::packets::Row;
use crate::program::Loaded;
use crate::revisions::Rate;
use crate::sample::Cost;
use crate::wire;

/// Everything that a run measured.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) programs: Vec<Loaded>,
    pub(crate) tables: Vec<Table>,
    pub(crate) packets: Vec<Row>,
    pub(crate) rates: Vec<Rate>,
    pub(crate) wire: Vec<wire::Row>,
    pub(crate) growth: Vec<Point>,
}

impl Results {
    /// Nothing measured yet.
    pub(crate) fn new(machine: Machine) -> Self {
        let (programs, tables, packets, rates) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { machine, programs, tables, packets, rates, wire: Vec::new(), growth: Vec::new() }
    }

    /// The page.
    pub(crate) fn page(&self) -> String {
        let mut page = String::from("# What it costs\n\n");
        page.push_str(
            "Written by `make bench`; do not edit. Times hold for this machine; what is compared is compared within \
             this run.\n\n",
        );
        page.push_str(&self.machine.text());
        self.bars(&mut page);
        self.programs(&mut page);
        self.tables(&mut page);
        self.packets(&mut page);
        self.rates(&mut page);
        self.wire(&mut page);
        self.growth(&mut page);
        page
    }

    fn bars(&self, page: &mut String) {
        page.push_str(
            "## Bars\n\nWhy one is missed and what was tried: [ARCHITECTURE.md](../ARCHITECTURE.md#performance). Of 50,000 \
             flows nearly every packet is the first of its flow in its revision at 100 a second, so that case says what \
             it costs to meet a revision. IPv6 has no floors: it is compared with the same packets of IPv4, in turns. What was \
             above its bar was measured twice more; all three ratios are told, and the middle one counts.\n\n",
        );
        page.push_str("| bar | worst | where | holds |\n|---|---|---|---|\n");
        for Bar { what, worst, place, holds } in bars(self) {
            let holds = if holds { "yes" } else { "**no**" };
            let _ = writeln!(page, "| {what} | {worst} | {place} | {holds} |");
        }
    }

    fn programs(&self, page: &mut String) {
        page.push_str(
            "\n## Programs\n\nLoading: verifying and translating all, from the object to pins.\n\n\
             | program | instructions verified | ms verifying and translating | bytes translated | bytes of machine code |\n\
             |---|---|---|---|---|\n",
        );
        for p in &self.programs {
            let _ = writeln!(
                page,
                "| {} | {} | {:.0} | {} | {} |",
                p.name, p.verified, p.alone_ms, p.translated, p.machine_code
            );
        }
        if let Some(p) = self.programs.first() {
            let _ = writeln!(page, "\nAll were loaded, and the tables made, in {:.0} ms.", p.load_ms);
        }
    }

    fn tables(&self, page: &mut String) {
        if self.tables.is_empty() {
            return;
        }
        page.push_str(
            "\n## Tables\n\nWhat the kernel sets aside at default capacities before anything is in them; what is \
             allocated row by row grows (below).\n\n| table | rows | KiB |\n|---|---|---|\n",
        );
        for table in &self.tables {
            let _ = writeln!(page, "| {} | {} | {} |", table.name, table.rows, table.bytes / 1024);
        }
        let sum: u64 = self.tables.iter().map(|table| table.bytes).sum();
        let _ = writeln!(page, "| all | | {} |", sum / 1024);
    }

    fn packets(&self, page: &mut String) {
        page.push_str(
            "\n## A packet through `BPF_PROG_TEST_RUN`\n\n\
             Net nanoseconds a packet: what an empty program behind the same driver costs is taken off. Minimum of the \
             samples, and in brackets their median; ratios are of medians. The floor is the least that a program can do for the case; \
             of what a pod sends first, or is denied to send, it gets the packets of the other way, since it looks for the source. \
             Instructions as compiled, executed by a machine of the benchmark's own over the same tables; lookups are calls \
             of `bpf_map_lookup_elem`, those of arrays included; both of the flow that takes most.\n\n\
             | case | peers | ports | flows | IPv | cellwall | floor | | ratio | instructions | lookups |\n\
             |---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for row in &self.packets {
            let family = if row.ipv6 { 6 } else { 4 };
            let floor = row.floor.map_or("| ".into(), |(name, cost)| format!("{name} | {}", both(cost)));
            let ratio = match row.ratios[..] {
                [first, _, ..] => {
                    let all: Vec<_> = row.ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
                    format!("{:.2} of {}", row.ratio().unwrap_or(first), all.join(", "))
                }
                [ratio] => format!("{ratio:.2}"),
                [] => String::new(),
            };
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} | {family} | {} | {floor} | {ratio} | {} | {} |",
                row.case,
                row.peers,
                row.ports,
                row.flows,
                both(row.ours),
                row.executed.instructions,
                row.executed.lookups
            );
        }
    }

    fn rates(&self, page: &mut String) {
        page.push_str(
            "\n## While policies change\n\n\
             A policy of another pod changes so many times a second: compiled, planned, written, with its grace periods; \
             where these leave no time, a revision changes nothing. Net nanoseconds of an established packet \
             meanwhile.\n\n\
             | revisions a second, wanted | there were | flows | cellwall | against none |\n|---|---|---|---|---|\n",
        );
        for rate in &self.rates {
            let _ = writeln!(
                page,
                "| {} | {:.0} | {} | {} | {:+.1} % |",
                rate.wanted,
                rate.reached,
                rate.flows,
                both(rate.cost),
                rate.more_percent
            );
        }
    }

    fn wire(&self, page: &mut String) {
        if self.wire.is_empty() {
            return;
        }
        page.push_str(
            "\n## End to end\n\n\
             Client namespace, node namespace that forwards, pod namespace; CPU nanoseconds of the thread that sends, \
             in which everything happens. In brackets against no policy. 60-byte datagrams over 1,000 flows; `tcp \
             connect` is a connection with a byte each way and a reset, `tcp ping-pong` a byte there and back.\n\n\
             nftables and iptables drop before the last veth and cellwall at its end: their denied packets \
             travel less.\n\n",
        );
        let cases: Vec<&str> =
            self.wire.first().map(|row| row.costs.keys().copied().collect()).unwrap_or_default();
        let _ = writeln!(page, "| filter | rules | {} |", cases.join(" | "));
        let _ = writeln!(page, "|---|---{}|", "|---".repeat(cases.len()));
        let none = &self.wire[0];
        for row in &self.wire {
            let cells = cases.iter().map(|case| {
                let Some(cost) = row.costs.get(case) else { return String::new() };
                let more = cost.median / none.costs[case].median - 1.0;
                format!("{:.0} ({:+.1} %)", cost.median, more * 100.0)
            });
            let cells: Vec<String> = cells.collect();
            let _ = writeln!(page, "| {} | {} | {} |", row.filter.name(), row.rules, cells.join(" | "));
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "KiB of a machine's memory are exact in an f64")]
    fn growth(&self, page: &mut String) {
        page.push_str(
            "\n## What grows\n\n\
             From objects as JSON until they are enforced, each point in a process of its own (fastest of three): \
             decoding, compiling, planning, writing with grace periods. Then one more. VmRSS is that of the whole process: what \
             the agent holds of objects, compiled state and rows, and none of its servers and watches.\n\n\
             | axis | count | enforced ms | compile | plan | write | one more, ms | process KiB | VmRSS KiB | tables KiB |\n\
             |---|---|---|---|---|---|---|---|---|---|\n",
        );
        for p in &self.growth {
            let _ = writeln!(
                page,
                "| {:?} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {} | {} |",
                p.axis,
                p.count,
                p.enforced_ms,
                p.compile_ms,
                p.plan_ms,
                p.write_ms,
                p.change_ms,
                p.process_kib,
                p.resident_kib,
                p.tables_kib
            );
        }
        page.push_str("\nLines through these points by least squares:\n\n");
        page.push_str("| axis | enforced | one more | process | tables |\n|---|---|---|---|---|\n");
        for axis in [Axis::Cidrs, Axis::Rules, Axis::Pods] {
            let points: Vec<&Point> = self.growth.iter().filter(|p| p.axis == axis).collect();
            if points.len() < 2 {
                continue;
            }
            let fit = |of: fn(&Point) -> f64| {
                line(&points.iter().map(|p| (f64::from(p.count), of(p))).collect::<Vec<_>>())
            };
            let (time, change) = (fit(|p| p.enforced_ms), fit(|p| p.change_ms));
            let (process, tables) = (fit(|p| p.process_kib as f64), fit(|p| p.tables_kib as f64));
            let _ = writeln!(
                page,
                "| {axis:?} | {:.1} ms + {:.1} us each | {:.1} ms + {:.1} us each | {:.0} B each | {:.0} B each |",
                time.0,
                time.1 * 1e3,
                change.0,
                change.1 * 1e3,
                process.1 * 1024.0,
                tables.1 * 1024.0
            );
        }
    }
}

fn both(cost: Cost) -> String {
    format!("{:.1} ({:.1})", cost.min, cost.median)
}
