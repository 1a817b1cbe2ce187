//! Every prefix of every plan: readers get the old verdict or the new one, never a third. And compiling what was
//! touched gives what compiling everything gives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cellwall_abi::{Be16, Family, Reason, V4, V6};
use cellwall_oracle::{Flow, Objects};
use cellwall_policy::compile::Compiler;
use cellwall_policy::flow::{Direction, Protocol};
use cellwall_policy::model::{Change, Cluster, Kind, ObjectKey, Touched};
use cellwall_policy::plan::plan;
use cellwall_policy::wanted::{Observed, ServiceKey};
use cellwall_testkit::connections::Connections;
use cellwall_testkit::fake::{FakeKernel, Reader};
use cellwall_testkit::frame::{Frame, segment};
use cellwall_testkit::memory::{Lookup, Memory, after};
use cellwall_testkit::objects::{Rng, changes as said, flows, generate, mutate, service_flows};
use cellwall_verdict::header::ACK;
use cellwall_verdict::{Tables, process};

use crate::cluster::{ROOM, SECRET, changes, cluster, links};
use crate::judged::{interfaces, no_packet};
use crate::report::{Outcome, for_each_seed};

/// Steps of each random history.
const STEPS: u64 = 3;
/// Questions about each plan.
const QUESTIONS: usize = 48;

/// What a node is told when the cluster becomes `objects`: every object, and which there are.
fn told(cluster: &Cluster, objects: &Objects) -> Vec<Change> {
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
    let present: BTreeSet<u32> = links(objects).iter().map(|link| link.ifindex).collect();
    let gone = cluster.links.keys().filter(|ifindex| !present.contains(ifindex));
    all.extend(gone.map(|ifindex| Change::LinkGone(*ifindex)));
    all
}

/// A flow at an interface.
type Question = (Flow, u32);

fn questions(objects: [&Objects; 2], rng: &mut Rng) -> Vec<Question> {
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
    all.truncate(QUESTIONS);
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

/// Asks readers at every moment of a plan.
fn check(
    old: &Observed,
    kernel: &FakeKernel,
    new: &Observed,
    questions: &[Question],
    rng: &mut Rng,
) -> Result<(), String> {
    check_services(old, kernel, new, rng)?;
    for (flow, ifindex) in questions {
        let ask = |tables: &Observed| {
            let memory = Memory::new(tables.clone());
            (process(&Frame::opening(flow, *ifindex), &memory, flow.direction), memory)
        };
        let ((before, connected), (behind, _)) = (ask(old), ask(new));
        for moment in 0..kernel.len() {
            let seed = rng.below(usize::MAX) as u64;
            let reader = kernel.reader(moment, seed);
            let found = process(&Frame::opening(flow, *ifindex), &reader, flow.direction);
            if found != before && found != behind {
                return Err(format!(
                    "at {moment} of {}: {flow:?} gets {found:?}, neither {before:?} nor {behind:?}",
                    kernel.len()
                ));
            }
            // What runs to a Service stays with the backend that it has, whatever becomes of the Service.
            let to_service = [before, behind].iter().any(|verdict| verdict.reason == Reason::Deferred);
            if !before.passes() || to_service || is_translated(old, flow) || is_translated(new, flow) {
                continue;
            }
            let reader = kernel.reader(moment, seed);
            left_behind(|m| &m.four, &connected, &reader.memory);
            left_behind(|m| &m.six, &connected, &reader.memory);
            if let Some(wrong) =
                live_connection(&reader, flow, *ifindex, behind.passes(), moment + 1 == kernel.len())
            {
                return Err(format!("at {moment} of {}: {wrong}", kernel.len()));
            }
        }
    }
    Ok(())
}

fn is_translated(tables: &Observed, flow: &Flow) -> bool {
    let key = ServiceKey { address: flow.remote, port: flow.port, protocol: flow.protocol.0 };
    flow.direction == Direction::Egress && tables.services.contains_key(&key)
}

/// What a reader is told of an address that is translated in either state: all of what the old one says of it, or all of
/// what the new one says.
fn check_services(old: &Observed, kernel: &FakeKernel, new: &Observed, rng: &mut Rng) -> Result<(), String> {
    let keys: BTreeSet<&ServiceKey> = old.services.keys().chain(new.services.keys()).collect();
    let lookups = [old, new].map(|tables| Lookup::new(tables.clone()));
    for key in keys {
        let [before, behind] = [&lookups[0], &lookups[1]].map(|l| l.service(key, l.tables.live.bank()));
        for moment in 0..kernel.len() {
            let reader = kernel.reader(moment, rng.next());
            let bank = Tables::<V4>::live(&reader).bank();
            let (port, protocol) = (Be16::new(key.port), key.protocol);
            let found = match key.address {
                IpAddr::V4(address) => Tables::<V4>::service(&reader, &address.into(), port, protocol, bank),
                IpAddr::V6(address) => Tables::<V6>::service(&reader, &address.into(), port, protocol, bank),
            };
            if found != before && found != behind {
                return Err(format!(
                    "at {moment} of {}: {key:?} is {found:?}, neither {before:?} nor {behind:?}",
                    kernel.len()
                ));
            }
        }
    }
    Ok(())
}

/// A connection from before passes, unless the new state forbids it; at the end exactly when the new state allows it.
fn live_connection(
    reader: &Reader<'_>,
    flow: &Flow,
    ifindex: u32,
    allowed: bool,
    at_end: bool,
) -> Option<String> {
    let tracked = !reader.memory.four.flows().is_empty() || !reader.memory.six.flows().is_empty();
    let found = process(&next_packet(flow, ifindex), reader, flow.direction);
    let wrong = if found.passes() { at_end && !allowed } else { allowed };
    (tracked && wrong)
        .then(|| format!("the connection of {flow:?} gets {found:?}, and new ones are allowed: {allowed}"))
}

/// One random history.
fn history(seed: u64) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let mut objects = generate(seed);
    let mut known = cluster(&objects);
    let mut compiler = Compiler::new(SECRET);
    let mut observed = Observed::default();
    let mut touched = Touched::default();
    let mut before = Objects::default();
    for step in 0..STEPS {
        let compiled = compiler.compile(&known, &touched);
        let fresh = Compiler::new(SECRET).compile(&known, &Touched::default());
        if compiled != fresh {
            return Err(format!(
                "step {step}: compiling what was touched differs: {:?}",
                said(&before, &objects)
            ));
        }
        let ops = plan(&compiled.wanted, &observed, &ROOM, 1000).map_err(|refusal| refusal.to_string())?;
        let asked = questions([&before, &objects], &mut rng);
        let end = after(&observed, &ops);
        let cut = rng.between(0, ops.len());
        let in_words =
            |wrong| format!("step {step}: {wrong}\nafter {:?}\nby {ops:#?}", said(&before, &objects));
        check(&observed, &FakeKernel::run(&observed, &ops), &end, &asked, &mut rng).map_err(in_words)?;

        // A plan that ended half-way is finished by the next.
        let half = after(&observed, &ops[..cut]);
        let rest = plan(&compiled.wanted, &half, &ROOM, 1000).map_err(|refusal| refusal.to_string())?;
        let healed = after(&half, &rest);
        let kernel = FakeKernel::run(&half, &rest);
        check(&half, &kernel, &healed, &asked, &mut rng)
            .map_err(|wrong| in_words(format!("after {cut} writes and then {rest:#?}: {wrong}")))?;
        if !plan(&compiled.wanted, &end, &ROOM, 2000).is_ok_and(|ops| ops.is_empty()) {
            return Err(in_words("the plan does not lead to what is wanted".into()));
        }
        if !plan(&compiled.wanted, &healed, &ROOM, 2000).is_ok_and(|ops| ops.is_empty()) {
            return Err(in_words(format!(
                "cut after {cut} writes, the next plan does not lead to what is wanted"
            )));
        }

        observed = if rng.percent(50) { end } else { healed };
        before = objects.clone();
        objects =
            if rng.percent(80) { mutate(seed + step, &objects) } else { generate(seed + 1_000_000 + step) };
        touched = Touched::default();
        for change in told(&known, &objects) {
            known.apply(change, &mut touched);
        }
    }
    Ok(())
}

#[test]
fn readers_see_the_old_state_or_the_new_one() {
    for_each_seed(400, &[], |seed| match history(seed) {
        Ok(()) => Outcome::Judged,
        Err(wrong) => Outcome::Wrong(format!("seed {seed}: {wrong}")),
    });
}

/// The fake itself must be able to fail: a plan without its grace period lets a reader hold a row that became another.
#[test]
fn a_plan_without_grace_periods_is_caught() {
    use cellwall_policy::plan::Op;
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
            let asked = questions([old, new], &mut rng);
            result = result.and(check(&observed, &FakeKernel::run(&observed, &ops), &end, &asked, &mut rng));
            observed = end;
        }
        result.is_err()
    });
    assert!(caught, "300 histories of plans without grace periods, and no reader noticed");
}
