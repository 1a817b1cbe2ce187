//! Rows B6 and B7 of docs/robustness.md, with counts: policies that come to running connections, and go from them.
//! `CELLWALL_REVOCATIONS` makes it longer.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Instant;

use cellwall_abi::{Direction, Reason};
use cellwall_policy::flow::Protocol;
use cellwall_testkit::net::Pod;

use crate::conntrack::{addresses, tracking};
use crate::flood::{Held, number, open};
use crate::place::place;
use crate::sockets::until;
use crate::world::{World, allow, pods};

const PORT: u16 = 8080;
/// Connections of somebody whose permission stays.
const OTHERS: usize = 100;
/// Connections from before the programs.
const RUNNING: usize = 1000;

fn listen(pod: &Pod, family: usize) -> TcpListener {
    let address = pod.addresses()[family];
    pod.namespace.run(|| TcpListener::bind((address, PORT)).expect("a free port"))
}

/// The server lets these in, and gets nothing else but answers.
fn admit(world: &mut World, names: &[&str]) {
    let peers = names.iter().map(|name| pods(name)).collect();
    world.policy("in", "server", Direction::Ingress, vec![allow(peers, &[(Protocol::TCP, PORT)])]);
    world.policy("out", "server", Direction::Egress, Vec::new());
}

fn revoked(world: &World) -> u64 {
    Direction::ALL.map(|direction| world.count(Reason::Revoked, direction)).iter().sum()
}

/// Shuts both ends of a connection down when it goes, also when a test fails: whoever uses it must end.
struct End([TcpStream; 2]);

impl Drop for End {
    fn drop(&mut self) {
        for stream in &self.0 {
            // The second has heard of the first where nothing is cut.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Uses a connection until its ends are shut down; when the last answer came. `told` hears of each.
fn last_answer(mut held: Held, told: &mpsc::Sender<()>) -> Instant {
    let mut last = Instant::now();
    while held.exchange().is_ok() {
        last = Instant::now();
        let _ = told.send(());
    }
    last
}

#[test]
fn what_is_revoked_is_cut_at_once_and_nothing_else_is() {
    place("revoked", |place| {
        let [server, friend, other] = [(); 3].map(|()| place.net.pod().expect("a pod"));
        let mut world = World::new(place);
        for (name, pod) in [("server", &server), ("friend", &friend), ("other", &other)] {
            world.pod(name, pod);
        }
        admit(&mut world, &["friend", "other"]);
        world.converge();
        let listeners = [0, 1].map(|family| listen(&server, family));
        let mut others: Vec<Held> =
            (0..OTHERS).map(|n| open(&other, &listeners[n % 2]).expect("allowed")).collect();
        let mut late = Vec::new();
        for n in 0..number("CELLWALL_REVOCATIONS", 20) {
            let held = open(&friend, &listeners[usize::from(n % 2 == 1)]).expect("allowed");
            let before = revoked(&world);
            let (end, (told, answers)) = (End(held.ends()), mpsc::channel());
            let (written, last) = std::thread::scope(|scope| {
                let using = scope.spawn(|| last_answer(held, &told));
                assert_eq!(answers.iter().take(100).count(), 100, "it is used");
                let written = Instant::now();
                admit(&mut world, &["other"]);
                world.converge();
                until("revoked", || revoked(&world) > before);
                let _ = answers.try_iter().count();
                for other in &mut others {
                    other.exchange().expect("nobody revoked this one");
                }
                // What was in a socket's queue already may be read late.
                let more = answers.try_iter().count();
                drop(end);
                assert!(more <= 1, "{more} answers while {OTHERS} others were answered");
                (written, using.join().expect("it ends"))
            });
            late.push(last.saturating_duration_since(written));
            admit(&mut world, &["friend", "other"]);
            world.converge();
        }
        late.sort();
        let at = |share: usize| late[(late.len() - 1) * share / 100];
        println!(
            "{} revocations; last answer after p50 {:?}, p99 {:?}, {:?} at most",
            late.len(),
            at(50),
            at(99),
            at(100)
        );
        world.assert_no_drift();
    });
}

#[test]
fn a_policy_that_comes_cuts_no_running_connection_that_it_allows() {
    place("comes", |place| {
        // Room for both ends of each.
        (place.settings.flows, place.settings.pending) = (16_384, 16_384);
        let [server, friend] = [(); 2].map(|()| place.net.pod().expect("a pod"));
        if !tracking(&place.net, None) {
            return;
        }
        let listeners = [0, 1].map(|family| listen(&server, family));
        let mut running: Vec<Held> =
            (0..RUNNING).map(|n| open(&friend, &listeners[n % 2]).expect("nothing is in the way")).collect();
        let mut world = World::new(place);
        world.pod("server", &server);
        world.pod("friend", &friend);
        admit(&mut world, &["friend"]);
        assert_eq!(world.datapath.import(&addresses(&server)).expect("nf_conntrack answers"), RUNNING);
        world.converge();
        for (n, held) in running.iter_mut().enumerate() {
            held.answer().unwrap_or_else(|error| panic!("the server's end of {n} is cut: {error}"));
            held.exchange().unwrap_or_else(|error| panic!("{n} is cut: {error}"));
        }
        assert_eq!(world.drops(), 0, "{:?}", world.datapath.counters());
        println!("{RUNNING} connections taken over, none cut");
        // One that the policy does not allow is cut, or this shows nothing.
        admit(&mut world, &[]);
        world.converge();
        std::thread::scope(|scope| {
            let end = End(running[0].ends());
            let using = scope.spawn(|| running[0].exchange());
            until("revoked", || revoked(&world) > 0);
            drop(end);
            using.join().expect("it ends").expect_err("it is cut");
        });
    });
}
