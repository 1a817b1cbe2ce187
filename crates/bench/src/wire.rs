//! What a filter costs a packet that really travels, and a TCP client: every way to filter beside the others.

mod course;
mod filters;
mod packet_socket;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use cellwall_datapath::Settings;
use serde::Serialize;

use crate::driver::worked;
use crate::sample::{Cost, cost};
use course::{Course, KNOWN, Series, ping_pong, reset};
pub(crate) use filters::Filter;

/// Connections of a sample.
const CONNECTIONS: u32 = 50;
/// Bytes there and back of a sample.
const ROUND_TRIPS: u32 = 500;

/// What is measured of every filter.
const CASES: [&str; 6] = ["first", "established", "reply", "denied", "tcp connect", "tcp ping-pong"];

/// A filter with so many rules, and what the cases cost with it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) filter: Filter,
    pub(crate) rules: u32,
    /// CPU nanoseconds of the sending thread a packet, a connection, a round trip.
    pub(crate) costs: BTreeMap<&'static str, Cost>,
}

/// The ways to filter, each with so many rules.
fn courses(sizes: &[u32], settings: &Settings) -> Result<Vec<Course>> {
    let mut courses = Vec::new();
    for filter in [Filter::None, Filter::EmptyTcx, Filter::LeanEst] {
        courses.push(Course::new(filter, 1, settings)?);
    }
    for filter in [Filter::Cellwall, Filter::NftSet, Filter::Ipset, Filter::NftRules, Filter::Iptables] {
        for rules in sizes {
            courses.push(Course::new(filter, *rules, settings)?);
        }
    }
    Ok(courses)
}

/// Measures all filters, in turns.
pub(crate) fn measure(sizes: &[u32], rounds: usize, settings: &Settings) -> Result<Vec<Row>> {
    let mut courses = courses(sizes, settings)?;
    let mut samples: Vec<BTreeMap<&'static str, Vec<f64>>> = vec![BTreeMap::new(); courses.len()];
    for course in &courses {
        check(course)?;
    }
    for round in 0..=rounds {
        for (course, samples) in courses.iter_mut().zip(&mut samples) {
            for (case, sample) in sample(course, round)? {
                // The first round warms up.
                if round > 0 {
                    samples.entry(case).or_default().push(sample);
                }
            }
        }
    }
    let rows = courses.iter().zip(samples).map(|(course, samples)| Row {
        filter: course.filter,
        rules: course.rules,
        costs: samples.into_iter().map(|(case, mut samples)| (case, cost(&mut samples))).collect(),
    });
    Ok(rows.collect())
}

/// The series of first and of denied packets; `round` gives first packets new ports, and the next peers.
fn series(round: usize) -> (Series, Series) {
    let port = 2000 + u16::try_from(round % 50).expect("below 50") * 1000;
    let offset = u32::try_from(round).expect("rounds are few");
    (Series { first_port: port, offset, ..KNOWN }, Series { first_peer: 100_000, offset, ..KNOWN })
}

/// The right frames arrive and the others do not; leaves the connections of the established case answered.
fn check(course: &Course) -> Result<()> {
    let denied = series(0).1;
    let (there, back) = (course.frames(&KNOWN, true), course.frames(&KNOWN, false));
    course.refill()?;
    let before = course.received()?;
    course.send(&there, true)?;
    course.send(&back, false)?;
    course.send(&there, true)?;
    let arrived = course.received()? - before;
    ensure!(
        arrived >= 2 * u64::from(KNOWN.flows),
        "{} with {} rules: {arrived} of {} allowed frames arrived",
        course.filter.name(),
        course.rules,
        2 * KNOWN.flows
    );
    let before = course.received()?;
    course.send(&course.frames(&denied, true), true)?;
    let arrived = course.received()? - before;
    let denies = !matches!(course.filter, Filter::None | Filter::EmptyTcx);
    ensure!(
        (arrived == 0) == denies,
        "{} with {} rules: {arrived} denied frames arrived",
        course.filter.name(),
        course.rules
    );
    Ok(())
}

/// A sample of each case: nanoseconds each.
fn sample(course: &mut Course, round: usize) -> Result<Vec<(&'static str, f64)>> {
    let (new, denied) = series(round);
    course.refill()?;
    let mut samples = Vec::with_capacity(CASES.len());
    for (case, series, to_pod) in
        [(CASES[0], new, true), (CASES[1], KNOWN, true), (CASES[2], KNOWN, false), (CASES[3], denied, true)]
    {
        // The floor knows what it was told and nothing else.
        if course.filter == Filter::LeanEst && case != CASES[1] {
            continue;
        }
        let frames = course.frames(&series, to_pod);
        let took = timed(|| course.send(&frames, to_pod))?;
        samples.push((case, each(took, KNOWN.flows)));
    }
    if course.filter == Filter::LeanEst {
        return Ok(samples);
    }
    let sockets = course.sockets(CONNECTIONS)?;
    let took = timed(|| {
        for socket in sockets {
            let mut both = course.connect(socket)?;
            ping_pong(&mut both)?;
            reset(both)?;
        }
        Ok(())
    })?;
    samples.push((CASES[4], each(took, CONNECTIONS)));
    let socket = course.sockets(1)?.remove(0);
    let mut both = course.connect(socket)?;
    let took = timed(|| (0..ROUND_TRIPS).try_for_each(|_| ping_pong(&mut both)))?;
    samples.push((CASES[5], each(took, ROUND_TRIPS)));
    reset(both)?;
    course.drain();
    Ok(samples)
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = worked();
    work()?;
    Ok(worked().saturating_sub(start))
}

fn each(took: Duration, count: u32) -> f64 {
    took.as_secs_f64() * 1e9 / f64::from(count)
}
