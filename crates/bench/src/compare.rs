//! Other builds of the kernel object beside the shipped one: what a change is worth, before it is made.

use std::path::PathBuf;

use anyhow::Result;

use crate::drive::Drive;
use crate::driver::Program;
use crate::objects::Peers;
use crate::packets::{ACK, FLOWS, Scene};
use crate::rig::{self, FIRST_PORT, Rig, Target};
use crate::rights;
use crate::run::apart;
use crate::sample::{Before, Case, NEXT, SHOT};

const ROUNDS: usize = 21;

/// Measures the cases at a pod's ingress with every build, in turns, and prints them.
pub(crate) fn run(objects: &[PathBuf]) -> Result<()> {
    apart(|settings| {
        let namespace = rig::namespace()?;
        namespace.enter()?;
        rights::drop_to_shipped()?;
        let pins = settings.folder();
        let mut rig = Rig::open(settings)?;
        let mut builds = vec![Program::ToPod];
        for (number, object) in (0..).zip(objects) {
            rig.driver.add(number, object, &pins)?;
            builds.push(Program::Other(number));
        }
        for (peers, ports) in [(1, 1), (1000, 1), (10_000, 1), (100, 50)] {
            let scene = Scene { peers: Peers::Blocks(peers), ports, is_v6: false };
            if peers == 1 {
                scene.age(&mut rig)?;
            }
            rig.enforce(scene.peers, ports)?;
            println!("{peers} peers, {ports} ports");
            cases(&mut rig, &scene, &builds)?;
        }
        Ok(())
    })
}

fn cases(rig: &mut Rig, scene: &Scene, builds: &[Program]) -> Result<()> {
    let target = Target::Isolated;
    let template = Rig::template(target, true, false);
    let all = scene.drive(FLOWS);
    let unlisted = Drive { first_peer: scene.peers.count(), ..all };
    let unopened = Drive { first_port: u32::from(FIRST_PORT) + 1, ..all };
    let known = Drive { flags: ACK, ..scene.drive(1000) };
    rig.forget_all(false)?;
    for (name, drive, before, verdict, floor) in [
        ("first", all, Before::Forget, NEXT, Program::FirstLru),
        ("established", known, Before::Nothing, NEXT, Program::LeanEst),
        ("denied by peer", unlisted, Before::Drain, SHOT, Program::ParseHashLpm),
        ("denied by port", unopened, Before::Drain, SHOT, Program::ParseHashLpm),
    ] {
        if floor == Program::LeanEst {
            scene.establish(rig, target, true)?;
            rig.driver.connect(&template, &Drive { flows: FLOWS, ..drive })?;
        }
        let programs = builds.iter().copied().chain([floor]).collect();
        let case = Case {
            target,
            template: &template,
            drive,
            packets: FLOWS,
            before,
            verdict,
            programs,
            floor: None,
            beside: None,
        };
        let (costs, _) = case.measure(rig, ROUNDS)?;
        print!("  {name:<16} {} {:6.1}", floor.name(), costs[&floor].median);
        for build in builds {
            let cost = costs[build];
            print!("  {:6.1} ({:.2})", cost.median, cost.median / costs[&floor].median);
        }
        println!();
    }
    Ok(())
}
