//! The same clusters judged by the loaded program: tables written by plans, one cluster after the other, and every
//! flow a frame through `BPF_PROG_TEST_RUN`. Needs root.

use std::collections::BTreeMap;
use std::thread;

use cellwall_datapath::{At, Datapath, Settings};
use cellwall_oracle::{Flow, Objects, decide, frontends};
use cellwall_policy::compile::Compiler;
use cellwall_policy::flow::{Decision, Direction, Protocol};
use cellwall_policy::model::{Link, Touched};
use cellwall_policy::plan::plan;
use cellwall_policy::wanted::Observed;
use cellwall_testkit::bpffs;
use cellwall_testkit::frame::Frame;
use cellwall_testkit::memory::after;
use cellwall_testkit::net::{Namespace, is_root};
use cellwall_testkit::objects::{describe, failed_histories, failed_seeds, generate};

use crate::cluster::{ROOM, cluster};
use crate::judged::{FEWEST, enough_flows, no_packet, to_a_service};
use crate::report::{Report, number};

/// Interfaces of the test's namespace, the first of which is where packets come from.
const INTERFACES: u32 = 24;
const FIRST: u32 = 100;

/// A namespace with interfaces of known numbers: the program is run as if at one of them.
fn namespace() -> Namespace {
    let namespace = Namespace::new().expect("a namespace");
    let commands: Vec<String> =
        (FIRST..FIRST + INTERFACES).map(|n| format!("link add cw{n} index {n} type bridge")).collect();
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    namespace.ip(&commands).expect("interfaces");
    namespace
}

/// The cluster, its interfaces numbered as those of the namespace.
fn numbered(objects: &Objects) -> cellwall_policy::model::Cluster {
    let mut cluster = cluster(objects);
    let links = std::mem::take(&mut cluster.links).into_values().zip(FIRST + 1..);
    cluster.links = links.map(|(link, ifindex)| (ifindex, Link { ifindex, ..link })).collect();
    assert!(cluster.links.len() < INTERFACES as usize);
    cluster
}

struct Kernel {
    datapath: Datapath,
    compiler: Compiler,
    observed: Observed,
    /// No two flows share a connection.
    port: u16,
}

/// A data path of its own with small tables, what compiles for it, and what is in it.
pub(crate) fn open(pin_name: &str) -> (Datapath, Compiler, Observed) {
    let settings = Settings {
        bpffs: bpffs::private(),
        pin_name: pin_name.to_owned(),
        capacities: ROOM,
        flows: 4096,
        pending: 4096,
        fragments: 1024,
        events_bytes: 1 << 16,
        ..Settings::default()
    };
    let datapath = Datapath::open(&settings).expect("the data path opens");
    let compiler = Compiler::new(datapath.secret());
    let observed = datapath.observe().expect("the tables can be read");
    (datapath, compiler, observed)
}

impl Kernel {
    fn open() -> Self {
        let (datapath, compiler, observed) = open("cellwall-differential");
        Self { datapath, compiler, observed, port: 0 }
    }

    /// Asks the program and the judge about every flow of a cluster.
    fn judge(&mut self, objects: &Objects, report: &mut Report) -> Option<String> {
        let cluster = numbered(objects);
        let touched = Touched { policies: true, topology: true, ..Touched::default() };
        let wanted = self.compiler.compile(&cluster, &touched).wanted;
        let ops = plan(&wanted, &self.observed, &ROOM, cellwall_datapath::now_tick()).expect("there is room");
        self.datapath.run_all(&ops).expect("the kernel takes the plan");
        self.observed = after(&self.observed, &ops);

        let links = cluster.links.values();
        let interfaces: BTreeMap<_, _> = links
            .flat_map(|link| {
                [true, false].into_iter().filter_map(|v4| {
                    let first = link.addresses.iter().find(|address| address.is_ipv4() == v4);
                    first.map(|address| (*address, link.ifindex))
                })
            })
            .collect();
        let frontends = frontends(objects);
        let why_not = |flow: &Flow| {
            let none = no_packet(flow, &interfaces).or_else(|| to_a_service(flow, &frontends));
            none.or_else(|| no_connection_of_its_own(flow))
        };
        enough_flows(objects, |flow| why_not(flow).is_none()).into_iter().find_map(|flow| {
            if let Some(reason) = why_not(&flow) {
                report.skip(reason);
                return None;
            }
            let ruling = decide(objects, &flow);
            report.judged(&ruling);
            let passes = self.ask(&flow, interfaces[&flow.local]);
            let differs = passes != (ruling.decision == Decision::Allow);
            differs.then(|| {
                format!("the judge says {:?} about {flow:?}, and passing is {passes}", ruling.decision)
            })
        })
    }

    fn ask(&mut self, flow: &Flow, ifindex: u32) -> bool {
        self.port = self.port % 60_000 + 1;
        let frame = Frame::opening_from(flow, ifindex, 1024 + self.port % 60_000);
        let ingress_ifindex = if frame.ingress_ifindex == cellwall_testkit::frame::UPLINK {
            FIRST
        } else {
            frame.ingress_ifindex
        };
        let at = At { ifindex, ingress_ifindex, mark: 0 };
        self.datapath.test_run(flow.direction, frame.bytes(), at).expect("the program runs")
    }
}

/// What has neither ports nor identifiers is one connection whoever sends it: of those, one kind is asked about.
fn no_connection_of_its_own(flow: &Flow) -> Option<&'static str> {
    let has_own = flow.protocol.has_ports() || matches!(flow.protocol, Protocol::ICMP | Protocol::ICMPV6);
    let others = flow.from_own_node || flow.direction == Direction::Egress;
    (!has_own && others).then_some("of a protocol without ports, all but what comes from elsewhere")
}

#[test]
fn the_loaded_program_decides_as_the_judge_does() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    let namespace = namespace();
    let run = || {
        namespace.enter().expect("the namespace is alive");
        let mut kernel = Kernel::open();
        let mut report = Report::default();
        let (first, wanted) = (number("CELLWALL_SEED", 0), number("CELLWALL_KERNEL_SETS", 1000));
        let kept = [failed_seeds(), failed_histories()].concat();
        let wanted = wanted + kept.len() as u64;
        // A set without a flow does not count, and the next one is drawn.
        for seed in kept.into_iter().chain(first..=first + 2 * wanted + 1000) {
            if report.sets() == wanted {
                break;
            }
            let objects = generate(seed);
            let mut of_set = Report::default();
            if let Some(wrong) = kernel.judge(&objects, &mut of_set) {
                panic!("seed {seed}: {wrong}\n\n{}", describe(&objects));
            }
            report.add(of_set);
        }
        let observed = kernel.datapath.observe().expect("the tables can be read");
        assert_eq!(observed, kernel.observed, "what is in the tables is what was planned");
        println!("in the kernel: {report}");
        assert_eq!(report.sets(), wanted, "more sets without a flow than with one");
        report.check(FEWEST);
    };
    thread::scope(|scope| {
        scope.spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}
