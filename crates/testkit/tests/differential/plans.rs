//! Every prefix of every plan: readers get the old verdict or the new one, never a third. And compiling what was
//! touched gives what compiling everything gives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cellwall_abi::{Be16, Family, Reason, V4, V6};
use cellwall_datapath::before_reading;
use cellwall_oracle::{Flow, Objects};
use cellwall_policy::compile::Compiler;
use cellwall_policy::flow::{Direction, Protocol};
use cellwall_policy::model::{Change, Cluster, Kind, Link, ObjectKey, Touched};
use cellwall_policy::plan::{Op, plan};
use cellwall_policy::wanted::{Observed, ServiceKey, Wanted};
use cellwall_testkit::connections::Connections;
use cellwall_testkit::fake::{FakeKernel, Reader};
use cellwall_testkit::frame::{Frame, segment};
use cellwall_testkit::memory::{Lookup, Memory, after};
use cellwall_testkit::objects::{
    Rng, changes as said, failed_histories, flows, generate, mutate, service_flows,
};
use cellwall_verdict::header::ACK;
use cellwall_verdict::{Tables, Verdict, process};

use crate::beside;
use crate::cluster::{ROOM, SECRET, changes, cluster, links};
use crate::judged::{interfaces, no_packet};
use crate::report::{Outcome, for_each_seed};

/// Steps of each random history.
const STEPS: u64 = 3;
/// Questions about each plan.
const QUESTIONS: usize = 48;

/// What a node is told when the cluster becomes `objects`: every object, and which there are.
pub(crate) fn told(cluster: &Cluster, objects: &Objects) -> Vec<Change> {
    let mut all = changes(objects);
    for kind in Kind::ALL {
        let keys = all.iter().filter_map(|change| match change {
            Change::Namespace(n) => Some(ObjectKey::cluster(Kind::Namespace, &n.name)),
            Change::Node(n) => Some(ObjectKey::cluster(Kind::Node, &n.name)),
            Change::Pod(pod) => Some(pod.key()),
            Change::Service(service) => Some(service.key()),
            Change::EndpointSlice(slice) => Some(slice.key()),
            Change::Policy(policy, _) => Some(policy.key.clone()),
            _ => None,
        });
        let present = keys.filter(|key| key.kind == kind).collect();
        all.push(Change::Listed(kind, present));
    }
    // One with other addresses is another interface: who is behind one is found once.
    let present: BTreeMap<u32, Link> = links(objects).into_iter().map(|link| (link.ifindex, link)).collect();
    let is_there = |link: &Link| present.get(&link.ifindex).is_some_and(|p| p.addresses == link.addresses);
    let gone = cluster.links.values().filter(|link| !is_there(link));
    gone.map(|link| Change::LinkGone(link.ifindex)).chain(all).collect()
}

/// A flow at an interface.
pub(crate) type Question = (Flow, u32);

/// At most so many flows at the borders of two clusters.
pub(crate) fn questions(objects: [&Objects; 2], rng: &mut Rng, most: usize) -> Vec<Question> {
    let mut all = BTreeSet::new();
    for objects in objects {
        let interfaces: BTreeMap<IpAddr, u32> = interfaces(objects);
        let asked = flows(objects).into_iter().filter(|flow| no_packet(flow, &interfaces).is_none());
        let services = service_flows(objects).into_iter().map(|asked| asked.flow);
        let services = services.filter(|flow| no_packet(flow, &interfaces).is_none());
        all.extend(asked.chain(services).map(|flow| (flow, interfaces[&flow.local])));
    }
    let mut all: Vec<Question> = all.into_iter().collect();
    rng.shuffle(&mut all);
    all.truncate(most);
    all
}

/// The connection that the first packet of a flow leaves.
fn left_behind<F: Family>(of: impl Fn(&Memory) -> &Connections<F>, from: &Memory, to: &Memory) {
    for (key, conn) in of(from).pendings() {
        of(to).put(key, conn, true);
    }
}

/// The next packet of the opener of a connection.
fn next_packet(flow: &Flow, ifindex: u32) -> Frame {
    let mut frame = Frame::opening(flow, ifindex);
    if flow.protocol == Protocol::TCP {
        let ingress_ifindex = frame.ingress_ifindex;
        frame = Frame::new(&segment(flow, true, ACK), ifindex);
        frame.ingress_ifindex = ingress_ifindex;
    }
    frame
}

/// Asks readers at every moment. `states` are what the tables say, one after the other: a reader gets the verdict of one of
/// them.
fn check(
    states: &[&Observed],
    kernel: &FakeKernel,
    questions: &[Question],
    rng: &mut Rng,
) -> Result<(), String> {
    check_services(states, kernel, rng)?;
    for (flow, ifindex) in questions {
        let ask = |tables: &&Observed| {
            let memory = Memory::new((*tables).clone());
            (process(&Frame::opening(flow, *ifindex), &memory, flow.direction), memory)
        };
        let (_, connected) = ask(&states[0]);
        let verdicts: Vec<Verdict> = states.iter().map(|tables| ask(tables).0).collect();
        // What runs to a Service stays with the backend that it has, whatever becomes of the Service.
        let to_service = verdicts.iter().any(|verdict| verdict.reason == Reason::Deferred)
            || states.iter().any(|tables| is_translated(tables, flow));
        let allowed: Vec<bool> = verdicts.iter().map(Verdict::passes).collect();
        for moment in 0..kernel.len() {
            let seed = rng.below(usize::MAX) as u64;
            let reader = kernel.reader(moment, seed);
            let found = process(&Frame::opening(flow, *ifindex), &reader, flow.direction);
            if !verdicts.contains(&found) {
                return Err(format!(
                    "at {moment} of {}: {flow:?} gets {found:?}, none of {verdicts:?}",
                    kernel.len()
                ));
            }
            if !allowed[0] || to_service {
                continue;
            }
            let reader = kernel.reader(moment, seed);
            left_behind(|m| &m.four, &connected, &reader.memory);
            left_behind(|m| &m.six, &connected, &reader.memory);
            if let Some(wrong) =
                live_connection(&reader, flow, *ifindex, &allowed, moment + 1 == kernel.len())
            {
                return Err(format!("at {moment} of {}: {wrong}", kernel.len()));
            }
        }
    }
    Ok(())
}

/// True where a state leads what goes there somewhere else.
pub(crate) fn is_translated(tables: &Observed, flow: &Flow) -> bool {
    let key = ServiceKey { address: flow.remote, port: flow.port, protocol: flow.protocol.0 };
    flow.direction == Direction::Egress && tables.services.contains_key(&key)
}

/// What a reader is told of an address that is translated in some state: all of what one state says of it.
fn check_services(states: &[&Observed], kernel: &FakeKernel, rng: &mut Rng) -> Result<(), String> {
    let keys: BTreeSet<&ServiceKey> = states.iter().flat_map(|tables| tables.services.keys()).collect();
    let lookups: Vec<Lookup> = states.iter().map(|tables| Lookup::new((*tables).clone())).collect();
    for key in keys {
        let told: Vec<_> = lookups.iter().map(|l| l.service(key, l.tables.live.bank())).collect();
        for moment in 0..kernel.len() {
            let reader = kernel.reader(moment, rng.next());
            let bank = Tables::<V4>::live(&reader).bank();
            let (port, protocol) = (Be16::new(key.port), key.protocol);
            let found = match key.address {
                IpAddr::V4(address) => Tables::<V4>::service(&reader, &address.into(), port, protocol, bank),
                IpAddr::V6(address) => Tables::<V6>::service(&reader, &address.into(), port, protocol, bank),
            };
            if !told.contains(&found) {
                return Err(format!(
                    "at {moment} of {}: {key:?} is {found:?}, none of {told:?}",
                    kernel.len()
                ));
            }
        }
    }
    Ok(())
}

/// A connection from before passes, unless a later state forbids it; at the end exactly when the last state allows it.
fn live_connection(
    reader: &Reader<'_>,
    flow: &Flow,
    ifindex: u32,
    allowed: &[bool],
    at_end: bool,
) -> Option<String> {
    let tracked = !reader.memory.four.flows().is_empty() || !reader.memory.six.flows().is_empty();
    let found = process(&next_packet(flow, ifindex), reader, flow.direction);
    let last = allowed.last() == Some(&true);
    let wrong = if found.passes() { at_end && !last } else { allowed.iter().all(|allowed| *allowed) };
    (tracked && wrong)
        .then(|| format!("the connection of {flow:?} gets {found:?}, and new ones are allowed: {allowed:?}"))
}

/// What becomes of readers while a plan ends half-way and whoever comes next, which knows nothing of it, reads the tables and
/// runs a plan of its own: to the same state, or on to another one.
fn interrupted(
    (old, half): (&Observed, &Observed),
    begun: &[Op],
    wanted: &Wanted,
    questions: &[Question],
    rng: &mut Rng,
) -> Result<(), String> {
    let rest = plan(wanted, half, &ROOM, 1000).map_err(|refusal| refusal.to_string())?;
    let ops = [begun, before_reading(), &rest].concat();
    check(&[old, half, &after(half, &rest)], &FakeKernel::run(old, &ops), questions, rng)
        .map_err(|wrong| format!("after {} writes, and then {rest:#?}: {wrong}", begun.len()))
}

/// One random history; how many questions were asked about it.
fn history(seed: u64) -> Result<usize, String> {
    let mut rng = Rng::new(seed);
    let mut objects = generate(seed);
    let mut known = cluster(&objects);
    let mut compiler = Compiler::new(SECRET);
    let mut observed = Observed::default();
    let mut touched = Touched::default();
    let mut before = Objects::default();
    let mut count = 0;
    beside::settings(&mut known, &mut rng);
    for step in 0..STEPS {
        let beside = beside::changes(&known, &mut rng);
        beside.iter().cloned().for_each(|change| known.apply(change, &mut touched));
        let left_out = beside::left_out(&known, &mut rng);
        let compiled = compiler.compile_without(&known, &touched, &left_out);
        let fresh = Compiler::new(SECRET).compile_without(&known, &Touched::default(), &left_out);
        if compiled != fresh {
            return Err(format!(
                "step {step}: compiling what was touched differs: {:?} and {beside:?} without {left_out:?}",
                said(&before, &objects)
            ));
        }
        let ops = plan(&compiled.wanted, &observed, &ROOM, 1000).map_err(|refusal| refusal.to_string())?;
        let asked = questions([&before, &objects], &mut rng, QUESTIONS);
        count += asked.len();
        let end = after(&observed, &ops);
        let cut = rng.between(0, ops.len());
        let in_words = |wrong| {
            format!("step {step}: {wrong}\nafter {:?} and {beside:?}\nby {ops:#?}", said(&before, &objects))
        };
        check(&[&observed, &end], &FakeKernel::run(&observed, &ops), &asked, &mut rng).map_err(in_words)?;

        // A plan that ended half-way is finished by the next, or overtaken by another.
        let next =
            if rng.percent(80) { mutate(seed + step, &objects) } else { generate(seed + 1_000_000 + step) };
        let half = after(&observed, &ops[..cut]);
        let wanted = if rng.percent(50) { &compiled.wanted } else { &compiled_of(&next) };
        interrupted((&observed, &half), &ops[..cut], wanted, &asked, &mut rng).map_err(in_words)?;
        // Also where readers of both banks run.
        if let Some(flip) = ops.iter().position(|op| matches!(op, Op::Flip { .. })) {
            let flipped = after(&observed, &ops[..=flip]);
            interrupted((&observed, &flipped), &ops[..=flip], wanted, &asked, &mut rng).map_err(in_words)?;
        }
        let rest = plan(&compiled.wanted, &half, &ROOM, 1000).map_err(|refusal| refusal.to_string())?;
        let healed = after(&half, &rest);
        if !plan(&compiled.wanted, &end, &ROOM, 2000).is_ok_and(|ops| ops.is_empty()) {
            return Err(in_words("the plan does not lead to what is wanted".into()));
        }
        if !plan(&compiled.wanted, &healed, &ROOM, 2000).is_ok_and(|ops| ops.is_empty()) {
            return Err(in_words(format!(
                "cut after {cut} writes, the next plan does not lead to what is wanted"
            )));
        }

        observed = if rng.percent(50) { end } else { healed };
        before = std::mem::replace(&mut objects, next);
        touched = Touched::default();
        for change in told(&known, &objects) {
            known.apply(change, &mut touched);
        }
        let afresh = afresh(&known, &objects);
        if known != afresh {
            let (known, afresh) = (format!("{known:#?}"), format!("{afresh:#?}"));
            let first = known.lines().zip(afresh.lines()).find(|(one, other)| one != other);
            let said = said(&before, &objects);
            return Err(format!("step {step}: what is known is not what is there: {first:?} after {said:?}"));
        }
    }
    Ok(count)
}

/// What would be known of these objects alone. Settings do not change while an agent runs, and who left and whom the plugin told
/// of is a matter of history.
fn afresh(known: &Cluster, objects: &Objects) -> Cluster {
    let Cluster { departed, left, announced, pod_cidrs, egress_to_own_node, audit_all, .. } = known.clone();
    Cluster { departed, left, announced, pod_cidrs, egress_to_own_node, audit_all, ..cluster(objects) }
}

/// What is wanted for objects that nobody knew before.
fn compiled_of(objects: &Objects) -> Wanted {
    Compiler::new(SECRET).compile(&cluster(objects), &Touched::default()).wanted
}

#[test]
fn readers_see_the_old_state_or_the_new_one() {
    for_each_seed(400, &failed_histories(), |seed| match history(seed) {
        Ok(0) => Outcome::Empty,
        Ok(_) => Outcome::Judged,
        Err(wrong) => Outcome::Wrong(format!("seed {seed}: {wrong}")),
    });
}

/// The fake itself must be able to fail: a plan without its grace period lets a reader hold a row that became another.
#[test]
fn a_plan_without_grace_periods_is_caught() {
    let caught = (0..300).any(|seed| {
        let mut rng = Rng::new(seed);
        let (before, objects) = (generate(seed), generate(seed + 1));
        let mut compiler = Compiler::new(SECRET);
        let mut observed = Observed::default();
        let mut result = Ok(());
        for (old, new) in [(&Objects::default(), &before), (&before, &objects), (&objects, &before)] {
            let wanted =
                compiler.compile(&cluster(new), &Touched { policies: true, ..Touched::default() }).wanted;
            let mut ops = plan(&wanted, &observed, &ROOM, 1000).expect("there is room");
            ops.retain(|op| *op != Op::Grace);
            let end = after(&observed, &ops);
            let asked = questions([old, new], &mut rng, QUESTIONS);
            result =
                result.and(check(&[&observed, &end], &FakeKernel::run(&observed, &ops), &asked, &mut rng));
            observed = end;
        }
        result.is_err()
    });
    assert!(caught, "300 histories of plans without grace periods, and no reader noticed");
}
