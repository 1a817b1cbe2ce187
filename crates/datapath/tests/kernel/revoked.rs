//! Rows B6 and B7 of docs/robustness.md, with counts: policies that come to running connections, and permissions that go from
//! them. `CELLWALL_REVOCATIONS` says how many of each kind.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cellwall_abi::{Direction, Reason};
use cellwall_policy::flow::Protocol;
use cellwall_policy::model::Peer;
use cellwall_testkit::net::Pod;
use rustix::net::{Shutdown, shutdown};

use crate::conntrack::{addresses, tracking};
use crate::flood::{self, Held, PATIENCE, number};
use crate::place::place;
use crate::sockets::until;
use crate::world::{World, allow, pods, pods_of_team};

const PORT: u16 = 8080;
/// Connections of somebody whose permission stays.
const OTHERS: usize = 100;
/// Connections from before the programs.
const RUNNING: usize = 1000;
/// The label of the friend's namespace while the friend is one.
const TEAM: &str = "home";

/// The subject may speak with these, in one direction, and else only answers.
fn permit(world: &mut World, direction: Direction, peers: Vec<Peer>, ports: &[(Protocol, u16)]) {
    world.policy("permitted", "subject", direction, vec![allow(peers, ports)]);
    world.policy("answers", "subject", direction.reverse(), Vec::new());
}

fn revoked(world: &World) -> u64 {
    Direction::ALL.map(|direction| world.count(Reason::Revoked, direction)).iter().sum()
}

/// Shuts both ends of a connection down when it goes, also when a test fails: whoever uses it must end.
struct End([OwnedFd; 2]);

impl Drop for End {
    fn drop(&mut self) {
        for socket in &self.0 {
            // The second has heard of the first where nothing is cut.
            let _ = shutdown(socket, Shutdown::Both);
        }
    }
}

/// A connection and its other end.
enum Line {
    Tcp(Held),
    Udp(UdpSocket, UdpSocket),
}

impl Line {
    /// At ports of its own.
    fn open(protocol: Protocol, from: &Pod, to: &Pod, family: usize) -> Self {
        let [source, target] = [from, to].map(|pod| (pod.addresses()[family], 0));
        if protocol == Protocol::TCP {
            let listener = to.namespace.run(|| TcpListener::bind(target).expect("a free port"));
            return Self::Tcp(flood::open(from, &listener).expect("allowed"));
        }
        let asks = from.namespace.run(|| UdpSocket::bind(source).expect("a free port"));
        let answers = to.namespace.run(|| UdpSocket::bind(target).expect("a free port"));
        for (socket, peer) in [(&asks, &answers), (&answers, &asks)] {
            socket.connect(peer.local_addr().expect("bound")).expect("a route");
            socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        }
        Self::Udp(asks, answers)
    }

    /// A question and its answer. An end that was shut down hears nothing, and that at once.
    fn exchange(&mut self) -> io::Result<()> {
        let (asks, answers) = match self {
            Self::Tcp(held) => return held.exchange(),
            Self::Udp(asks, answers) => (asks, answers),
        };
        for (says, hears) in [(&*asks, &*answers), (&*answers, &*asks)] {
            says.send(b"ping")?;
            if hears.recv(&mut [0; 8])? != 4 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    fn end(&self) -> End {
        End(match self {
            Self::Tcp(held) => held.ends().map(OwnedFd::from),
            Self::Udp(asks, answers) => {
                [asks, answers].map(|socket| socket.try_clone().expect("a descriptor").into())
            }
        })
    }

    /// Uses it until its ends are shut down; when the last answer came. `told` hears of each.
    fn last_answer(mut self, told: &mpsc::Sender<()>) -> Instant {
        let mut last = Instant::now();
        while self.exchange().is_ok() {
            last = Instant::now();
            let _ = told.send(());
        }
        last
    }
}

/// What takes the friend's permission away.
#[derive(Clone, Copy, Debug)]
enum How {
    /// The policy names it no more.
    Policy,
    /// It has another label.
    Label,
    /// Its namespace has another label, by which nobody else is let in.
    Namespace,
}

/// A subject that is isolated in both directions, and whom it may speak with.
struct Scene {
    world: World,
    subject: Pod,
    friend: Pod,
    other: Pod,
}

impl Scene {
    fn permit(&mut self, direction: Direction) {
        let peers = vec![pods_of_team(TEAM, "friend"), pods("other")];
        permit(&mut self.world, direction, peers, &[]);
        self.world.team(TEAM);
        self.world.pod_of_app("friend", "friend", &self.friend.addresses());
        self.world.converge();
    }

    fn revoke(&mut self, how: How, direction: Direction) {
        match how {
            How::Policy => permit(&mut self.world, direction, vec![pods("other")], &[]),
            How::Label => self.world.pod_of_app("friend", "stranger", &self.friend.addresses()),
            How::Namespace => self.world.team("away"),
        }
        self.world.converge();
    }

    /// Opened by whoever does in this direction.
    fn open(&self, protocol: Protocol, direction: Direction, peer: &Pod, family: usize) -> Line {
        let (from, to) = match direction {
            Direction::Ingress => (peer, &self.subject),
            Direction::Egress => (&self.subject, peer),
        };
        Line::open(protocol, from, to, family)
    }

    /// Revokes what is permitted while it is used. How long after that was asked for the last answer came.
    fn cut(&mut self, mut line: Line, others: &mut [Line], revoke: impl FnOnce(&mut Self)) -> Duration {
        line.exchange().expect("it is allowed");
        let before = revoked(&self.world);
        let (end, (told, answers)) = (line.end(), mpsc::channel());
        std::thread::scope(|scope| {
            let using = scope.spawn(move || line.last_answer(&told));
            assert_eq!(answers.iter().take(100).count(), 100, "it is used");
            let asked = Instant::now();
            revoke(self);
            until("revoked", || revoked(&self.world) > before);
            let _ = answers.try_iter().count();
            for other in &mut *others {
                other.exchange().expect("nobody revoked this one");
            }
            // What was in a socket's queue already may be read late.
            let more = answers.try_iter().count();
            drop(end);
            assert!(more <= 1, "{more} answers while {} others were answered", others.len());
            using.join().expect("it ends").saturating_duration_since(asked)
        })
    }
}

#[test]
fn what_is_revoked_is_cut_at_once_and_nothing_else_is() {
    place("revoked", |place| {
        let [subject, friend, other] = [(); 3].map(|()| place.net.pod().expect("a pod"));
        let mut world = World::new(place);
        for (name, pod) in [("subject", &subject), ("friend", &friend), ("other", &other)] {
            world.pod(name, pod);
        }
        let mut scene = Scene { world, subject, friend, other };
        let count = number("CELLWALL_REVOCATIONS", 4);
        for direction in Direction::ALL {
            scene.permit(direction);
            for protocol in [Protocol::TCP, Protocol::UDP] {
                let mut others: Vec<Line> =
                    (0..OTHERS).map(|n| scene.open(protocol, direction, &scene.other, n % 2)).collect();
                for how in [How::Policy, How::Label, How::Namespace] {
                    let mut late = Vec::new();
                    for n in 0..count {
                        let family = usize::from(n % 2 == 1);
                        let line = scene.open(protocol, direction, &scene.friend, family);
                        late.push(scene.cut(line, &mut others, |scene| scene.revoke(how, direction)));
                        scene.permit(direction);
                    }
                    late.sort();
                    let at = |share: usize| late[(late.len() - 1) * share / 100];
                    println!(
                        "{direction:?}, {protocol:?}, by {how:?}: {count} revocations; last answer after p50 {:?}, p99 {:?}, {:?} at most",
                        at(50),
                        at(99),
                        at(100)
                    );
                }
            }
        }
        scene.world.assert_no_drift();
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
        let listeners = server
            .addresses()
            .map(|address| server.namespace.run(|| TcpListener::bind((address, PORT)).expect("a free port")));
        let mut running: Vec<Held> = (0..RUNNING)
            .map(|n| flood::open(&friend, &listeners[n % 2]).expect("nothing is in the way"))
            .collect();
        let mut world = World::new(place);
        world.pod("subject", &server);
        world.pod("friend", &friend);
        permit(&mut world, Direction::Ingress, vec![pods("friend")], &[(Protocol::TCP, PORT)]);
        assert_eq!(world.datapath.import(&addresses(&server)).expect("nf_conntrack answers"), RUNNING);
        world.converge();
        for (n, held) in running.iter_mut().enumerate() {
            held.answer().unwrap_or_else(|error| panic!("the server's end of {n} is cut: {error}"));
            held.exchange().unwrap_or_else(|error| panic!("{n} is cut: {error}"));
        }
        assert_eq!(world.drops(), 0, "{:?}", world.datapath.counters());
        println!("{RUNNING} connections taken over, none cut");
        // One that the policy does not allow is cut, or this shows nothing.
        permit(&mut world, Direction::Ingress, Vec::new(), &[(Protocol::TCP, PORT)]);
        world.converge();
        std::thread::scope(|scope| {
            let end = End(running[0].ends().map(OwnedFd::from));
            let using = scope.spawn(|| running[0].exchange());
            until("revoked", || revoked(&world) > 0);
            drop(end);
            using.join().expect("it ends").expect_err("it is cut");
        });
    });
}
