//! What the generator promises to those who use it.

use std::{collections::BTreeSet, time::Instant};

use cellwall_oracle::{Flow, Objects, Statements, decide, decide_service};
use cellwall_policy::flow::Decision;
use cellwall_testkit::objects::{
    changes, corpus, describe, failed_seeds, flows, generate, mutate, newer, read_flow, read_objects,
    service_flows, shrink, write_flow,
};
use serde_json::Value;

const SEEDS: u64 = 10_000;

#[test]
fn flows_are_many_distinct_and_of_all_answers() {
    let mut asked = 0;
    let mut allowed = 0;
    let mut both = 0;
    let mut deciding_ns = 0;
    let (mut to_services, mut allowed_to_services) = (0, 0);
    let mut clusters_with = [0_u64; 128];
    for seed in 0..SEEDS {
        let objects = generate(seed);
        let flows = flows(&objects);
        let distinct: BTreeSet<_> = flows.iter().collect();
        assert_eq!(distinct.len(), flows.len(), "seed {seed} asks twice");
        assert!(flows.len() >= 500, "seed {seed} has only {} flows", flows.len());
        let started = Instant::now();
        let rulings: Vec<_> = flows.iter().map(|flow| decide(&objects, flow)).collect();
        deciding_ns += started.elapsed().as_nanos();
        let allows = rulings.iter().filter(|ruling| ruling.decision == Decision::Allow).count();
        asked += flows.len();
        allowed += allows;
        both += u64::from(0 < allows && allows < flows.len());
        let services = service_flows(&objects);
        let services = services.iter().map(|f| decide_service(&objects, &f.flow, &f.frontend, f.chosen));
        let services: Vec<_> = services.collect();
        to_services += services.len();
        allowed_to_services += services.iter().filter(|ruling| ruling.decision == Decision::Allow).count();
        let rulings = rulings.iter().chain(&services);
        let noted = rulings.fold(Statements::default(), |all, ruling| all.union(ruling.statements));
        for (number, clusters) in (0..).zip(&mut clusters_with) {
            *clusters += u64::from(noted.contains(number));
        }
    }
    let share = 100 * allowed / asked;
    println!("{SEEDS} clusters, {} flows each", asked / usize::try_from(SEEDS).expect("a few"));
    println!("allowed {share} %, clusters with both answers {} %", 100 * both / SEEDS);
    println!("{to_services} to Services, {} % allowed", 100 * allowed_to_services / to_services);
    println!("{} ns a decision", deciding_ns / asked as u128);
    // S65 is about flows of no pod, which nobody needs to be asked about.
    let judged = (0..128).filter(|&number| Statements::JUDGED.contains(number) && number != 65);
    for number in judged {
        let clusters = clusters_with[usize::from(number)];
        println!(
            "S{number}: {}.{:02} % of the clusters",
            100 * clusters / SEEDS,
            10_000 * clusters / SEEDS % 100
        );
        assert!(clusters > 0, "S{number} is never exercised");
    }
    assert!((20..=80).contains(&share), "allowed {share} %");
    let share = 100 * allowed_to_services / to_services;
    assert!((20..=80).contains(&share), "allowed to Services {share} %");
}

#[test]
fn a_seed_is_one_cluster() {
    assert_eq!(generate(7), generate(7));
    assert_eq!(flows(&generate(7)), flows(&generate(7)));
    let all: BTreeSet<_> = (0..200).map(|seed| describe(&generate(seed))).collect();
    assert_eq!(all.len(), 200, "seeds differ");
}

#[test]
fn what_is_described_can_be_read_back() {
    for seed in 0..100 {
        let objects = generate(seed);
        let text = describe(&objects);
        let read = read_objects(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(read, objects, "seed {seed}\n{text}");
        for flow in flows(&objects) {
            assert_eq!(read_flow(&objects, &write_flow(&objects, &flow)), flow);
        }
    }
}

#[test]
fn objects_are_served_with_their_kinds() {
    let objects = generate(1);
    let values = objects.values();
    let kinds: Vec<_> = values.iter().map(|value| value["kind"].as_str().expect("a kind")).collect();
    let of = |kind| kinds.iter().filter(|k| **k == kind).count();
    assert_eq!(of("Namespace"), objects.namespaces.len());
    assert_eq!(of("Node"), objects.nodes.len());
    assert_eq!(of("Pod"), objects.pods.len());
    assert_eq!(of("NetworkPolicy"), objects.policies.len());
    assert_eq!(of("Service"), objects.services.len());
    assert_eq!(of("EndpointSlice"), objects.slices.len());
    assert!(
        values.iter().all(|value| value["apiVersion"].is_string() && value["metadata"]["name"].is_string())
    );
}

/// What is served to a reader that drops unknown fields; the judge must not be given that.
fn without_unknown(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let known = map.iter().filter(|(key, _)| *key != "fieldOfTomorrow");
            known.map(|(key, value)| (key.clone(), without_unknown(value))).collect()
        }
        Value::Array(list) => list.iter().map(without_unknown).collect(),
        scalar => scalar.clone(),
    }
}

#[test]
fn unknown_fields_only_ever_deny() {
    let mut denied = 0;
    for seed in 0..100 {
        let objects = generate(seed);
        let (understood, served) = newer(seed, &objects);
        let known: Vec<_> = served.iter().map(without_unknown).collect();
        assert_eq!(known, objects.values(), "seed {seed}: nothing but unknown fields is added");
        assert_eq!((&understood.pods, &understood.nodes), (&objects.pods, &objects.nodes));
        for flow in flows(&objects) {
            let (before, after) = (decide(&objects, &flow), decide(&understood, &flow));
            assert!(
                before.decision == Decision::Allow || after.decision == Decision::Deny,
                "seed {seed}: {flow:?}"
            );
            denied += u64::from(before.decision != after.decision);
        }
    }
    assert!(denied > 100, "unknown fields are seldom felt: {denied}");
}

#[test]
fn a_mutation_is_one_small_change() {
    let mut most = 0;
    let mut kinds = BTreeSet::new();
    for seed in 0..150 {
        let mut objects = generate(seed);
        for step in 0..10 {
            let after = mutate(seed << 8 | step, &objects);
            assert_eq!(after, mutate(seed << 8 | step, &objects), "the same change for the same seed");
            let lines = changes(&objects, &after);
            assert!(!lines.is_empty(), "seed {seed} step {step} changes nothing");
            let changed: BTreeSet<_> = lines.iter().map(|line| object_of(line)).collect();
            assert!(changed.len() <= 2, "seed {seed} step {step}: {lines:#?}");
            most = most.max(lines.len());
            kinds.extend(lines.iter().map(|line| line[..5].to_string()));
            assert!(flows(&after).iter().all(|flow| !decide(&after, flow).statements.contains(65)));
            objects = after;
        }
    }
    println!("at most {most} lines a change, of {kinds:?}");
    for kind in [
        "~ Pod", "+ Pod", "- Pod", "~ Nam", "+ Nam", "- Nam", "~ Net", "+ Net", "- Net", "~ Nod", "+ Ser",
        "- Ser", "+ End", "~ End", "- End",
    ] {
        assert!(kinds.contains(kind), "no change is {kind}");
    }
}

/// The name of the object that a line of `changes` is about.
fn object_of(line: &str) -> &str {
    let name = &line[2..];
    &name[..name.find(':').unwrap_or(name.len())]
}

/// A flow that an egress rule with a named port allows.
fn allowed_by_name(objects: &Objects, flow: &Flow) -> bool {
    let ruling = decide(objects, flow);
    !ruling.allowed_by.is_empty() && ruling.statements.contains(45)
}

#[test]
fn shrinking_keeps_the_failure_and_little_else() {
    let failing = (0..1000).filter_map(|seed| {
        let objects = generate(seed);
        let flow = flows(&objects).into_iter().find(|flow| allowed_by_name(&objects, flow))?;
        Some((objects, flow))
    });
    let failing: Vec<_> = failing.take(3).collect();
    assert_eq!(failing.len(), 3, "such clusters are not rare");
    for (objects, flow) in failing {
        let least = shrink(&objects, &flow, allowed_by_name);
        let text = format!("{}{}", describe(&least), write_flow(&least, &flow));
        assert!(allowed_by_name(&least, &flow), "{text}");
        assert_eq!((least.policies.len(), least.pods.len()), (1, 2), "{text}");
        assert!(text.len() < 1200, "still long:\n{text}");
        println!("{text}\n");
    }
}

#[test]
fn what_does_not_fail_is_not_shrunk() {
    let objects = generate(3);
    let flow = flows(&objects)[0];
    assert_eq!(shrink(&objects, &flow, |_, _| false), objects);
}

#[test]
fn the_oracle_knows_the_traps() {
    let traps = corpus();
    assert!(traps.len() >= 15, "only {} traps", traps.len());
    for trap in &traps {
        for (flow, expected) in &trap.expected {
            let ruling = decide(&trap.objects, flow);
            let line = write_flow(&trap.objects, flow);
            assert_eq!(ruling.decision, *expected, "{}: {line}\n{ruling:#?}", trap.name);
            assert!(!ruling.statements.contains(65), "{}: {line} is about no pod of this node", trap.name);
        }
        assert!(trap.flows().len() >= trap.expected.len());
    }
}

#[test]
fn seeds_that_failed_can_be_read() {
    for seed in failed_seeds() {
        assert!(!flows(&generate(seed)).is_empty());
    }
}
