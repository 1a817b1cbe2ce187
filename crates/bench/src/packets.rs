//! What a packet costs: the cases, for one state of policies.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::drive::Drive;
use crate::driver::Program;
use crate::objects::Peers;
use crate::rig::{FIRST_PORT, Rig, Target};
use crate::sample::{Before, Case, Cost, NEXT, SHOT};

/// Flows of the largest case.
pub(crate) const FLOWS: u32 = 50_000;
const SYN: u32 = 2;
const ACK: u32 = 16;

/// A state of policies and the family of the packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub(crate) peers: Peers,
    pub(crate) ports: u16,
    pub(crate) is_v6: bool,
}

/// A measured case.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) peers: String,
    pub(crate) ports: u16,
    pub(crate) ipv6: bool,
    pub(crate) flows: u32,
    /// Net nanoseconds of the shipped program.
    pub(crate) ours: Cost,
    /// The floor and its net nanoseconds; IPv6 has none.
    pub(crate) floor: Option<(&'static str, Cost)>,
}

impl Row {
    /// How much the shipped program costs of what the floor does.
    pub(crate) fn ratio(&self) -> Option<f64> {
        self.floor.map(|(_, floor)| self.ours.min / floor.min)
    }
}

impl Scene {
    pub(crate) fn drive(&self, flows: u32) -> Drive {
        Drive {
            next: 0,
            flows,
            peers: self.peers.count(),
            first_peer: 0,
            ports: self.ports.into(),
            first_port: FIRST_PORT.into(),
            flags: SYN,
            opened_by_peer: 1,
            to_pod: 1,
            program: 0,
        }
    }

    fn row(
        &self,
        rig: &mut Rig,
        rounds: usize,
        name: &'static str,
        case: &Case<'_>,
    ) -> Result<Row> {
        let mut costs: BTreeMap<Program, Cost> = case.measure(rig, rounds)?;
        let ours = case.programs[0];
        let row = Row {
            case: name,
            peers: format!("{:?}", self.peers),
            ports: self.ports,
            ipv6: self.is_v6,
            flows: case.drive.flows,
            ours: costs.remove(&ours).expect("it was measured"),
            floor: costs.into_iter().next().map(|(floor, cost)| (floor.name(), cost)),
        };
        println!(
            "  {name:<22} {:>14} peers {:>3} ports {:>6} flows v{}  ours {:7.1} ({:7.1})  floor {:>7} ratio {}",
            row.peers,
            row.ports,
            row.flows,
            if row.ipv6 { 6 } else { 4 },
            row.ours.min,
            row.ours.median,
            row.floor.map_or("-".into(), |(_, cost)| format!("{:.1}", cost.min)),
            row.ratio().map_or("-".into(), |ratio| format!("{ratio:.2}")),
        );
        Ok(row)
    }

    /// The shipped program and, where it can be compared, a floor.
    fn programs(&self, ours: Program, floor: Program) -> Vec<Program> {
        if self.is_v6 { vec![ours] } else { vec![ours, floor] }
    }

    /// All cases of one direction of opening at one pod.
    pub(crate) fn measure(&self, rig: &mut Rig, target: Target, rounds: usize) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let isolated = target == Target::Isolated;
        rig.forget_all(self.is_v6)?;
        let in_ = Rig::template(target, true, self.is_v6);
        let out = Rig::template(target, false, self.is_v6);
        let first = Case {
            target,
            template: &in_,
            drive: self.drive(FLOWS),
            packets: FLOWS,
            before: Before::Forget,
            verdict: NEXT,
            programs: self.programs(Program::ToPod, Program::FirstLru),
        };
        let name = if isolated { "first" } else { "first, not isolated" };
        rows.push(self.row(rig, rounds, name, &first)?);

        self.establish(rig, target)?;
        let names = if isolated { ["established", "reply"] } else { ["established, open", "reply, open"] };
        for (name, template, program) in
            [(names[0], &in_, Program::ToPod), (names[1], &out, Program::FromPod)]
        {
            for flows in [1, 1000, FLOWS] {
                let to_pod = u32::from(program == Program::ToPod);
                let case = Case {
                    target,
                    template,
                    drive: Drive { flags: ACK, to_pod, ..self.drive(flows) },
                    packets: FLOWS,
                    before: Before::Nothing,
                    verdict: NEXT,
                    programs: self.programs(program, Program::LeanEst),
                };
                if !self.is_v6 {
                    rig.driver.connect(template, &Drive { flows: FLOWS, ..case.drive })?;
                }
                rows.push(self.row(rig, rounds, name, &case)?);
            }
        }
        if isolated {
            let unlisted = Drive { first_peer: self.peers.count(), ..self.drive(FLOWS) };
            let unopened = Drive { first_port: u32::from(FIRST_PORT) + 1, ..self.drive(FLOWS) };
            for (name, drive) in [("denied by peer", unlisted), ("denied by port", unopened)] {
                let case = Case {
                    target,
                    template: &in_,
                    drive,
                    packets: FLOWS,
                    before: Before::Drain,
                    verdict: SHOT,
                    programs: self.programs(Program::ToPod, Program::ParseHashLpm),
                };
                rows.push(self.row(rig, rounds, name, &case)?);
            }
        }
        Ok(rows)
    }

    /// Uses the tables of connections, of both sides, so that free rows are in no order.
    pub(crate) fn age(&self, rig: &mut Rig) -> Result<()> {
        rig.enforce(self.peers, self.ports)?;
        for _ in 0..2 {
            self.establish(rig, Target::Isolated)?;
            if !self.is_v6 {
                let template = Rig::template(Target::Isolated, true, false);
                rig.driver.connect(&template, &self.drive(FLOWS))?;
            }
        }
        rig.forget_all(self.is_v6)
    }

    /// Makes every flow of the series an answered connection of the shipped programs, by its handshake.
    pub(crate) fn establish(&self, rig: &mut Rig, target: Target) -> Result<()> {
        rig.forget_all(self.is_v6)?;
        for start in (0..FLOWS).step_by(4000) {
            let steps = [(SYN, 1, Program::ToPod), (SYN | ACK, 0, Program::FromPod), (ACK, 1, Program::ToPod)];
            rig.refill(target)?;
            for (flags, to_pod, program) in steps {
                let template = Rig::template(target, to_pod == 1, self.is_v6);
                let drive =
                    Drive { next: start, flags, to_pod, program: program as u32, ..self.drive(FLOWS) };
                rig.driver.set(&drive)?;
                rig.driver.run(&template, (FLOWS - start).min(4000))?;
            }
        }
        let established = rig.established(self.is_v6);
        ensure!(established == FLOWS as usize, "{established} of {FLOWS} connections were answered");
        Ok(())
    }
}
