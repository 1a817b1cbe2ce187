//! What must not pass, tried all the time: a stranger records what reaches it, and sends to pods before they are there.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_ip_ttl, set_ipv6_unicast_hops, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::scene::Scene;

/// Port of the recorder.
pub(crate) const RECORDER: u16 = 9000;
/// Port on which listeners answer connections.
pub(crate) const HTTP: u16 = 8080;
/// Port on which they answer datagrams.
const UDP: u16 = 8081;
/// To a pod of the node and no further: an address that nobody has yet must not travel between routers.
const HOPS: u8 = 2;
/// More addresses than pods: who gets which is not ours to say.
const SPARE: usize = 4;

/// What passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leaks {
    /// Datagrams of senders that reached the stranger.
    pub(crate) datagrams_out: u64,
    /// Connections of senders to the stranger.
    pub(crate) connections_out: u64,
    /// Datagrams of the stranger that listeners answered.
    pub(crate) answers_in: u64,
    /// Connections of the stranger to listeners.
    pub(crate) connections_in: u64,
}

#[derive(Debug, Default)]
struct Shared {
    /// As [`Leaks`] has them.
    counts: [AtomicU64; 4],
    /// What is tried.
    targets: Mutex<Vec<IpAddr>>,
    stop: AtomicBool,
}

/// It ends with this value.
#[derive(Debug)]
pub(crate) struct Traffic(Arc<Shared>);

impl Traffic {
    /// All sockets are in the network of the stranger.
    pub(crate) fn start(scene: &Scene) -> Self {
        let shared = Arc::new(Shared::default());
        for address in scene.stranger {
            let begun = scene.cluster.in_pod(address, || {
                record(address, &shared);
                send_datagrams(address, &shared);
                for nth in 0..crate::AT_ONCE + SPARE {
                    open_connections(address, nth, &shared);
                }
            });
            begun.expect("the stranger's network");
        }
        Self(shared)
    }

    /// Pods will have the `count` addresses after `last`, of each family.
    pub(crate) fn expect(&self, last: [IpAddr; 2], count: usize) {
        let targets = last.iter().flat_map(|last| (1..=count + SPARE).map(move |n| after(*last, n)));
        *self.0.targets.lock().unwrap_or_else(PoisonError::into_inner) = targets.collect();
    }

    /// Something of each kind has passed since it was asked last.
    pub(crate) fn have_all_passed(&self) -> bool {
        self.0.counts.iter().all(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// What passed since it was asked last.
    pub(crate) fn take(&self) -> Leaks {
        let [datagrams_out, connections_out, answers_in, connections_in] =
            [0, 1, 2, 3].map(|at: usize| self.0.counts[at].swap(0, Ordering::Relaxed));
        Leaks { datagrams_out, connections_out, answers_in, connections_in }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// The address that `host-local` gives `n` pods later.
fn after(last: IpAddr, n: usize) -> IpAddr {
    let n = u32::try_from(n).expect("a few");
    match last {
        IpAddr::V4(last) => {
            // .1 is the node's, and after .254 it begins anew.
            let host = (u32::from(last.octets()[3]) - 2 + n) % 253 + 2;
            IpAddr::V4(Ipv4Addr::from_bits(last.to_bits() & !0xff | host))
        }
        IpAddr::V6(last) => IpAddr::V6(Ipv6Addr::from_bits(last.to_bits() + u128::from(n))),
    }
}

impl Shared {
    fn count(&self, at: usize) {
        self.counts[at].fetch_add(1, Ordering::Relaxed);
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn targets(&self, like: IpAddr) -> Vec<IpAddr> {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.iter().filter(|target| target.is_ipv4() == like.is_ipv4()).copied().collect()
    }
}

fn record(own: IpAddr, shared: &Arc<Shared>) {
    let datagrams = UdpSocket::bind((own, RECORDER)).expect("a free port");
    let connections = TcpListener::bind((own, RECORDER)).expect("a free port");
    datagrams.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
    let counts = Arc::clone(shared);
    thread::spawn(move || {
        while counts.goes_on() {
            match datagrams.recv(&mut [0; 64]) {
                Ok(_) => counts.count(0),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return,
            }
        }
    });
    let counts = Arc::clone(shared);
    // Ends with this process.
    thread::spawn(move || connections.incoming().flatten().for_each(|_| counts.count(1)));
}

fn send_datagrams(own: IpAddr, shared: &Arc<Shared>) {
    let socket = UdpSocket::bind((own, 0)).expect("a free port");
    few_hops(&socket, own);
    socket.set_nonblocking(true).expect("a socket");
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        while shared.goes_on() {
            for target in shared.targets(own) {
                // Nobody has it yet, or nobody listens.
                let _ = socket.send_to(b"hostname", (target, UDP));
            }
            while let Ok(read) = socket.recv(&mut [0; 64]) {
                if read > 0 {
                    shared.count(2);
                }
            }
            thread::sleep(Duration::from_millis(5));
        }
    });
}

/// Tries the `nth` target again and again.
fn open_connections(own: IpAddr, nth: usize, shared: &Arc<Shared>) {
    // A socket belongs to the network of the thread that makes it; a thread begins in that of the one that starts it.
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        while shared.goes_on() {
            thread::sleep(Duration::from_millis(10));
            let Some(target) = shared.targets(own).get(nth).copied() else { continue };
            let family = if own.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = socket(family, SocketType::STREAM, None).expect("a socket");
            few_hops(&socket, own);
            bind(&socket, &SocketAddr::new(own, 0)).expect("a free port");
            set_socket_timeout(&socket, Timeout::Send, Some(Duration::from_millis(150))).expect("a socket");
            if connect(&socket, &SocketAddr::new(target, HTTP)).is_ok() {
                shared.count(3);
            }
        }
    });
}

fn few_hops(socket: impl std::os::fd::AsFd, own: IpAddr) {
    let done = match own {
        IpAddr::V4(_) => set_ip_ttl(socket, u32::from(HOPS)),
        IpAddr::V6(_) => set_ipv6_unicast_hops(socket, Some(HOPS)),
    };
    done.expect("a socket");
}
