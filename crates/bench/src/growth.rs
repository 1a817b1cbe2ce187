//! What grows with what: time from an object to its being enforced, and memory, against peers, rules and pods. Every
//! point is a process of its own, so that its memory is that of its point.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cellwall_abi::Mac;
use cellwall_datapath::{Settings, memory};
use cellwall_testkit::frame::POD_MAC;
use serde::{Deserialize, Serialize};

use crate::objects::{self, NODE, Peers};
use crate::rig::Target;
use crate::world::World;

/// What is made more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub(crate) enum Axis {
    /// Blocks of one policy.
    Cidrs,
    /// Policies of one rule each, with a block and a port of its own.
    Rules,
    /// Pods of other nodes that a policy selects.
    Pods,
}

/// What a point is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) axis: Axis,
    pub(crate) count: u32,
    /// From the objects as JSON until all of them are enforced, milliseconds.
    pub(crate) enforced_ms: f64,
    /// Of which compiling.
    pub(crate) compile_ms: f64,
    /// Of which planning.
    pub(crate) plan_ms: f64,
    /// Of which writing, grace periods included.
    pub(crate) write_ms: f64,
    /// Then one object more, or one block more, until it is enforced.
    pub(crate) change_ms: f64,
    /// Memory of the process that came with the objects, KiB.
    pub(crate) process_kib: u64,
    /// Memory of the whole process then (VmRSS), KiB.
    pub(crate) resident_kib: u64,
    /// Memory of the tables that came with the objects, KiB.
    pub(crate) tables_kib: u64,
}

/// Tells `world` of `count` on an axis.
fn tell(world: &mut World, axis: Axis, count: u32) -> Result<()> {
    match axis {
        Axis::Cidrs => world.tell(objects::policy("measured", "isolated", Peers::Blocks4(count), 1000, 1)),
        Axis::Rules => (0..count).try_for_each(|n| world.tell(objects::rule(n))),
        Axis::Pods => {
            world.tell(objects::policy("measured", "isolated", Peers::Pods(count), 1000, 1))?;
            (0..count).try_for_each(|n| world.tell(objects::peer_pod(n)))
        }
    }
}

/// One thing more.
fn one_more(world: &mut World, axis: Axis, count: u32) -> Result<()> {
    match axis {
        Axis::Cidrs => tell(world, axis, count + 1),
        Axis::Rules => world.tell(objects::rule(count)),
        Axis::Pods => world.tell(objects::peer_pod(count)),
    }
}

/// Measures a point in this process.
pub(crate) fn point(axis: Axis, count: u32, settings: &Settings) -> Result<Point> {
    let mut world = World::open(settings.clone())?;
    let target = Target::Isolated;
    world.tell(objects::namespace())?;
    world.tell(objects::pod("isolated", "isolated", NODE, &target.addresses()))?;
    world.link(target.ifindex(), &target.addresses(), Mac::from_octets(POD_MAC));
    world.converge()?;
    let (process, tables) = (resident()?, memory(settings)?);
    let start = Instant::now();
    tell(&mut world, axis, count)?;
    let took = world.converge()?;
    let enforced = start.elapsed();
    let resident_kib = resident()?;
    let process_kib = resident_kib.saturating_sub(process);
    let tables_kib = memory(settings)?.saturating_sub(tables) / 1024;
    let start = Instant::now();
    one_more(&mut world, axis, count)?;
    ensure!(world.converge()?.writes > 0, "one more changed nothing");
    let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
    Ok(Point {
        axis,
        count,
        enforced_ms: ms(enforced),
        compile_ms: ms(took.compile),
        plan_ms: ms(took.plan),
        write_ms: ms(took.write),
        change_ms: ms(start.elapsed()),
        process_kib,
        resident_kib,
        tables_kib,
    })
}

/// Memory of this process that is in RAM.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

/// Measures every axis at these counts.
pub(crate) fn all(counts: &[u32]) -> Result<Vec<Point>> {
    let mut points: Vec<Point> = Vec::new();
    for axis in [Axis::Cidrs, Axis::Rules, Axis::Pods] {
        for count in counts {
            points.push(measure(axis, *count)?);
        }
    }
    Ok(points)
}

/// Measures a point in a process of its own, three times; the fastest.
fn measure(axis: Axis, count: u32) -> Result<Point> {
    let mut best: Option<Point> = None;
    for _ in 0..3 {
        let name = format!("{axis:?}").to_lowercase();
        let output = Command::new(std::env::current_exe()?)
            .args(["point", &name, &count.to_string()])
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "a point of {count} {name} failed");
        let point: Point = serde_json::from_slice(&output.stdout)?;
        if best.as_ref().is_none_or(|best| point.enforced_ms < best.enforced_ms) {
            best = Some(point);
        }
    }
    best.context("there was a first")
}

/// The straight line through points by least squares: what there is at none, and what each more adds.
#[expect(clippy::cast_precision_loss, reason = "points are few")]
pub(crate) fn line(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let covariance: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let variance: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    let slope = covariance / variance;
    (y - slope * x, slope)
}
