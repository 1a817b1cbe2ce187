//! Flows that must go on, packets that must not arrive, and exact counts of both.

mod counters;
mod run;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::thread::{Scope, sleep};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

pub use counters::{never_seen, received, sent_again};
pub use run::{Ends, Run};

use crate::net::Host;

/// Where the echo of both protocols is.
pub const ECHO: u16 = 7000;
/// Where denied packets go.
pub const DENIED: u16 = 7001;
/// How long an answer may take: a machine with several times more to do than it can has been seen to stand still for nine
/// seconds. A datagram that is lost is never answered, however long one waits.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two exchanges of one flow.
const PACE: Duration = Duration::from_millis(25);

/// What one flow, or one sender of denied packets, has done.
#[derive(Debug, Default)]
pub struct Tally {
    /// Questions, or packets that were sent to be denied.
    pub sent: AtomicU64,
    /// Questions that were answered.
    pub answered: AtomicU64,
    /// One was not.
    pub broken: AtomicBool,
    /// Why, and in which of the exchanges.
    pub why: OnceLock<String>,
}

/// Stops the traffic when it goes, also when the test fails.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// When traffic ends: first whoever asks, and then whoever answers, since a question that waits in a queue at that moment
/// has been sent.
#[derive(Debug, Default)]
pub struct End {
    /// Nobody asks any more.
    pub stop: AtomicBool,
    asking: AtomicUsize,
}

impl End {
    fn is_over(&self) -> bool {
        self.stop.load(Relaxed) && self.asking.load(SeqCst) == 0
    }
}

/// A flow that may still ask.
struct Asking<'a>(&'a End);

impl<'a> Asking<'a> {
    fn new(end: &'a End) -> Self {
        end.asking.fetch_add(1, SeqCst);
        Self(end)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.asking.fetch_sub(1, SeqCst);
    }
}

/// Echoes what comes to a host, in both protocols and families, until nobody asks any more.
pub fn echo<'s>(scope: &'s Scope<'s, '_>, host: Host<'_>, end: &'s End) {
    for address in host.addresses {
        let listener = host.namespace.run(|| TcpListener::bind((address, ECHO))).expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        scope.spawn(move || {
            while !end.is_over() {
                match listener.accept() {
                    Ok((stream, _)) => drop(scope.spawn(move || echo_stream(stream, end))),
                    Err(_) => sleep(Duration::from_millis(5)),
                }
            }
        });
        let socket = host.namespace.run(|| UdpSocket::bind((address, ECHO))).expect("a free port");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket");
        scope.spawn(move || {
            let mut bytes = [0; 8];
            while !end.is_over() {
                if let Ok((length, from)) = socket.recv_from(&mut bytes)
                    && let Err(error) = socket.send_to(&bytes[..length], from)
                {
                    println!("{from} was not answered: {error}");
                }
            }
        });
    }
}

fn echo_stream(mut stream: TcpStream, end: &End) {
    stream.set_nonblocking(false).expect("a socket");
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket");
    let mut bytes = [0; 64];
    while !end.is_over() {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(length) if stream.write_all(&bytes[..length]).is_ok() => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            _ => return,
        }
    }
}

/// Opens a TCP connection and keeps it busy until `stop`, with whoever echoes until `end`; any reset, and any answer that is
/// late, missing or wrong, breaks it.
pub fn tcp<'s>(
    scope: &'s Scope<'s, '_>,
    (from, to): (Host<'_>, IpAddr),
    (stop, end): (&'s AtomicBool, &'s End),
    tally: &'s Tally,
) {
    let asking = Asking::new(end);
    let stream = from.namespace.run(|| TcpStream::connect_timeout(&SocketAddr::new(to, ECHO), PATIENCE));
    let mut stream = stream.expect("it is allowed");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    scope.spawn(move || {
        run(stop, asking, tally, |number| {
            stream.write_all(&number.to_be_bytes())?;
            let mut answer = [0; 8];
            stream.read_exact(&mut answer)?;
            Ok(u64::from_be_bytes(answer) == number)
        });
    });
}

/// Asks and is answered from one UDP port to another; one lost question or answer breaks it.
pub fn udp<'s>(
    scope: &'s Scope<'s, '_>,
    (from, to): (Host<'_>, IpAddr),
    (stop, end): (&'s AtomicBool, &'s End),
    tally: &'s Tally,
) {
    let asking = Asking::new(end);
    let any = from.addresses[usize::from(to.is_ipv6())];
    let socket = from.namespace.run(|| UdpSocket::bind((any, 0))).expect("a free port");
    socket.connect((to, ECHO)).expect("a route");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    scope.spawn(move || {
        run(stop, asking, tally, |number| {
            socket.send(&number.to_be_bytes())?;
            let mut answer = [0; 8];
            socket.recv(&mut answer)?;
            Ok(u64::from_be_bytes(answer) == number)
        });
    });
}

fn run(
    stop: &AtomicBool,
    _asking: Asking<'_>,
    tally: &Tally,
    mut exchange: impl FnMut(u64) -> io::Result<bool>,
) {
    while !stop.load(Relaxed) {
        let number = tally.sent.fetch_add(1, Relaxed);
        let start = Instant::now();
        match exchange(number) {
            Ok(true) => tally.answered.fetch_add(1, Relaxed),
            other => {
                let _ = tally.why.set(format!("exchange {number}, after {:?}: {other:?}", start.elapsed()));
                return tally.broken.store(true, Relaxed);
            }
        };
        sleep(PACE);
    }
}

/// Sends datagrams and SYNs of both families to somebody who must not get them, about two thousand a second.
pub fn denied<'s>(
    scope: &'s Scope<'s, '_>,
    (from, to): (Host<'s>, Host<'_>),
    stop: &'s AtomicBool,
    tally: &'s Tally,
) {
    let targets = to.addresses;
    scope.spawn(move || {
        from.namespace.enter().expect("root");
        let fours = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
        let sixes = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a free port");
        while !stop.load(Relaxed) {
            for (target, socket) in targets.iter().zip([&fours, &sixes]) {
                let sent = u64::from(socket.send_to(b"denied", (*target, DENIED)).is_ok())
                    + u64::from(syn(SocketAddr::new(*target, DENIED)));
                tally.sent.fetch_add(sent, Relaxed);
            }
            sleep(Duration::from_millis(2));
        }
    });
}

/// Sends one SYN and forgets about it.
fn syn(target: SocketAddr) -> bool {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None).expect("a socket");
    connect(&socket, &target) == Err(rustix::io::Errno::INPROGRESS)
}
