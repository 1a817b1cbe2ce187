//! What does not fit is refused in the name of the policy that asks for it, and of the setting that makes room.
//!
//! Beside each of them there are policies with longer lists of peers: one that selects nothing here, and one whose
//! list is one set of addresses.

use cellwall_policy::compile::Compiler;
use cellwall_policy::model::{Cluster, Peer, Rule, Touched};
use cellwall_policy::plan::{Capacities, Refusal, plan};
use cellwall_policy::wanted::{Observed, Wanted};

use crate::world::{allow, block, cluster, pods, policy, tell};

/// Pods of this node; each has an image of its own, by the policies `own0` and so on.
const PODS: u32 = 10;

fn wanted(cluster: &Cluster) -> Wanted {
    Compiler::new([1, 2]).compile(cluster, &Touched::default()).wanted
}

fn try_plan(wanted: &Wanted, capacities: &Capacities) -> Result<(), Refusal> {
    plan(wanted, &Observed::default(), capacities, 1).map(|_| ())
}

/// `many` TCP ports that no two of which are neighbours.
fn ports(many: u16) -> Vec<(u16, u16)> {
    (0..many).map(|n| (1000 + 2 * n, 1000 + 2 * n)).collect()
}

fn blocks(second: u8, many: u16) -> Vec<String> {
    (0..many).map(|n| format!("192.{second}.{}.{}/32", n >> 8, n & 255)).collect()
}

fn addresses(second: u8, many: u16) -> Vec<Peer> {
    blocks(second, many).iter().map(|cidr| block(cidr, &[])).collect()
}

/// A rule for each peer.
fn each(peers: Vec<Peer>) -> Vec<Rule> {
    peers.into_iter().map(|peer| allow(Some(vec![peer]), &[])).collect()
}

/// Ten pods that are isolated each on its own terms, and the policies that ask for nothing.
fn full_of_innocents() -> Cluster {
    let mut cluster = cluster(PODS);
    for index in 0..PODS {
        let app = format!("pod{index}");
        let port = 80 + u16::try_from(index).expect("few");
        let rules = vec![allow(Some(vec![pods("friend")]), &[(port, port)])];
        tell(&mut cluster, policy(&format!("own{index}"), Some(&app), rules));
    }
    let elsewhere = [each(addresses(1, 400)), vec![allow(Some(addresses(2, 2000)), &ports(400))]].concat();
    tell(&mut cluster, policy("elsewhere", Some("nobody"), elsewhere));
    let list = (0..400).map(|n| pods(&format!("peer{n}"))).collect();
    tell(&mut cluster, policy("list", Some("pod0"), vec![allow(Some(list), &[(80, 80)])]));
    cluster
}

/// The cluster is refused in the name of `culprit`, whose share is at least `rows`, and with the capacity that is
/// asked for it is not.
fn refused(cluster: &Cluster, room: Capacities, table: &str, culprit: &str, rows: usize) -> Refusal {
    let wanted = wanted(cluster);
    let refusal = try_plan(&wanted, &room).expect_err("it does not fit");
    let text = refusal.to_string();
    println!("{text}");
    assert_eq!((refusal.table, refusal.object.as_str()), (table, culprit), "{text}");
    assert!((rows..=refusal.wanted).contains(&refusal.rows), "{text}");
    assert!(text.contains(&format!("{} of them by {culprit};", refusal.rows)), "{text}");
    assert!(text.contains(&format!("--capacity-{} {} or more", refusal.setting, refusal.wanted)), "{text}");
    let enough = u32::try_from(refusal.wanted).expect("a few");
    let with = |rows: u32| match refusal.setting {
        "prefixes" => Capacities { prefixes: rows, ..room },
        "policy" => Capacities { policy: rows, ..room },
        "ports" => Capacities { ports: rows, ..room },
        other => panic!("{other} has no test"),
    };
    assert_eq!(try_plan(&wanted, &with(enough)), Ok(()));
    assert_eq!(try_plan(&wanted, &with(enough - 1)).map_err(|less| less.table), Err(table));
    refusal
}

#[test]
fn the_innocent_fit() {
    let room = Capacities { prefixes: 16, policy: 64, ports: 16, ..Capacities::default() };
    assert_eq!(try_plan(&wanted(&full_of_innocents()), &room), Ok(()));
}

#[test]
fn ports_are_asked_for_by_the_rules_that_name_them() {
    let room = Capacities { ports: 64, ..Capacities::default() };
    let mut cluster = full_of_innocents();
    tell(&mut cluster, policy("ports", Some("pod0"), vec![allow(None, &ports(200))]));
    let refusal = refused(&cluster, room, "PORTS", "NetworkPolicy shop/ports", 200);
    assert_eq!(refusal.setting, "ports");
}

#[test]
fn a_range_does_not_ask_for_the_pieces_that_others_make_of_it() {
    let room = Capacities { ports: 64, ..Capacities::default() };
    let mut cluster = full_of_innocents();
    tell(&mut cluster, policy("range", Some("pod0"), vec![allow(None, &[(1, 65535)])]));
    assert_eq!(try_plan(&wanted(&cluster), &room), Ok(()));
    tell(&mut cluster, policy("ports", Some("pod0"), vec![allow(None, &ports(200))]));
    refused(&cluster, room, "PORTS", "NetworkPolicy shop/ports", 200);
}

#[test]
fn rows_of_images_are_asked_for_by_the_peers_that_make_their_classes() {
    let room = Capacities { policy: 256, ..Capacities::default() };
    let mut cluster = full_of_innocents();
    tell(&mut cluster, policy("peers", None, each(addresses(3, 60))));
    let refusal = refused(&cluster, room, "POLICY", "NetworkPolicy shop/peers", 60 * PODS as usize);
    assert_eq!(refusal.setting, "policy");
}

/// The peers of one tenant's policy are classes that the images of all answer to, who allow any address.
#[test]
fn rows_of_others_are_asked_for_by_the_policy_that_tells_addresses_apart() {
    let room = Capacities { policy: 256, ..Capacities::default() };
    let mut cluster = full_of_innocents();
    for index in 0..PODS {
        let rules = vec![allow(Some(vec![block("0.0.0.0/0", &[])]), &[])];
        tell(&mut cluster, policy(&format!("open{index}"), Some(&format!("pod{index}")), rules));
    }
    assert_eq!(try_plan(&wanted(&cluster), &room), Ok(()));
    tell(&mut cluster, policy("tenant", Some("pod0"), each(addresses(3, 60))));
    refused(&cluster, room, "POLICY", "NetworkPolicy shop/tenant", 60 * PODS as usize);
}

#[test]
fn prefixes_are_asked_for_by_blocks_and_their_exceptions() {
    let room = Capacities { prefixes: 64, ..Capacities::default() };
    let six: Vec<String> = (0..150).map(|n| format!("2001:db8:{n:x}::/48")).collect();
    for (table, whole, except) in
        [("PREFIXES4", "192.0.0.0/8", blocks(3, 150)), ("PREFIXES6", "2001:db8::/32", six)]
    {
        let mut cluster = full_of_innocents();
        let peers = vec![block(whole, &except)];
        tell(&mut cluster, policy("blocks", Some("pod0"), vec![allow(Some(peers), &[])]));
        let refusal = refused(&cluster, room, table, "NetworkPolicy shop/blocks", 151);
        assert_eq!(refusal.setting, "prefixes");
    }
}

#[test]
fn prefixes_of_pods_are_nobodys_policy() {
    let room = Capacities { prefixes: 64, ..Capacities::default() };
    let mut cluster = full_of_innocents();
    tell(&mut cluster, policy("blocks", Some("pod0"), vec![allow(Some(addresses(3, 20)), &[])]));
    cluster.pod_cidrs = (0..100).map(|n| format!("10.2.{n}.0/24").parse().expect("a range")).collect();
    refused(&cluster, room, "PREFIXES4", "the pod ranges of the cluster", 100);
}
