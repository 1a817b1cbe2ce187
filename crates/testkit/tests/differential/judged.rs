//! `decision(tables(compile(objects)), frame(flow)) == judge(objects, flow)`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;

use cellwall_abi::SERVICE_BACKENDS;
use cellwall_oracle::{Flow, Frontend, Objects, decide, decide_service, frontends};
use cellwall_policy::flow::{Decision, Direction};
use cellwall_policy::wanted::Observed;
use cellwall_testkit::frame::{Frame, UPLINK};
use cellwall_testkit::memory::{MARK, Memory};
use cellwall_testkit::objects::{
    ServiceFlow, at_least, corpus, describe, failed_seeds, flows, generate, newer, service_flows, shrink,
};
use cellwall_verdict::{Verdict, arrive, process};
use serde_json::Value;

use crate::cluster::{compiled, links, planned};
use crate::report::{Outcome, Report, for_each_seed};

/// What stands between a question and a packet that could ask it; `None` when nothing does.
pub(crate) fn no_packet(flow: &Flow, firsts: &BTreeMap<IpAddr, u32>) -> Option<&'static str> {
    let nowhere = match flow.remote {
        IpAddr::V4(remote) => matches!(remote.octets()[0], 0 | 127),
        IpAddr::V6(remote) => matches!(remote.segments(), [0, 0, 0, 0, 0, 0 | 0xffff, ..]),
    };
    let is_group = flow.remote.is_multicast() || flow.remote == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
    if !firsts.contains_key(&flow.local) {
        Some("a pod's second address of one family, which Kubernetes does not have")
    } else if nowhere || (is_group && flow.direction == Direction::Ingress) {
        Some("an address that no packet on a wire may come from, or go to")
    } else {
        None
    }
}

/// What this node translates is asked about together with a backend.
pub(crate) fn to_a_service(flow: &Flow, frontends: &[Frontend]) -> Option<&'static str> {
    let is_it = |f: &Frontend| (f.address, f.port, f.protocol) == (flow.remote, flow.port, flow.protocol);
    let is_asked = flow.direction == Direction::Egress && frontends.iter().any(is_it);
    is_asked.then_some("to what the node translates, which is asked about with its backends")
}

/// The interface of every pod's first address of each family.
pub(crate) fn interfaces(objects: &Objects) -> BTreeMap<IpAddr, u32> {
    let mut interfaces = BTreeMap::new();
    for link in links(objects) {
        for is_ipv4 in [true, false] {
            let first = link.addresses.iter().find(|address| address.is_ipv4() == is_ipv4);
            interfaces.extend(first.map(|address| (*address, link.ifindex)));
        }
    }
    interfaces
}

/// What the decision says about the first packet of a flow.
pub(crate) fn verdict(memory: &mut Memory, flow: &Flow, ifindex: u32) -> Verdict {
    memory.forget();
    process(&Frame::opening(flow, ifindex), memory, flow.direction)
}

/// One flow about which the tables and the judge disagree.
#[derive(Debug)]
pub(crate) struct Difference {
    flow: Flow,
    judge: Decision,
    tables: Verdict,
}

/// Asks both about flows; the first difference.
fn difference(objects: &Objects, flows: &[Flow], report: &mut Report) -> Option<Difference> {
    difference_of(objects, objects.values(), flows, report)
}

/// The same for objects that are served with more than is understood of them.
fn difference_of(
    objects: &Objects,
    served: Vec<Value>,
    flows: &[Flow],
    report: &mut Report,
) -> Option<Difference> {
    let tables = planned(&compiled(objects, served).wanted, &Observed::default());
    let mut memory = Memory::new(tables);
    let interfaces = interfaces(objects);
    let frontends = frontends(objects);
    for &flow in flows {
        if let Some(reason) = no_packet(&flow, &interfaces).or_else(|| to_a_service(&flow, &frontends)) {
            report.skip(reason);
            continue;
        }
        let ruling = decide(objects, &flow);
        report.judged(&ruling);
        let verdict = verdict(&mut memory, &flow, interfaces[&flow.local]);
        if verdict.passes() != (ruling.decision == Decision::Allow) {
            return Some(Difference { flow, judge: ruling.decision, tables: verdict });
        }
    }
    None
}

/// A difference as something to read: the least objects that still show it.
fn explain(name: &str, objects: &Objects, found: &Difference) -> String {
    let ask = |objects: &Objects, flow: &Flow| difference(objects, &[*flow], &mut Report::default());
    let least = shrink(objects, &found.flow, |objects, flow| ask(objects, flow).is_some());
    let Difference { flow, judge, tables } = ask(&least, &found.flow).expect("what was shrunk still fails");
    format!(
        "{name}: the judge says {judge:?} about {flow:?} and the tables say {tables:?}\n\n{}",
        describe(&least)
    )
}

/// Flows of a set that say something about it.
pub(crate) const FEWEST: u64 = 500;

/// The flows of a set: at least [`FEWEST`] of them can be asked, unless none can.
pub(crate) fn enough_flows(objects: &Objects, can_be_asked: impl Fn(&Flow) -> bool) -> Vec<Flow> {
    let mut all = flows(objects);
    // Of a small cluster no packet can ask many of them: then more are tried.
    for enough in [2000, 8000] {
        let askable = all.iter().filter(|flow| can_be_asked(flow)).count() as u64;
        if !(1..FEWEST).contains(&askable) {
            break;
        }
        all = at_least(objects, enough);
    }
    all
}

#[test]
fn tables_decide_as_the_judge_does() {
    let total = Mutex::new(Report::default());
    for_each_seed(10_000, &failed_seeds(), |seed| {
        let objects = generate(seed);
        let (interfaces, frontends) = (interfaces(&objects), frontends(&objects));
        let is_askable =
            |flow: &Flow| no_packet(flow, &interfaces).or_else(|| to_a_service(flow, &frontends)).is_none();
        let mut report = Report::default();
        let found = difference(&objects, &enough_flows(&objects, is_askable), &mut report);
        let outcome = report.outcome(found.map(|found| explain(&format!("seed {seed}"), &objects, &found)));
        total.lock().expect("no panic while it is held").add(report);
        outcome
    });
    let total = total.into_inner().expect("no panic while it is held");
    println!("{total}");
    total.check(FEWEST);
}

#[test]
fn traps_are_decided_as_by_hand_and_as_the_judge_does() {
    for trap in corpus() {
        let found = difference(&trap.objects, &trap.flows(), &mut Report::default());
        if let Some(found) = found {
            panic!("{}", explain(&trap.name, &trap.objects, &found));
        }
    }
}

/// An API server may know fields that we do not: what has one never means more than without it.
#[test]
fn unknown_fields_only_ever_deny() {
    // What was asked, and of how many sets an unknown field has changed the meaning.
    let total = Mutex::new((Report::default(), 0_u64));
    for_each_seed(2_000, &[], |seed| {
        let objects = generate(seed);
        let (understood, served) = newer(seed, &objects);
        let all = serde_json::to_string(&served).expect("documents");
        let mut report = Report::default();
        let found = difference_of(&understood, served, &flows(&understood), &mut report);
        let outcome = report.outcome(found.map(|found| {
            format!("seed {seed}: {found:?}\nunderstood {}\nserved {all}", describe(&understood))
        }));
        let mut total = total.lock().expect("no panic while it is held");
        total.0.add(report);
        total.1 += u64::from(understood.to_document() != objects.to_document());
        outcome
    });
    let (report, changed) = total.into_inner().expect("no panic while it is held");
    println!("with unknown fields: {report}; {changed} sets mean something else by them");
    report.check(100);
    assert!(changed * 2 > report.sets(), "{changed} of {} sets mean something else", report.sets());
}

/// The hooks of a connection to a Service: the source's own, and, where the node does not deliver it itself, the next one,
/// behind the proxy's translation.
fn passes_to(memory: &mut Memory, objects: &Objects, asked: &ServiceFlow, ifindex: u32) -> bool {
    let source = verdict(memory, &asked.flow, ifindex);
    if !source.passes() || objects.node_addresses.contains(&asked.chosen.0) {
        return source.passes();
    }
    let (remote, port) = asked.chosen;
    let mut frame = Frame::opening(&Flow { remote, port, ..asked.flow }, UPLINK);
    frame.ingress_ifindex = ifindex;
    frame.stamp.set((MARK, 1 + memory.lookup.slot(ifindex).expect("it has a slot")));
    arrive(&frame, memory).verdict.passes()
}

/// What was asked about Services.
#[derive(Debug, Default)]
struct Services {
    allowed: u64,
    denied: u64,
    too_many: u64,
}

impl Services {
    /// Asks both about every way to a Service; the first difference.
    fn difference(&mut self, objects: &Objects) -> Option<String> {
        let tables = planned(&compiled(objects, objects.values()).wanted, &Observed::default());
        let mut memory = Memory::new(tables);
        let interfaces = interfaces(objects);
        for asked in service_flows(objects) {
            let Some(ifindex) = interfaces.get(&asked.flow.local) else { continue };
            let ruling = decide_service(objects, &asked.flow, &asked.frontend, asked.chosen);
            let passes = passes_to(&mut memory, objects, &asked, *ifindex);
            // More backends than a record holds may be denied together, and are never allowed together.
            let too_many = asked.frontend.at_source.len() > SERVICE_BACKENDS && !passes;
            let allowed = ruling.decision == Decision::Allow;
            self.allowed += u64::from(allowed);
            self.denied += u64::from(!allowed);
            self.too_many += u64::from(too_many);
            if passes != allowed && !too_many {
                return Some(format!("the judge allows {allowed}, the hooks {passes}: {asked:?}"));
            }
        }
        None
    }
}

/// Egress to a Service is judged on the backend that was chosen: S48, S55, and S64 where that is the pod itself.
#[test]
fn services_are_decided_as_the_judge_does() {
    let total = Mutex::new((0_u64, Services::default()));
    for_each_seed(10_000, &failed_seeds(), |seed| {
        let objects = generate(seed);
        let mut of_set = Services::default();
        let wrong = of_set.difference(&objects);
        if let Some(wrong) = wrong {
            return Outcome::Wrong(format!("seed {seed}: {wrong}\n{}", describe(&objects)));
        }
        if of_set.allowed + of_set.denied == 0 {
            return Outcome::Empty;
        }
        let mut total = total.lock().expect("no panic while it is held");
        total.0 += 1;
        total.1.allowed += of_set.allowed;
        total.1.denied += of_set.denied;
        total.1.too_many += of_set.too_many;
        Outcome::Judged
    });
    let (sets, Services { allowed, denied, too_many }) =
        total.into_inner().expect("no panic while it is held");
    println!(
        "to Services, of {sets} judged sets: {allowed} allowed, {denied} denied; {too_many} more with too many backends at the source"
    );
    assert!(allowed > denied / 10 && denied > allowed / 10, "{allowed} allowed, {denied} denied");
}
