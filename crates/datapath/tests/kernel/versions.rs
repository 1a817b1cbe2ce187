//! What another ABI version has pinned: nobody reads its tables, its programs enforce what they say until ours stand in their
//! place, and then it is gone.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use cellwall_abi::Direction;
use cellwall_datapath::{Attach, Attached};
use cellwall_policy::flow::Protocol;
use cellwall_testkit::net::Pod;

use crate::conntrack::{PORT, Talk, addresses, server_world, tracking, world_of};
use crate::place::{Place, place};
use crate::sockets::until;
use crate::traffic::{Probe, SENDERS, Scene, Stop, Tally, WINDOW, rules};
use crate::world::World;

/// Within this time an answer comes that comes at all.
const ANSWERED: Duration = Duration::from_secs(1);

/// As after an update: all that is pinned is another version's.
fn become_another_version(place: &Place) -> PathBuf {
    let other = place.settings.root().join("abi0");
    fs::rename(place.settings.folder(), &other).expect("a folder of ours");
    other
}

/// Everybody sends on.
fn go_on(tallies: &[Tally; 6]) {
    let sent = tallies.each_ref().map(|tally| tally.sent.load(Relaxed));
    until("on its way", || {
        tallies.iter().zip(sent).all(|(tally, sent)| tally.sent.load(Relaxed) > sent + WINDOW)
    });
}

/// True when somebody answers: nobody listens there, and the pod says so.
fn connects(from: &Pod, to: &Pod) -> bool {
    let refused = |at: IpAddr| {
        let connected = from.namespace.run(|| TcpStream::connect_timeout(&(at, PORT).into(), ANSWERED));
        connected.expect_err("nobody listens there").kind() == ErrorKind::ConnectionRefused
    };
    let [four, six] = to.addresses().map(refused);
    assert_eq!(four, six, "both families");
    four
}

fn handed_over(place: &mut Place) {
    let Scene { mut world, server, client } = Scene::new(place);
    let left = place.net.pod().expect("a pod");
    world.pod("left", &left);
    world.policy("all", "left", Direction::Ingress, vec![]);
    world.policy("p", "server", Direction::Ingress, rules(1));
    world.converge();
    let theirs = world.datapath.program_ids();
    let (stop, tallies) = (AtomicBool::new(false), <[Tally; 6]>::default());
    let other = std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        Scene::start(scope, (&server, &client), &stop, &tallies);
        go_on(&tallies);
        drop(world);
        let other = become_another_version(place);

        // It may take any time until all is known that is to be enforced.
        let mut world = World::new(place);
        assert!(world.datapath.program_ids().iter().all(|id| !theirs.contains(id)));
        assert!(world.datapath.has_others() && world.datapath.attached().expect("hooks").is_empty());
        let probe = Probe::new(&server);
        go_on(&tallies);
        assert_eq!(probe.passes(&client), [false; 2], "as their tables have it");

        world.running_pod("server", &server);
        world.running_pod("client", &client);
        world.policy("p", "server", Direction::Ingress, rules(1));
        world.policy("answers", "client", Direction::Ingress, vec![]);
        world.converge();
        let kind = if place.settings.attach == Attach::Auto && world.datapath.features().tcx {
            "tcx"
        } else {
            "clsact"
        };
        for pod in [&server, &client] {
            let attached = world.datapath.attached().expect("hooks");
            assert_eq!(attached[&pod.ifindex], Attached { kind, first: true });
        }
        go_on(&tallies);
        world.policy("p", "server", Direction::Ingress, rules(0));
        world.converge();
        assert_eq!(probe.passes(&client), [true; 2], "nobody asks their tables any more");

        assert!(!connects(&client, &left), "of this pod we were not told, and theirs is still there");
        world.datapath.remove_others().expect("nobody else acts");
        assert!(!world.datapath.has_others());
        assert!(connects(&client, &left), "nobody is there any more");
        go_on(&tallies);
        world.policy("p", "server", Direction::Ingress, rules(1));
        world.converge();
        assert_eq!(probe.passes(&client), [false; 2], "ours are there");
        world.assert_no_drift();
        other
    });
    println!("{:?}: {:?}", place.settings.attach, SENDERS.iter().zip(&tallies).collect::<Vec<_>>());
    for (what, tally) in SENDERS.iter().zip(&tallies) {
        assert_eq!(tally.wrong.load(Relaxed), 0, "what is {what} was judged by nobody, or otherwise");
    }
    assert!(!other.exists(), "nothing of it is left");
}

#[test]
fn programs_of_another_version_enforce_until_ours_do() {
    for attach in [Attach::Auto, Attach::Clsact] {
        place("version", |place| {
            place.settings.attach = attach;
            handed_over(place);
        });
    }
}

/// The opener sends, and nothing arrives. What the other side sent in vain before is sent again ever more seldom.
fn asks_in_vain(talk: &mut Talk, world: &World) {
    let Talk::Tcp(from, to) = talk else { unreachable!("it was made so") };
    let before = world.drops();
    from.write_all(b"x").expect("room in the buffer");
    until("dropped", || world.drops() > before);
    to.set_nonblocking(true).expect("a socket");
    let nothing = to.read(&mut [0]).expect_err("nothing arrives");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
}

/// Connections are not carried over: nf_conntrack says which there are, and policy is asked about each.
#[test]
fn running_connections_are_judged_anew() {
    place("vertcp", |place| {
        if !tracking(&place.net, None) {
            return;
        }
        let (mut world, pods) = server_world(place, Protocol::TCP);
        let [server, friend, stranger] = &pods;
        let talk = |from, at| Talk::tcp(from, server, at, (at, PORT).into());
        let mut allowed = server.addresses().map(|at| talk(friend, at));
        let mut denied = server.addresses().map(|at| talk(stranger, at));
        for nth in 0..2 {
            if nth > 0 {
                drop(world);
                become_another_version(place);
                world = world_of(place, Protocol::TCP, &pods);
            }
            assert_eq!(world.datapath.import(&addresses(server)).expect("nf_conntrack answers"), 4);
            world.converge();
            world.datapath.remove_others().expect("nobody else acts");
            for talk in &mut allowed {
                talk.answer();
                talk.ask();
            }
            for talk in &mut denied {
                if nth == 0 { talk.assert_cut(&world) } else { asks_in_vain(talk, &world) }
            }
        }
    });
}
