//! A pod that forges and floods, and a folder full of nonsense: others do not notice.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{scope, sleep, yield_now};
use std::time::{Duration, Instant};

use cellwall_api::v1alpha1::NodeStatus;
use cellwall_policy::flow::Direction;
use cellwall_testkit::frame::packet;
use cellwall_testkit::net::{PacketSocket, Pod};
use rustix::net::{AddressFamily, RawProtocol, SendFlags, SocketFlags, SocketType, sendto, socket_with};

use crate::ready;
use crate::rig::{Rig, Run};
use crate::traffic::{self, Stop};
use crate::world::SOON;

/// Where the forger's datagrams go.
const TARGET: u16 = 7002;

/// A UDP datagram with headers of one's own choice in front: what is between is `extra`, which is options of IPv4 or
/// extension headers of IPv6, the first of which has the number `next`.
fn datagram(from: IpAddr, to: IpAddr, (next, extra): (u8, &[u8])) -> Vec<u8> {
    let udp = [&4000_u16.to_be_bytes()[..], &TARGET.to_be_bytes(), &[0, 14, 0, 0], b"forged"].concat();
    let length = u16::try_from(extra.len() + udp.len()).expect("small").to_be_bytes();
    let head = match (from, to) {
        // The kernel fills in length and checksum.
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let words = 5 + u8::try_from(extra.len() / 4).expect("small");
            [&[0x40 | words, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0][..], &from.octets(), &to.octets()].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            [&[0x60, 0, 0, 0, length[0], length[1], next, 64][..], &from.octets(), &to.octets()].concat()
        }
        _ => panic!("two families"),
    };
    [&head[..], extra, &udp].concat()
}

/// Sends a packet from its IP header on, as a pod with CAP_NET_RAW can.
fn send_raw(pod: &Pod, to: IpAddr, packet: &[u8]) -> bool {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let protocol = RawProtocol::new(255).map(rustix::net::Protocol::from_raw);
    pod.namespace.run(|| {
        let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol).expect("root");
        sendto(&socket, packet, SendFlags::empty(), &SocketAddr::new(to, 0)).is_ok()
    })
}

/// Destination options without an option: `count` headers, the last of which leads to UDP.
fn padding(count: usize) -> Vec<u8> {
    (1..=count).flat_map(|n| [if n == count { 17 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]).collect()
}

/// Datagrams in the name of the client to the server, which lets the client in, and to a bystander, whom everybody may reach.
struct Forgery<'a> {
    rig: &'a Rig,
    bystander: &'a Pod,
    sent: u32,
}

impl Forgery<'_> {
    /// What is between the headers of IP and UDP, by family; true where an isolated pod gets it from the client itself.
    fn cases(family: usize) -> Vec<(String, Vec<u8>, bool)> {
        if family == 0 {
            let options: [(&str, Vec<u8>, bool); 3] = [
                ("no options", Vec::new(), true),
                ("options that do nothing", vec![1, 1, 1, 0], true),
                ("a loose source route", vec![131, 3, 4, 0], false),
            ];
            return options.map(|(name, extra, passes)| (name.to_owned(), extra, passes)).to_vec();
        }
        let chain = |count| (format!("{count} extension headers"), padding(count), count <= 8);
        [0, 1, 8, 9, 12].map(chain).to_vec()
    }

    /// Sends all of them from a pod; those that arrived, and whether they pass at an isolated pod when it is the client.
    fn send(&mut self, from: &Pod) -> Vec<(String, bool)> {
        let mut arrived = Vec::new();
        for (who, receiver) in [("the server", &self.rig.server), ("a bystander", self.bystander)] {
            for family in 0..2 {
                let to = receiver.addresses()[family];
                let socket = receiver.namespace.run(|| UdpSocket::bind((to, TARGET))).expect("a free port");
                socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket");
                let name_of = self.rig.client.addresses()[family];
                for (name, extra, may_pass) in Self::cases(family) {
                    let next = if extra.is_empty() { 17 } else { 60 };
                    let packet = datagram(name_of, to, (next, &extra));
                    // The counters of the receiver's kernel see more than its sockets do.
                    let before = traffic::received(receiver);
                    for _ in 0..10 {
                        self.sent += u32::from(send_raw(from, to, &packet));
                    }
                    let mut got = 0;
                    while socket.recv_from(&mut [0; 64]).is_ok() {
                        got += 1;
                    }
                    if got > 0 || traffic::received(receiver) > before {
                        arrived.push((format!("{who}, IPv{}, {name}", 4 + 2 * family), may_pass));
                    }
                }
            }
        }
        arrived
    }
}

#[test]
fn a_pod_cannot_speak_in_the_name_of_another() {
    let Some(mut rig) = Rig::new("forged") else { return };
    let bystander = rig.world.pod("bystander");
    // The node itself must not be what keeps them apart.
    for at in ["all", rig.stranger.interface.as_str()] {
        rig.world.net.host.sysctl(&format!("ipv4/conf/{at}/rp_filter"), "0").expect("a setting");
    }
    let mut forgery = Forgery { rig: &rig, bystander: &bystander, sent: 0 };
    // Kernels drop source routes themselves, unless somebody lets them.
    let all = 2 * (Forgery::cases(0).len() - 1 + Forgery::cases(1).len());
    let arrived = forgery.send(&rig.stranger);
    assert_eq!(arrived.len(), all, "without an agent every one of them works: {arrived:#?}");

    let _agent = rig.world.agent(&[]);
    let six = |s: &NodeStatus| s.ready && s.endpoint_count == 7 && s.unplaced_pods.is_empty();
    rig.world.until("ready", six);
    // Nothing isolates the bystander.
    let of_client = forgery.send(&rig.client);
    let (at_server, at_bystander): (Vec<_>, Vec<_>) =
        of_client.iter().partition(|(what, _)| what.starts_with("the server"));
    let allowed = at_server.iter().filter(|(_, passes)| *passes).count();
    assert_eq!((at_server.len(), allowed, at_bystander.len()), (5, 5, all / 2), "{of_client:#?}");
    forgery.sent = 0;
    let arrived = forgery.send(&rig.stranger);
    println!("{} forged packets sent", forgery.sent);
    assert!(forgery.sent > 100);
    assert!(arrived.is_empty(), "forged packets arrived at {arrived:#?}");
}

/// A frame of a flood: a SYN or a datagram with numbers of its own, to where nobody is.
fn flood_frame(attacker: &Pod, number: u32) -> Vec<u8> {
    let [_, a, b, c] = number.to_be_bytes();
    let mut payload = [a | 0x40, b, c, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xfa, 0, 0, 0, 0, 0];
    let protocol = if number & 2 == 0 { 6 } else { 17 };
    if protocol == 17 {
        payload[4..8].copy_from_slice(&[0, 20, 0, 0]);
    }
    let [four, six] = attacker.addresses();
    let ends = if number.is_multiple_of(2) {
        (four, IpAddr::from(Ipv4Addr::from(0xc612_0000 | number & 0xffff)))
    } else {
        (six, IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, u16::from(a), 1)))
    };
    let mut frame = packet(Direction::Egress, ends, protocol, &payload);
    frame[..12].copy_from_slice(&[attacker.host_mac, attacker.mac].concat());
    frame
}

/// Rows of each table that `agent` keeps in these tests.
const ROWS: u64 = 8192;
/// Of a table that is too small: a pod may add sixteen times as many in one tick.
const TOO_FEW: u64 = 256;

/// A flood of the stranger, whom nothing isolates, in both families.
struct Flood<'a> {
    rig: &'a Rig,
    over: AtomicBool,
    sent: AtomicU64,
}

impl<'a> Flood<'a> {
    /// The client gets nothing but answers, so that it needs the entries of its connections.
    fn prepare(rig: &Rig) {
        rig.world.policy("answers", "client", "policyTypes: [Ingress], ingress: []");
        let routes = ["198.18.0.0/15", "2001:db8:ffff::/48"].map(|to| format!("route add blackhole {to}"));
        rig.world.net.host.ip(&routes.each_ref().map(String::as_str)).expect("routes");
    }

    fn of(rig: &'a Rig) -> Self {
        Self { rig, over: AtomicBool::new(false), sent: AtomicU64::new(0) }
    }

    fn run(&self) {
        let tap = PacketSocket::open(&self.rig.stranger.namespace, "eth0").expect("a packet socket");
        let mut number = 0;
        while !self.over.load(Relaxed) {
            for _ in 0..32 {
                number += 1;
                self.sent.fetch_add(
                    u64::from(tap.send(&flood_frame(&self.rig.stranger, number)).is_ok()),
                    Relaxed,
                );
            }
            // One CPU for everybody else, also where there is but one.
            yield_now();
        }
    }

    /// The emptier one of the tables of unanswered connections, in rows.
    fn rows(&self) -> u64 {
        let rows = |family: u8| {
            let rows = self.rig.world.metric(&format!("cellwall_table_rows{{table=\"PENDING{family}\"}}"));
            rows.parse::<f64>().expect("a number")
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of rows")]
        let rows = rows(4).min(rows(6)) as u64;
        rows
    }

    /// Asks the server, which answers after so many more packets of the flood; true when the answer arrives. That of a
    /// question that was asked later, and answered at once, always does.
    fn is_answered_after(&self, packets: u64, family: usize) -> bool {
        let Rig { server, client, .. } = self.rig;
        let bind = |pod: &Pod| {
            let socket = pod.namespace.run(|| UdpSocket::bind((pod.addresses()[family], 0)));
            let socket = socket.expect("a free port");
            socket.set_read_timeout(Some(SOON)).expect("a socket");
            socket
        };
        let (at_server, early, late) = (bind(server), bind(client), bind(client));
        let (to, mut bytes) = (at_server.local_addr().expect("bound"), [0; 8]);
        early.send_to(b"early", to).expect("a route");
        let from = at_server.recv_from(&mut bytes).expect("it is allowed").1;
        let goal = self.sent.load(Relaxed) + packets;
        while self.sent.load(Relaxed) < goal {
            yield_now();
        }
        at_server.send_to(b"answer", from).expect("a route");
        late.send_to(b"late", to).expect("a route");
        let from = at_server.recv_from(&mut bytes).expect("it is allowed").1;
        at_server.send_to(b"answer", from).expect("a route");
        late.recv(&mut bytes).expect("it is answered");
        early.set_nonblocking(true).expect("a socket");
        early.recv(&mut bytes).is_ok()
    }
}

#[test]
fn a_flood_of_one_pod_takes_nothing_from_others() {
    let Some(rig) = Rig::new("flood") else { return };
    Flood::prepare(&rig);
    let _agent = rig.world.agent(&[]);
    rig.world.until("ready", ready);
    let run = Run::new();
    let flood = Flood::of(&rig);
    let (mut opened, mut rows) = (0_usize, 0);
    scope(|scope| {
        let (_stop, _over) = (Stop(&run.stop), Stop(&flood.over));
        run.start(scope, &rig);
        scope.spawn(|| flood.run());
        let listeners = rig.server.addresses().map(|address| {
            rig.server.namespace.run(|| TcpListener::bind((address, TARGET))).expect("a free port")
        });
        let start = Instant::now();
        while flood.sent.load(Relaxed) < 3 * ROWS || opened < 300 || rows * 4 < ROWS * 3 {
            assert!(start.elapsed() < SOON, "{opened} opened, {:?} sent, {rows} rows", flood.sent);
            let listener = &listeners[opened % 2];
            let target = listener.local_addr().expect("bound");
            let stream =
                rig.client.namespace.run(|| TcpStream::connect_timeout(&target, Duration::from_secs(5)));
            let mut stream = stream.expect("a new connection of another pod");
            let (mut accepted, _) = listener.accept().expect("it was opened");
            stream.write_all(b"x").expect("it is open");
            accepted.read_exact(&mut [0]).expect("it is open");
            opened += 1;
            if opened.is_multiple_of(50) {
                rows = flood.rows();
            }
        }
        for family in 0..2 {
            assert!(flood.is_answered_after(ROWS / 4, family), "IPv{}", 4 + 2 * family);
        }
        run.go_on();
    });
    println!(
        "{} packets without an answer, {rows} rows of {ROWS} in use; {opened} new connections of others, {} of {} flows broken",
        flood.sent.load(Relaxed),
        run.broken(),
        run.flows.len()
    );
    assert_eq!((run.broken(), rig.leaked()), (0, 0));
}

/// The test above can fail: of tables with less room than a pod may take in one tick, the flood takes what others wait with.
#[test]
fn a_flood_of_tables_that_are_too_small_is_noticed() {
    let Some(rig) = Rig::new("small") else { return };
    Flood::prepare(&rig);
    let _agent = rig.world.agent(&["--capacity-pending", &TOO_FEW.to_string()]);
    rig.world.until("ready", ready);
    let flood = Flood::of(&rig);
    scope(|scope| {
        let _over = Stop(&flood.over);
        scope.spawn(|| flood.run());
        let start = Instant::now();
        for family in 0..2 {
            while flood.is_answered_after(16 * TOO_FEW, family) {
                assert!(start.elapsed() < SOON, "IPv{}: nothing is lost", 4 + 2 * family);
            }
        }
    });
}

fn blocks(count: u32) -> String {
    let mut text = "ingress: [{from: [".to_owned();
    for n in 0..count {
        let _ =
            write!(text, "{{ipBlock: {{cidr: 10.{}.{}.{}/32}}}}, ", 100 + (n >> 16), n >> 8 & 255, n & 255);
    }
    text + "]}]"
}

#[test]
fn a_folder_of_nonsense_changes_nothing_else() {
    let Some(rig) = Rig::new("nonsense") else { return };
    let world = &rig.world;
    let _agent = world.agent(&[]);
    let before = world.until("ready", ready);
    let run = Run::new();
    scope(|scope| {
        let _stop = Stop(&run.stop);
        run.start(scope, &rig);
        let named = |s: &NodeStatus, text: &str| {
            let conditions = s.conditions.iter().map(|c| &c.message);
            let problems = s.problems.iter().map(|p| &p.message);
            conditions.chain(problems).any(|message| message.contains(text))
                || s.problems.iter().any(|p| format!("{p:?}").contains(text))
        };

        world.policy("huge", "server", &blocks(10_000));
        let refused = world.until("refused", |s| named(s, "shop/huge"));
        assert_eq!(refused.revision, before.revision, "the state before stays");
        world.remove("huge");
        world.until("ready again", ready);

        world.write("bomb", &bomb());
        world.until("the bomb is named", |s| named(s, "bomb"));
        world.write("large", &"# nothing\n".repeat(5 << 20));
        world.until("the large file is named", |s| named(s, "large"));
        world.write("deep", &"[".repeat(100_000));
        world.until("the deep file is named", |s| named(s, "deep"));
        world.write("binary", "\u{0}\u{1}kind: \u{ffff}");
        world.until("the binary file is named", |s| named(s, "binary"));
        for name in ["bomb", "large", "deep", "binary"] {
            world.remove(name);
        }
        world.until("ready again", |s| ready(s) && s.problem_count == 0);

        let label = "l".repeat(63);
        let start = Instant::now();
        let mut many = String::new();
        for n in 0..1000 {
            let _ = write!(
                many,
                "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
                 metadata: {{name: many-{n}, namespace: nowhere-{n}}}\n\
                 spec: {{podSelector: {{matchLabels: {{{label}: {label}}}}}}}\n"
            );
        }
        world.write("many", &many);
        world.until("a thousand policies", |s| s.ready && s.policy_count == 1003);
        println!("1000 policies known in {:.2} s", start.elapsed().as_secs_f64());
        world.remove("many");
        world.until("ready again", |s| ready(s) && s.policy_count == 3);
        run.go_on();
    });
    assert_eq!((run.broken(), rig.leaked()), (0, 0), "{}", world.log());
}

/// A document that would be gigabytes with its aliases resolved.
fn bomb() -> String {
    let mut text =
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: bomb, namespace: shop}\n\
                    spec: {podSelector: {}}\na0: &a0 [x, x, x, x, x, x, x, x, x]\n"
            .to_owned();
    for n in 1..12 {
        let before = format!("*a{}, ", n - 1).repeat(9);
        let _ = writeln!(text, "a{n}: &a{n} [{}]", before.trim_end_matches(", "));
    }
    text
}

#[test]
fn clients_that_say_nothing_do_not_stop_others_or_policy() {
    let Some(rig) = Rig::new("idle") else { return };
    let world = &rig.world;
    let _agent = world.agent(&[]);
    world.until("ready", ready);
    let revision = || world.metric("cellwall_revision");
    let before = revision();
    // More than the agent takes; those beyond are closed at once.
    let idle: Vec<UnixStream> = (0..300).filter_map(|_| UnixStream::connect(world.socket()).ok()).collect();
    assert!(idle.len() > 64, "{}", idle.len());
    let start = Instant::now();
    world.policy("vault-more", "vault", "ingress: [{ports: [{port: 1, protocol: SCTP}]}]");
    while revision() == before {
        assert!(start.elapsed() < SOON, "policy waits for idle clients");
        sleep(Duration::from_millis(20));
    }
    let live_ms = start.elapsed().as_millis();
    let start = Instant::now();
    world.until("it answers again", ready);
    println!(
        "{} idle clients: an edit was live after {live_ms} ms, the next client was answered after {} ms",
        idle.len(),
        start.elapsed().as_millis()
    );
}
