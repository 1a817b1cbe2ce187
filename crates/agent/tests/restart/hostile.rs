//! A pod that forges and floods, and a folder full of nonsense: others do not notice.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicBool;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use cellwall_api::v1alpha1::NodeStatus;
use cellwall_testkit::net::Pod;
use cellwall_testkit::traffic::{self, Stop};
use rustix::net::{AddressFamily, RawProtocol, SendFlags, SocketFlags, SocketType, sendto, socket_with};

use crate::ready;
use crate::rig::Rig;
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
                    let before = traffic::received(receiver.host());
                    for _ in 0..10 {
                        self.sent += u32::from(send_raw(from, to, &packet));
                    }
                    let mut got = 0;
                    while socket.recv_from(&mut [0; 64]).is_ok() {
                        got += 1;
                    }
                    if got > 0 || traffic::received(receiver.host()) > before {
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

#[test]
fn a_flood_of_one_pod_takes_nothing_from_others() {
    let Some(mut rig) = Rig::new("flood") else { return };
    let bystander = rig.world.pod("bystander");
    let _agent = rig.world.agent(&[]);
    rig.world.until("ready", |s| s.ready && s.endpoint_count == 7);
    let run = Rig::traffic();
    let flood = traffic::Tally::default();
    let over = AtomicBool::new(false);
    let mut opened = 0;
    scope(|scope| {
        let (_stop, _over) = (Stop(&run.end.stop), Stop(&over));
        run.start(scope, &rig.ends());
        // Allowed datagrams that nobody answers, since they end in a route to nowhere. How full the tables get is not looked at.
        rig.world.net.host.ip(&["route add blackhole 198.18.0.0/15"]).expect("a route");
        scope.spawn(|| {
            let mut number: u32 = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let to = std::net::Ipv4Addr::from(0xc612_0000 + number % 0x1_0000);
                let socket = rig.stranger.namespace.run(|| UdpSocket::bind((rig.stranger.v4, 0)));
                let socket = socket.expect("a free port");
                for port in 1..200 {
                    let _ = socket.send_to(b"x", (to, port));
                    flood.sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    number += 1;
                }
            }
        });
        let listener = rig.server.namespace.run(|| TcpListener::bind((rig.server.v4, TARGET)));
        let listener = listener.expect("a free port");
        let start = Instant::now();
        let sent = || flood.sent.load(std::sync::atomic::Ordering::Relaxed);
        while sent() < 3 * 8192 || opened < 300 {
            assert!(start.elapsed() < SOON, "{opened} opened, {} sent", sent());
            let target = SocketAddr::from((rig.server.v4, TARGET));
            let stream =
                rig.client.namespace.run(|| TcpStream::connect_timeout(&target, Duration::from_secs(5)));
            let mut stream = stream.expect("a new connection of another pod");
            let (mut accepted, _) = listener.accept().expect("it was opened");
            stream.write_all(b"x").expect("it is open");
            accepted.read_exact(&mut [0]).expect("it is open");
            opened += 1;
        }
        run.go_on(SOON);
    });
    println!(
        "{} packets without an answer; {opened} new connections of others, {} of {} flows broken",
        flood.sent.load(std::sync::atomic::Ordering::Relaxed),
        run.broken(),
        run.flows.len()
    );
    assert_eq!((run.broken(), rig.leaked()), (0, 0));
    drop(bystander);
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
    let run = Rig::traffic();
    scope(|scope| {
        let _stop = Stop(&run.end.stop);
        run.start(scope, &rig.ends());
        let named = |s: &NodeStatus, text: &str| {
            let conditions = s.conditions.iter().map(|c| &c.message);
            let problems = s.problems.iter().map(|p| &p.message);
            conditions.chain(problems).any(|message| message.contains(text))
                || s.problems.iter().any(|p| format!("{p:?}").contains(text))
        };

        world.policy("huge", "server", &blocks(10_000));
        let left_out = world.until("left out", |s| named(s, "\"huge\"") && named(s, "PREFIXES4"));
        assert_eq!(
            left_out.revision, before.revision,
            "its pod is isolated already, and nothing more is let in"
        );
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
        run.go_on(SOON);
    });
    let counters = world.metrics("cellwall_packets_total");
    assert_eq!((run.broken(), rig.leaked()), (0, 0), "{:?}\n{counters}\n{}", run.late(), world.log());
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
