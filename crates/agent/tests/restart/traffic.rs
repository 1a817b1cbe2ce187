//! Flows that must go on, packets that must not arrive, and exact counts of both.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::thread::{Scope, ScopedJoinHandle, sleep};
use std::time::{Duration, Instant};

use cellwall_testkit::net::Pod;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

/// Where the echo of both protocols is.
const ECHO: u16 = 7000;
/// Where denied packets go.
const DENIED: u16 = 7001;
/// How long an answer may take: a machine with several times more to do than it can has been seen to stand still for nine
/// seconds. A datagram that is lost is never answered, however long one waits.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two exchanges of one flow.
const PACE: Duration = Duration::from_millis(25);

/// What one flow, or one sender of denied packets, has done.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: AtomicU64,
    pub(crate) answered: AtomicU64,
    pub(crate) broken: AtomicBool,
    /// Why, and in which of the exchanges.
    pub(crate) why: OnceLock<String>,
}

/// Stops the traffic when it goes, also when the test fails.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// When traffic ends: first whoever asks, and then whoever answers, since a question that waits in a queue at that moment
/// has been sent.
#[derive(Debug, Default)]
pub(crate) struct End {
    pub(crate) stop: AtomicBool,
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

/// Echoes what comes to a pod, in both protocols and families, until nobody asks any more.
pub(crate) fn echo<'s>(scope: &'s Scope<'s, '_>, pod: &Pod, end: &'s End) {
    for address in pod.addresses() {
        let listener = pod.namespace.run(|| TcpListener::bind((address, ECHO))).expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        scope.spawn(move || {
            while !end.is_over() {
                match listener.accept() {
                    Ok((stream, _)) => drop(scope.spawn(move || echo_stream(stream, end))),
                    Err(_) => sleep(Duration::from_millis(5)),
                }
            }
        });
        let socket = pod.namespace.run(|| UdpSocket::bind((address, ECHO))).expect("a free port");
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

/// Opens a TCP connection and keeps it busy until `stop`, with whoever echoes until `end`; any reset, and any answer that is late, missing or wrong, breaks it.
pub(crate) fn tcp<'s>(
    scope: &'s Scope<'s, '_>,
    (from, to): (&Pod, IpAddr),
    (stop, end): (&'s AtomicBool, &'s End),
    tally: &'s Tally,
) -> ScopedJoinHandle<'s, ()> {
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
    })
}

/// Asks and is answered from one UDP port to another; one lost question or answer breaks it.
pub(crate) fn udp<'s>(
    scope: &'s Scope<'s, '_>,
    (from, to): (&Pod, IpAddr),
    (stop, end): (&'s AtomicBool, &'s End),
    tally: &'s Tally,
) -> ScopedJoinHandle<'s, ()> {
    let asking = Asking::new(end);
    let any = from.addresses()[usize::from(to.is_ipv6())];
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
    })
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
pub(crate) fn denied<'s>(
    scope: &'s Scope<'s, '_>,
    (from, to): (&'s Pod, &Pod),
    stop: &'s AtomicBool,
    tally: &'s Tally,
) {
    let targets = to.addresses();
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

/// Datagrams and segments that a pod's kernel has got so far, whoever they were for. Its counters lose nothing.
pub(crate) fn received(pod: &Pod) -> u64 {
    let (table, six) = pod.namespace.run(|| {
        let read = |name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        (read("snmp").expect("a kernel with IPv4"), read("snmp6").expect("a kernel with IPv6"))
    });
    let six = |name: &str| {
        let value = six.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        value.expect("a counter of the kernel")
    };
    let udp6 = six("Udp6InDatagrams ") + six("Udp6NoPorts ") + six("Udp6InErrors ");
    // Segments are counted for both families together; of IPv4 everything counts.
    four(&table, "Tcp:", "InSegs") + four(&table, "Ip:", "InReceives") + udp6
}

/// A value of a table of two lines, names and numbers.
fn four(table: &str, group: &str, name: &str) -> u64 {
    let mut lines = table.lines().filter(|line| line.starts_with(group));
    let names = lines.next().expect("a line of names").split_whitespace();
    let values = lines.next().expect("a line of numbers").split_whitespace();
    let value = names.zip(values).find(|(found, _)| *found == name).and_then(|(_, value)| value.parse().ok());
    value.expect("a counter of the kernel")
}

/// Segments that a pod's kernel sent more than once.
pub(crate) fn sent_again(pod: &Pod) -> u64 {
    let table = pod.namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"));
    four(&table.expect("a kernel with IPv4"), "Tcp:", "RetransSegs")
}

/// Packets that the machine's kernel has thrown away since it started, before any program saw them: a queue of a processor
/// was full.
pub(crate) fn never_seen() -> u64 {
    let text = std::fs::read_to_string("/proc/net/softnet_stat").expect("a kernel with a network");
    let second = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    text.lines().filter_map(second).sum()
}
