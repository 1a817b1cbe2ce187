//! Pods that come in the place of one that has gone: with its name, interface, index and addresses, and the ports it used.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread::{Scope, scope, sleep};
use std::time::{Duration, Instant};

use cellwall_api::v1alpha1::NodeStatus;
use cellwall_testkit::net::Pod;
use cellwall_testkit::traffic::Stop;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::rig::Rig;
use crate::world::{SOON, World};
use crate::{ready, seed};

/// Ports of the server and of whoever asks it.
const PORTS: [u16; 2] = [7200, 7201];
const INTERFACE: &str = "place";
const INDEX: u32 = 4711;
const ADDRESSES: [&str; 2] = ["10.244.0.250", "fd00:244::250"];
/// What a datagram that passes needs at most to arrive.
const ON_ITS_WAY: Duration = Duration::from_millis(20);
/// Datagrams that an owner has sent, of both families, since he is enforced.
const SENT: u64 = 40;

/// How many pods there are, one after the other.
fn owners() -> u32 {
    std::env::var("CELLWALL_OWNERS").map_or(40, |text| text.parse().expect("CELLWALL_OWNERS is a number"))
}

/// Which of them was heard, in which family.
type Heard = Mutex<BTreeSet<(u32, bool)>>;

/// Row C13: nobody has what his predecessor had, whichever of object and interface goes and comes first. The predecessor's
/// object is known to be gone before the next interface comes: without the plugin, who has a pod's address is that pod.
#[test]
fn who_comes_in_the_place_of_another_is_itself() {
    let Some(rig) = Rig::new("places") else { return };
    let (world, seed) = (&rig.world, seed());
    println!("CELLWALL_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let _agent = world.agent(&[]);
    world.until("ready", ready);
    let pins = world.pins();
    let (heard, over) = (Heard::default(), AtomicBool::new(false));
    let mut clients = BTreeSet::new();
    scope(|scope| {
        let _over = Stop(&over);
        for address in rig.server.addresses() {
            answer(scope, &rig.server, address, (&heard, &over));
        }
        for owner in 0..owners() {
            let is_client = random.random();
            if is_client {
                clients.insert(owner);
            }
            live(world, &rig.server, (owner, is_client), &mut random, &heard);
            world.until("ready without it", ready);
        }
    });
    assert_eq!(world.pins(), pins, "nothing of theirs is left, and nothing of others is gone");
    let heard: BTreeSet<u32> = read(&heard).iter().map(|(owner, _)| *owner).collect();
    println!("{} owners of one place, {} of them clients, all of whom were heard", owners(), clients.len());
    assert!(!clients.is_empty() && clients.len() < owners() as usize, "some of each kind");
    assert_eq!(heard, clients, "who was heard");
}

/// The life of one owner.
fn live(world: &World, server: &Pod, (owner, is_client): (u32, bool), random: &mut StdRng, heard: &Heard) {
    let is_first: [bool; 2] = random.random();
    let app = if is_client { "client" } else { "stranger" };
    if is_first[0] {
        tell(world, owner, app);
    }
    let [v4, v6] = ADDRESSES;
    let (v4, v6) = (v4.parse().expect("an address"), v6.parse().expect("an address"));
    let pod = world.net.connect_at(Some(INDEX), INTERFACE, v4, v6).expect("its predecessor has left");
    let (gone, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    scope(|scope| {
        let _gone = Stop(&gone);
        for (own, to) in pod.addresses().into_iter().zip(server.addresses()) {
            ask(scope, &pod, (own, to), owner, (&gone, &sent));
        }
        if !is_first[0] {
            tell(world, owner, app);
        }
        let placed = |s: &NodeStatus| s.ready && s.endpoint_count == 7 && s.unplaced_pods.is_empty();
        world.until("placed", placed);
        let start = Instant::now();
        while is_client && [false, true].into_iter().any(|six| !read(heard).contains(&(owner, six))) {
            assert!(start.elapsed() < SOON, "owner {owner} is a client and not heard\n{}", world.log());
            sleep(Duration::from_millis(1));
        }
        let placed = sent.load(Relaxed);
        while sent.load(Relaxed) < placed + SENT {
            assert!(start.elapsed() < SOON, "owner {owner} cannot send\n{}", world.log());
            sleep(Duration::from_millis(1));
        }
        sleep(ON_ITS_WAY);
    });
    if is_first[1] {
        world.remove("place");
    }
    world.net.host.ip(&[&format!("link delete {INTERFACE}")]).expect("it is there");
    if !is_first[1] {
        world.remove("place");
    }
}

fn tell(world: &World, owner: u32, app: &str) {
    let [v4, v6] = ADDRESSES;
    world.write(
        "place",
        &format!(
            "apiVersion: v1\nkind: Pod\n\
             metadata: {{name: place, namespace: shop, uid: uid-{owner}, labels: {{app: {app}}}}}\n\
             spec: {{nodeName: n1}}\n\
             status: {{phase: Running, podIP: {v4}, podIPs: [{{ip: {v4}}}, {{ip: '{v6}'}}]}}\n"
        ),
    );
}

/// Sends its number to the server all the time, and takes the answers.
fn ask<'s>(
    scope: &'s Scope<'s, '_>,
    pod: &Pod,
    (own, to): (IpAddr, IpAddr),
    owner: u32,
    (gone, sent): (&'s AtomicBool, &'s AtomicU64),
) {
    let socket = pod.namespace.run(|| UdpSocket::bind((own, PORTS[1]))).expect("a free port");
    socket.set_nonblocking(true).expect("a socket");
    scope.spawn(move || {
        while !gone.load(Relaxed) {
            // Until there is a route it fails.
            let is_sent = socket.send_to(&owner.to_be_bytes(), SocketAddr::new(to, PORTS[0])).is_ok();
            sent.fetch_add(u64::from(is_sent), Relaxed);
            while socket.recv(&mut [0; 4]).is_ok() {}
            sleep(Duration::from_millis(1));
        }
    });
}

/// Answers every datagram with itself.
fn answer<'s>(
    scope: &'s Scope<'s, '_>,
    server: &Pod,
    address: IpAddr,
    (heard, over): (&'s Heard, &'s AtomicBool),
) {
    let socket = server.namespace.run(|| UdpSocket::bind((address, PORTS[0]))).expect("a free port");
    socket.set_read_timeout(Some(ON_ITS_WAY)).expect("a socket");
    scope.spawn(move || {
        let mut number = [0; 4];
        while !over.load(Relaxed) {
            let Ok((4, from)) = socket.recv_from(&mut number) else { continue };
            read(heard).insert((u32::from_be_bytes(number), address.is_ipv6()));
            let _ = socket.send_to(&number, from);
        }
    });
}

fn read(heard: &Heard) -> std::sync::MutexGuard<'_, BTreeSet<(u32, bool)>> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}
