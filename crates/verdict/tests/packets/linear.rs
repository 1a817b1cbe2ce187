//! Row A5 of docs/robustness.md: where the linear part of a packet ends.

use cellwall_policy::flow::Direction;
use cellwall_testkit::frame::{HOST_MAC, POD_MAC};
use cellwall_testkit::fuzz::{Class, Place, generate};
use cellwall_testkit::objects::Rng;
use cellwall_verdict::process;

use crate::world::{FAMILIES, NODES, World, frame};

/// Frames of each class and direction.
const FRAMES: usize = 200;

fn place() -> Place {
    let address = |text: &str| text.parse().expect("an address");
    Place {
        pod: FAMILIES.map(|[pod, ..]| address(pod)),
        remotes: [0, 1].map(|family| {
            let [_, friend, stranger] = FAMILIES[family];
            [friend, friend, stranger, NODES[family]].map(address).to_vec()
        }),
        pod_mac: POD_MAC,
        other_mac: HOST_MAC,
    }
}

/// Frames of every class, wherever their headers are divided: the same verdict, and the same rows ([`World::judge`]).
#[test]
fn headers_outside_the_linear_part_are_read_as_those_within() {
    let (mut passed, mut dropped) = ([0; 2], 0);
    for (family, mut world) in World::both().into_iter().enumerate() {
        for (seed, class) in (100..).zip([Class::ALL; 2].concat()) {
            if seed == 100 + Class::ALL.len() as u64 {
                world.allow_all();
            }
            for direction in Direction::ALL {
                world.memory.forget();
                let mut rng = Rng::new(seed);
                for _ in 0..FRAMES {
                    let bytes = generate(&mut rng, class, &place(), direction);
                    let is_of_family = bytes.get(12) != Some(&[0x86, 0x08][family]);
                    if bytes.len() < 14 || !is_of_family {
                        continue;
                    }
                    let whole = frame(&bytes, direction);
                    let ends = (0..bytes.len()).filter(|end| end % 4 == 2 || *end < 2 || *end == 33);
                    let verdicts: Vec<_> = ends
                        .map(|linear| {
                            let mut split = whole.clone();
                            split.linear = linear;
                            (linear, process(&split, &world.memory.clone(), direction))
                        })
                        .collect();
                    let verdict = world.judge(&whole, direction);
                    for (linear, found) in verdicts {
                        let is_same = found.passes() == verdict.passes()
                            && (found == verdict || !verdict.passes() && found.reason.is_drop());
                        assert!(is_same, "{class:?}, {linear} bytes linear: {found:?}, whole: {verdict:?}");
                    }
                    if verdict.passes() { passed[family] += 1 } else { dropped += 1 }
                }
            }
        }
    }
    println!("{passed:?} passed, {dropped} dropped, wherever they were divided");
    assert!(passed.iter().all(|passed| *passed > 200) && dropped > 1000, "{passed:?}, {dropped}");
}
