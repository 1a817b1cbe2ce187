//! Rows A8 and A9 over a veth: what a pod forges changes nothing in the tables of whoever hears it, and would, were the
//! programs not there. Needs root.

use std::net::Ipv6Addr;
use std::process::Command;

use cellwall_policy::flow::Direction;
use cellwall_testkit::net::Namespace;

use super::rig::Rig;
use super::veth::on_thread;

/// A gateway that the world knows; the pod would like to be it.
const GATEWAY: [&str; 2] = ["198.51.100.1", "2001:db8:1::1"];
const GATEWAY_MAC: &str = "02:77:00:00:00:01";

fn checksummed(mut packet: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(packet.len() - 54).expect("small");
    let mut sum = length + 58;
    for pair in packet[22..].chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default());
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).expect("folded");
    packet[56..58].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// A message of neighbour discovery from the pod to all.
fn message(mac: [u8; 6], source: Ipv6Addr, icmp: &[u8]) -> Vec<u8> {
    let mut frame = [[0x33, 0x33, 0, 0, 0, 1], mac].concat();
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0]);
    frame.extend([u8::try_from(icmp.len()).expect("small"), 58, 255]);
    frame.extend(source.octets());
    frame.extend("ff02::1".parse::<Ipv6Addr>().expect("an address").octets());
    frame.extend(icmp);
    checksummed(frame)
}

/// What the pod would be: the gateway by ARP, by an advertisement, and a router.
fn forged(mac: [u8; 6]) -> Vec<Vec<u8>> {
    let mut arp = [[0xff; 6], mac].concat();
    arp.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2]);
    arp.extend(mac);
    arp.extend([198, 51, 100, 1]);
    arp.extend(mac);
    arp.extend([198, 51, 100, 1]);
    let six = |text: &str| text.parse::<Ipv6Addr>().expect("an address");
    let option = |kind| [vec![kind, 1], mac.to_vec()].concat();
    let own = six("fd00:244::11");
    // Override, of the gateway.
    let advertisement = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &six(GATEWAY[1]).octets(), &option(2)].concat();
    let router = [&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], &option(1)].concat();
    let interface = [mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]];
    let high = u128::from(0xfe80_u16) << 112;
    let link_local = Ipv6Addr::from(high | u128::from(u64::from_be_bytes(interface)));
    vec![arp, message(mac, own, &advertisement), message(mac, link_local, &router)]
}

fn show(namespace: &Namespace, what: &[&str]) -> String {
    let output = namespace.run(|| Command::new("ip").args(what).output()).expect("iproute2");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Neighbours' Ethernet addresses, and routes: as the world knows them.
fn known(world: &Namespace) -> [bool; 3] {
    let is_gateway = |address| show(world, &["neighbour", "show", address]).contains(GATEWAY_MAC);
    let has_router = show(world, &["-6", "route", "show", "default"]).contains("proto ra");
    [is_gateway(GATEWAY[0]), is_gateway(GATEWAY[1]), !has_router]
}

#[test]
fn a_pod_changes_nobodys_neighbours_or_routes() {
    on_thread(|| {
        let mut rig = Rig::new(false);
        let world = rig.world.namespace();
        for knob in ["accept_ra", "accept_ra_defrtr"] {
            world.sysctl(&format!("ipv6/conf/eth0/{knob}"), "1").expect("a kernel with IPv6");
        }
        for address in GATEWAY {
            let add = format!("neighbour replace {address} lladdr {GATEWAY_MAC} dev eth0 nud stale");
            world.ip(&[&add]).expect("a neighbour");
        }
        let frames = forged(rig.pod.mac);
        let arrived = |rig: &mut Rig| {
            let all = rig.send(Direction::Egress, &frames);
            all.iter().filter(|frame| frames.contains(frame)).count()
        };
        assert_eq!(arrived(&mut rig), 0);
        assert_eq!(known(rig.world.namespace()), [true; 3], "ARP, neighbour discovery, router");

        let ifindex = rig.ifindex;
        rig.datapath.detach(ifindex).expect("it was attached");
        assert_eq!(arrived(&mut rig), frames.len());
        let world = rig.world.namespace();
        assert_eq!(
            known(world),
            [false; 3],
            "without the programs every one of them works: {}",
            show(world, &["neighbour"])
        );
    });
}
