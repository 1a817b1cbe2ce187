//! The namespaces that other tests stand on.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use cellwall_testkit::net::{Net, is_root};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn pods_reach_each_other_and_the_world_in_both_families() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    let mut net = Net::new("net").expect("a node");
    let (a, b, out) = (net.pod().expect("a pod"), net.pod().expect("a pod"), net.outside().expect("a host"));
    for (from, to) in [(&a, &b), (&b, &a), (&a, &out), (&out, &b)] {
        for address in to.addresses() {
            let listener = to.namespace.run(|| TcpListener::bind((address, 80))).expect("a free port");
            let mut stream = from
                .namespace
                .run(|| TcpStream::connect_timeout(&SocketAddr::from((address, 80)), SOON).expect("a route"));
            stream.write_all(b"x").expect("a connection");
            let (mut accepted, peer) = listener.accept().expect("a connection");
            let mut byte = [0];
            accepted.read_exact(&mut byte).expect("a byte");
            assert!(from.addresses().contains(&peer.ip()), "nothing is translated: {peer}");
        }
    }
    // The node itself.
    let socket = b.namespace.run(|| UdpSocket::bind((b.v6, 53))).expect("a free port");
    socket.set_read_timeout(Some(SOON)).expect("a socket");
    net.host
        .run(|| UdpSocket::bind("[::]:0").expect("a port").send_to(b"y", (IpAddr::from(b.v6), 53)))
        .expect("a route");
    assert_eq!(socket.recv_from(&mut [0; 8]).expect("a datagram").0, 1);
}

#[test]
fn two_runs_do_not_meet_and_processes_end_with_their_guard() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    let (mut one, mut two) = (Net::new("net").expect("a node"), Net::new("net").expect("a node"));
    assert_ne!(one.name(), two.name());
    let (a, b) = (one.pod().expect("a pod"), two.pod().expect("a pod"));
    assert_eq!(a.v4, b.v4);
    let mut sleep = a.namespace.spawn(Command::new("sleep").arg("1000")).expect("coreutils");
    let id = sleep.child().id();
    drop(sleep);
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    // Nor do they outlive the thread that started them, which a killed test takes along.
    let start = || a.namespace.spawn(Command::new("sleep").arg("60")).expect("coreutils");
    let mut sleep = thread::scope(|scope| scope.spawn(start).join()).expect("it starts");
    assert_eq!(sleep.wait().expect("it is ours").signal(), Some(9));
    one.remove(a).expect("it was there");
    assert!(one.host.ifindex("cw1").is_err());
    assert!(two.host.ifindex("cw1").is_ok());
}
