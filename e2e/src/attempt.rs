//! Connections that are tried, and where nf_conntrack says that they were led.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, bind, connect as connect_to, getsockname, socket};

/// An answer that has not come by then does not come: they come within a millisecond.
const PATIENCE: Duration = Duration::from_millis(2500);

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A connection, which is answered when it is accepted.
    Tcp,
    /// A datagram to `agnhost netexec`, which answers it.
    Udp,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Somebody answered.
    Answered,
    /// Somebody said that nobody is there.
    Refused,
    /// Nothing came back.
    Silent,
}

/// One connection that was tried.
#[derive(Debug)]
pub struct Attempt {
    /// Port of the client.
    pub port: u16,
    /// How it ended.
    pub outcome: Outcome,
}

/// Tries `count` connections at once from this address to that one, on the network of this thread.
pub fn ask(from: IpAddr, to: SocketAddr, transport: Transport, count: usize) -> io::Result<Vec<Attempt>> {
    // All ports are taken before the first is used: one that is free again may be led elsewhere the second time, and what
    // nf_conntrack has then is about the last attempt alone.
    let bound: Vec<_> = (0..count).map(|_| Bound::new(from, transport)).collect::<io::Result<_>>()?;
    thread::scope(|scope| {
        let all: Vec<_> = bound.into_iter().map(|bound| scope.spawn(move || bound.attempt(to))).collect();
        let results =
            all.into_iter().map(|attempt| attempt.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
        results.collect()
    })
}

/// Connects from this address; an error when nobody answers.
pub fn connect(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let bound = Bound::new(from, Transport::Tcp)?;
    bound.connect(to)??;
    Ok(bound.socket.into())
}

/// A socket with a port of its own.
struct Bound {
    socket: OwnedFd,
    port: u16,
    transport: Transport,
}

impl Bound {
    fn new(from: IpAddr, transport: Transport) -> io::Result<Self> {
        let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let kind = match transport {
            Transport::Tcp => SocketType::STREAM,
            Transport::Udp => SocketType::DGRAM,
        };
        let socket = socket(family, kind, None)?;
        bind(&socket, &SocketAddr::new(from, 0))?;
        let port = SocketAddr::try_from(getsockname(&socket)?)?.port();
        Ok(Self { socket, port, transport })
    }

    fn connect(&self, to: SocketAddr) -> io::Result<Result<(), Errno>> {
        set_socket_timeout(&self.socket, Timeout::Send, Some(PATIENCE))?;
        Ok(connect_to(&self.socket, &to))
    }

    fn attempt(self, to: SocketAddr) -> io::Result<Attempt> {
        let port = self.port;
        let outcome = match self.transport {
            Transport::Tcp => self.try_tcp(to)?,
            Transport::Udp => self.try_udp(to)?,
        };
        Ok(Attempt { port, outcome })
    }

    fn try_tcp(self, to: SocketAddr) -> io::Result<Outcome> {
        match self.connect(to)? {
            Ok(()) => {}
            Err(Errno::CONNREFUSED) => return Ok(Outcome::Refused),
            Err(Errno::INPROGRESS | Errno::TIMEDOUT) => return Ok(Outcome::Silent),
            Err(other) => return Err(other.into()),
        }
        // The other side is a program that ends connections in order.
        let mut stream = TcpStream::from(self.socket);
        stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let _ = stream.read(&mut [0; 512]);
        Ok(Outcome::Answered)
    }

    fn try_udp(self, to: SocketAddr) -> io::Result<Outcome> {
        let socket = UdpSocket::from(self.socket);
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(to)?;
        match socket.send(b"hostname").and_then(|_| socket.recv(&mut [0; 512])) {
            Ok(_) => Ok(Outcome::Answered),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(Outcome::Refused),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Outcome::Silent),
            Err(other) => Err(other),
        }
    }
}

/// Where nf_conntrack says that an attempt was led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Led {
    /// Who is to answer.
    pub backend: SocketAddr,
    /// The port that it answers to: the client's, or what the node chose in its place (masquerading).
    pub answers_to: u16,
}

impl Attempt {
    /// The backend, as [`Self::led`] finds it.
    #[must_use]
    pub fn chosen(&self, table: &str, to: SocketAddr, transport: Transport) -> Option<SocketAddr> {
        self.led(table, to, transport).map(|led| led.backend)
    }

    /// What became of it, according to the text of `/proc/net/nf_conntrack`.
    #[must_use]
    pub fn led(&self, table: &str, to: SocketAddr, transport: Transport) -> Option<Led> {
        let name = match transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        table.lines().filter(|line| line.split_whitespace().nth(2) == Some(name)).find_map(|line| {
            // Of the packets that ask, and of those that answer.
            let both = |key: &str| -> Option<[&str; 2]> {
                let all: Vec<_> = line.split_whitespace().filter_map(|word| word.strip_prefix(key)).collect();
                all.try_into().ok()
            };
            let ([_, backend], [asked, _]) = (both("src=")?, both("dst=")?);
            let ([from, port], [asked_port, answers_to]) = (both("sport=")?, both("dport=")?);
            let asked = SocketAddr::new(asked.parse().ok()?, asked_port.parse().ok()?);
            let is_it = from.parse() == Ok(self.port) && asked == to;
            let backend = SocketAddr::new(backend.parse().ok()?, port.parse().ok()?);
            is_it.then_some(Led { backend, answers_to: answers_to.parse().ok()? })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_backend_is_who_answers() {
        let table = "ipv4     2 tcp      6 118 SYN_SENT src=10.0.0.2 dst=10.96.0.9 sport=4711 dport=80 [UNREPLIED] \
                     src=10.0.0.3 dst=10.0.0.2 sport=8080 dport=4711 mark=0 zone=0 use=2\n";
        let to: SocketAddr = "10.96.0.9:80".parse().expect("an address");
        let attempt = Attempt { port: 4711, outcome: Outcome::Silent };
        assert_eq!(attempt.chosen(table, to, Transport::Tcp), "10.0.0.3:8080".parse().ok());
        assert_eq!(attempt.chosen(table, to, Transport::Udp), None);
        assert_eq!(Attempt { port: 4712, ..attempt }.chosen(table, to, Transport::Tcp), None);
        let table = table.replace("dport=4711 mark", "dport=8472 mark");
        assert_eq!(attempt.led(&table, to, Transport::Tcp).map(|led| led.answers_to), Some(8472));
    }

    #[test]
    fn attempts_at_once_have_ports_of_their_own() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let to = listener.local_addr().expect("it has one");
        // Whoever closes second has its port back at once.
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 64]);
            }
        });
        let attempts = ask(to.ip(), to, Transport::Tcp, 500).expect("sockets");
        assert!(attempts.iter().all(|attempt| attempt.outcome == Outcome::Answered));
        let ports: BTreeSet<u16> = attempts.iter().map(|attempt| attempt.port).collect();
        assert_eq!(ports.len(), attempts.len());
    }
}
