//! Samples of several programs, taken in turns, and what is made of them.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::drive::Drive;
use crate::driver::{Program, Template};
use crate::rig::{Rig, Target};

/// Verdicts of programs.
pub(crate) const NEXT: i32 = -1;
pub(crate) const SHOT: i32 = 2;

/// Packets of a run that each add a connection or an event: fewer than a pod may add in a tick, or than the ring
/// takes, since a write into a full one is cheaper.
const AT_ONCE: u32 = 4000;
/// Packets that are looked at one by one after a case.
const CHECKED: u32 = 64;

/// What has to be done before every sample, so that its packets meet what the first ones met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// Nothing: the packets change nothing.
    Nothing,
    /// Unanswered connections are forgotten; the packets add new ones.
    Forget,
    /// Events are taken.
    Drain,
}

/// A case: a series of packets, and the programs that it is sent through.
pub(crate) struct Case<'a> {
    pub(crate) target: Target,
    pub(crate) template: &'a Template,
    pub(crate) drive: Drive,
    /// Packets of a sample.
    pub(crate) packets: u32,
    pub(crate) before: Before,
    pub(crate) verdict: i32,
    pub(crate) programs: Vec<Program>,
    /// The packets that the floor gets instead, which looks for the peer in the source.
    pub(crate) floor: Option<(&'a Template, Drive)>,
    /// The same packets of the other family: the first program gets both, in turns.
    pub(crate) beside: Option<&'a Template>,
}

/// What the programs of a case cost, and what the first one does with the packets beside them.
pub(crate) type Costs = (BTreeMap<Program, Cost>, Option<Cost>);

/// Nanoseconds a packet, the empty program's taken off.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Cost {
    pub(crate) min: f64,
    pub(crate) median: f64,
}

impl Case<'_> {
    /// Takes `rounds` samples of every program, in turns, and takes the empty program's off.
    pub(crate) fn measure(&self, rig: &mut Rig, rounds: usize) -> Result<Costs> {
        let beside = self.beside.map(|template| Case {
            template,
            programs: vec![self.programs[0]],
            floor: None,
            beside: None,
            ..*self
        });
        let (mut own, mut others) = (Samples::new(), Samples::new());
        for round in 0..=rounds {
            // The first round warms up.
            let counts = round > 0;
            self.turn(rig, counts, &mut own)?;
            beside.as_ref().map_or(Ok(()), |case| case.turn(rig, counts, &mut others))?;
        }
        // A floor does the work of a verdict, and gives none.
        self.check(rig, self.programs[0])?;
        let other = match &beside {
            Some(case) => {
                case.check(rig, case.programs[0])?;
                net(others).into_values().next()
            }
            None => None,
        };
        Ok((net(own), other))
    }

    /// A sample of every program, one after the other.
    fn turn(&self, rig: &mut Rig, counts: bool, samples: &mut Samples) -> Result<()> {
        for program in std::iter::once(Program::Empty).chain(self.programs.iter().copied()) {
            let sample = self.sample(rig, program)?;
            if counts {
                samples.entry(program).or_default().push(sample);
            }
        }
        Ok(())
    }

    /// One sample: nanoseconds a packet.
    fn sample(&self, rig: &mut Rig, program: Program) -> Result<f64> {
        self.prepare(rig, program)?;
        let is_floor = matches!(program, Program::FirstLru | Program::ParseHashLpm);
        let (template, drive) = self.floor.filter(|_| is_floor).unwrap_or((self.template, self.drive));
        rig.driver.set(&Drive { program: program.index(), ..drive })?;
        let at_once = if self.before == Before::Nothing { self.packets } else { AT_ONCE };
        let (mut left, mut took) = (self.packets, std::time::Duration::ZERO);
        while left > 0 {
            let packets = left.min(at_once);
            match self.before {
                Before::Nothing => {}
                Before::Forget => rig.refill(self.target)?,
                Before::Drain => _ = rig.drain(),
            }
            took += rig.driver.run(template, packets)?.0;
            left -= packets;
        }
        Ok(took.as_secs_f64() * 1e9 / f64::from(self.packets))
    }

    pub(crate) fn prepare(&self, rig: &mut Rig, program: Program) -> Result<()> {
        match self.before {
            Before::Nothing => {}
            Before::Forget if program == Program::Empty => {}
            Before::Forget if program == Program::FirstLru => {
                rig.driver.forget_first()?;
            }
            Before::Forget => {
                rig.forget_pending(self.template.is_v6)?;
            }
            Before::Drain => {
                rig.drain();
            }
        }
        Ok(())
    }

    /// Sends some packets one by one: each must be told what the case is about.
    fn check(&self, rig: &mut Rig, program: Program) -> Result<()> {
        self.prepare(rig, program)?;
        rig.driver.set(&Drive { program: program.index(), ..self.drive })?;
        for packet in 0..CHECKED {
            let verdict = rig.driver.run(self.template, 1)?.1;
            ensure!(
                verdict == self.verdict,
                "packet {packet} through {} was told {verdict}, expected {}: {:?}",
                program.name(),
                self.verdict,
                self.drive
            );
        }
        Ok(())
    }
}

type Samples = BTreeMap<Program, Vec<f64>>;

/// Costs without the empty program's.
fn net(samples: Samples) -> BTreeMap<Program, Cost> {
    let costs: BTreeMap<Program, Cost> =
        samples.into_iter().map(|(program, mut samples)| (program, cost(&mut samples))).collect();
    let empty = costs[&Program::Empty];
    let net = |cost: Cost| Cost { min: cost.min - empty.min, median: cost.median - empty.median };
    costs.into_iter().filter(|(p, _)| *p != Program::Empty).map(|(p, c)| (p, net(c))).collect()
}

pub(crate) fn cost(samples: &mut [f64]) -> Cost {
    samples.sort_by(f64::total_cmp);
    Cost { min: samples[0], median: samples[samples.len() / 2] }
}
