//! What changes of policy cost a connection that they do not concern.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::drive::Drive;
use crate::driver::{Driver, Program, Template};
use crate::objects::{self, Peers};
use crate::packets::{FLOWS, Scene};
use crate::rig::{Rig, Target};
use crate::sample::{Cost, cost};
use crate::world::World;

/// Packets of a run.
const PACKETS: u32 = 50_000;

/// Costs under so many revisions a second.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rate {
    pub(crate) wanted: u32,
    pub(crate) reached: f64,
    pub(crate) flows: u32,
    pub(crate) cost: Cost,
    /// How much more than without revisions, percent.
    pub(crate) more_percent: f64,
}

/// Changes the policy of another pod until told to stop; where grace periods leave no time for a change, the revision
/// changes nothing.
fn change(world: &mut World, rate: u32, stop: &AtomicBool, count: &AtomicU32) -> Result<()> {
    if rate == 0 {
        return Ok(());
    }
    let pause = Duration::from_secs(1) / rate;
    let (mut due, mut changes) = (Instant::now(), 0);
    while !stop.load(Relaxed) {
        if due.elapsed() > pause {
            world.flip()?;
        } else {
            changes += 1;
            let port = 2000 + 10 * (changes % 2);
            world.tell(objects::policy("busy", Target::Other.name(), Peers::Blocks(1), port, 1))?;
            world.converge()?;
        }
        count.fetch_add(1, Relaxed);
        due += pause;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// Nanoseconds a packet on average over `window`: the packets that meet a revision count as the others do.
fn average(driver: &mut Driver, template: &Template, window: Duration) -> Result<f64> {
    let (start, mut took, mut runs) = (Instant::now(), Duration::ZERO, 0);
    while start.elapsed() < window {
        took += driver.run(template, PACKETS)?.0;
        runs += 1;
        // Where nothing else wants this CPU it would not leave the kernel for long, and no grace period would end: there were
        // 3 revisions a second where 100 were wanted.
        std::thread::yield_now();
    }
    Ok(took.as_secs_f64() * 1e9 / f64::from(runs * PACKETS))
}

/// Measures established flows of `scene` under each rate, in turns.
pub(crate) fn measure(rig: &mut Rig, scene: &Scene, rounds: usize, window: Duration) -> Result<Vec<Rate>> {
    const RATES: [u32; 3] = [0, 10, 100];
    scene.establish(rig, Target::Isolated, true)?;
    let template = Rig::template(Target::Isolated, true, scene.is_v6);
    let mut rows = Vec::new();
    for flows in [1, 1000, FLOWS] {
        let drive = |program: Program| Drive { flags: 16, program: program.index(), ..scene.drive(flows) };
        let mut samples = [const { Vec::new() }; RATES.len()];
        let mut reached = [0.0; RATES.len()];
        let mut empty = f64::INFINITY;
        for _ in 0..rounds {
            rig.driver.set(&drive(Program::Empty))?;
            empty = empty.min(average(&mut rig.driver, &template, window / 4)?);
            rig.driver.set(&drive(Program::ToPod))?;
            for (i, rate) in RATES.into_iter().enumerate() {
                let (stop, count) = (AtomicBool::new(false), AtomicU32::new(0));
                let Rig { world, driver, .. } = &mut *rig;
                let start = Instant::now();
                let sample = std::thread::scope(|scope| {
                    let changes = scope.spawn(|| change(world, rate, &stop, &count));
                    let sample = average(driver, &template, window);
                    stop.store(true, Relaxed);
                    changes.join().expect("changing does not panic").context("a revision")?;
                    sample
                })?;
                reached[i] = f64::from(count.load(Relaxed)) / start.elapsed().as_secs_f64();
                samples[i].push(sample);
            }
        }
        let costs = samples.map(|mut samples| cost(&mut samples));
        let net = |cost: Cost| Cost { min: cost.min - empty, median: cost.median - empty };
        for (i, wanted) in RATES.into_iter().enumerate() {
            let cost = net(costs[i]);
            let more_percent = (cost.median / net(costs[0]).median - 1.0) * 100.0;
            println!(
                "  {wanted:>4} revisions a second ({:.0}), {flows} flows: {:.1} ns ({more_percent:+.1} %)",
                reached[i], cost.min
            );
            rows.push(Rate { wanted, reached: reached[i], flows, cost, more_percent });
        }
    }
    Ok(rows)
}
