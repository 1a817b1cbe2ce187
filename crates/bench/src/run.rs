//! The parts of a run, one after the other.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cellwall_datapath::Settings;
use cellwall_testkit::bpffs;

use crate::growth::{self, Axis};
use crate::machine::Machine;
use crate::memory::{self, Table};
use crate::objects::Peers;
use crate::packets::{Row, Scene};
use crate::program::{self, Loaded};
use crate::report::Results;
use crate::revisions::{self, Rate};
use crate::rig::{self, Rig, Target};
use crate::{rights, wire};

const PAGE: &str = "benches/RESULTS.md";
const RAW: &str = "benches/results.json";

/// Runs `part` on a thread of its own, with its own view of the BPF file system.
pub(crate) fn apart<T: Send>(part: impl FnOnce(Settings) -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let bpffs = bpffs::private();
            part(Settings { bpffs, pin_name: "cellwall-bench".to_owned(), ..Settings::default() })
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    Packets,
    Wire,
    Growth,
}

/// Measures everything and writes the page; `quick`: fewer sizes and samples. Of one part alone only the bars are
/// printed.
pub(crate) fn run(quick: bool, part: Option<Part>) -> Result<()> {
    let command = if quick { "make bench QUICK=1" } else { "make bench" };
    let wanted = |one| part.is_none_or(|part| part == one);
    let mut results = Results::new(Machine::now(command));
    if wanted(Part::Packets) {
        (results.programs, results.tables, results.packets, results.rates) =
            apart(|settings| test_runs(settings, quick))?;
    }
    if wanted(Part::Wire) {
        let sizes: &[u32] = if quick { &[1, 1000] } else { &[1, 100, 1000, 10_000] };
        results.wire = apart(|settings| wire::measure(sizes, if quick { 7 } else { 15 }, &settings))?;
    }
    if wanted(Part::Growth) {
        results.growth = growth::all(if quick { &[100, 10_000] } else { &[1, 100, 1000, 3000, 10_000] })?;
    }
    results.machine.ended();
    if part.is_some() {
        println!("{}", results.page());
        return Ok(());
    }
    let folder = Path::new(PAGE).parent().context("a folder")?;
    std::fs::create_dir_all(folder)?;
    std::fs::write(PAGE, results.page())?;
    std::fs::write(RAW, serde_json::to_string(&results)?)?;
    println!("{PAGE} is written");
    Ok(())
}

/// Programs, tables, packets, and packets while policies change.
type TestRuns = (Vec<Loaded>, Vec<Table>, Vec<Row>, Vec<Rate>);

fn test_runs(settings: Settings, quick: bool) -> Result<TestRuns> {
    let namespace = rig::namespace()?;
    namespace.enter()?;
    rights::drop_to_shipped()?;
    let pins = settings.folder();
    let start = Instant::now();
    let mut rig = Rig::open(settings)?;
    let programs = program::loaded(&pins, start.elapsed())?;
    let tables = memory::tables(&pins)?;
    let rounds = if quick { 15 } else { 21 };
    let peers: &[u32] = if quick { &[1, 1000, 10_000] } else { &[1, 10, 100, 1000, 10_000] };
    let ports: &[u16] = if quick { &[50] } else { &[3, 10, 50] };
    let mut rows = Vec::new();
    for is_v6 in [false, true] {
        // Rows of a fresh table stand in the order in which they were added, and are read faster than they ever
        // will be again.
        Scene { peers: Peers::Blocks(1), ports: 1, is_v6 }.age(&mut rig)?;
        let blocks = peers.iter().map(|count| (Peers::Blocks(*count), 1));
        let ports = ports.iter().map(|ports| (Peers::Blocks(100), *ports));
        for (peers, ports) in blocks.chain(ports).collect::<Vec<_>>() {
            rig.enforce(peers, ports)?;
            let scene = Scene { peers, ports, is_v6 };
            rows.extend(scene.measure(&mut rig, Target::Isolated, rounds)?);
        }
    }
    let scene = Scene { peers: Peers::Blocks(1000), ports: 1, is_v6: false };
    rig.enforce(scene.peers, scene.ports)?;
    rows.extend(scene.measure(&mut rig, Target::Open, rounds)?);
    let window = Duration::from_millis(300);
    let rates = revisions::measure(&mut rig, &scene, if quick { 5 } else { 15 }, window)?;
    for count in if quick { &[1000][..] } else { &[1000, 10_000] } {
        let scene = Scene { peers: Peers::Pods(*count), ..scene };
        rig.enforce(scene.peers, scene.ports)?;
        rows.extend(scene.measure(&mut rig, Target::Isolated, rounds)?);
    }
    Ok((programs, tables, rows, rates))
}

/// One point of what grows, on standard output.
pub(crate) fn point(axis: Axis, count: u32) -> Result<()> {
    let point = apart(|settings| {
        let namespace = rig::namespace()?;
        namespace.enter()?;
        rights::drop_to_shipped()?;
        growth::point(axis, count, &settings)
    })?;
    println!("{}", serde_json::to_string(&point)?);
    Ok(())
}
