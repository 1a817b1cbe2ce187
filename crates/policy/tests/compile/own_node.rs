//! Out to the own node: policy decides, unless a setting keeps it open (S62).

use std::net::IpAddr;

use cellwall_abi::{ACTION_ALLOW, ACTION_DENY, PolicyKey};
use cellwall_policy::compile::{Compiled, Compiler};
use cellwall_policy::model::{Change, Cluster, Kind, Labels, Node, ObjectKey, Policy, Touched};

use crate::world::{cluster, policy, tell};

/// Of the pods' node, and one that only its status names.
const OWN: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const OTHERS: [&str; 2] = ["192.0.2.3", "198.51.100.1"];
/// Interfaces of the pods.
const ISOLATED: u32 = 1;
const OPEN: u32 = 2;

/// Two pods of which the first may send nothing and take nothing in.
fn world(egress_to_own_node: bool) -> Cluster {
    let mut cluster = Cluster { egress_to_own_node, ..cluster(2) };
    let Change::Policy(closed, _) = policy("closed", Some("pod0"), Vec::new()) else { unreachable!() };
    tell(&mut cluster, Change::Policy(Policy { isolates: [true, true], ..closed }, Vec::new()));
    let node = |name: &str, address: &str| {
        let addresses = vec![address.parse().expect("an address")];
        Change::Node(Node { name: name.to_owned(), labels: Labels::new(), addresses, pod_cidrs: Vec::new() })
    };
    tell(&mut cluster, node("here", OWN[1]));
    tell(&mut cluster, node("there", OTHERS[0]));
    let own = [OWN[0], "127.0.0.1"].map(|text| text.parse().expect("an address"));
    tell(&mut cluster, Change::NodeAddresses(own.to_vec()));
    cluster
}

/// What the pod at an interface may send to an address, or take from it: no ports are named here.
fn allows(compiled: &Compiled, ifindex: u32, direction: usize, address: &str) -> bool {
    let wanted = &compiled.wanted;
    let record = &wanted.endpoints[&ifindex].record;
    let address: IpAddr = address.parse().expect("an address");
    let class = wanted.addresses.get(&address).copied().unwrap_or(cellwall_abi::CLASS_WORLD);
    let image = record.image[direction];
    let entry = wanted.policy.get(&PolicyKey { image, class }).unwrap_or(&record.default[direction]);
    assert!(image == 0 || [ACTION_ALLOW, ACTION_DENY].contains(&entry.rest_action));
    image == 0 || entry.rest_action == ACTION_ALLOW
}

fn compiled(cluster: &Cluster) -> Compiled {
    Compiler::new([1, 2]).compile(cluster, &Touched::default())
}

#[test]
fn the_own_node_is_denied_unless_the_setting_keeps_it_open() {
    for always in [false, true] {
        let compiled = compiled(&world(always));
        for own in OWN {
            assert_eq!(allows(&compiled, ISOLATED, 1, own), always, "{own}");
            assert!(!allows(&compiled, ISOLATED, 0, own), "what comes in is the datapath's to know");
        }
        for other in OTHERS {
            assert!(!allows(&compiled, ISOLATED, 1, other), "{other}");
        }
        assert!(!allows(&compiled, ISOLATED, 1, "127.0.0.1"));
        assert!(allows(&compiled, OPEN, 1, OTHERS[0]));
        let policies: Vec<usize> = compiled.endpoints[&ISOLATED].policies.iter().map(Vec::len).collect();
        assert_eq!(policies, [1, 1], "it is no policy that anybody wrote");
    }
}

#[test]
fn the_rule_is_the_nodes_and_follows_its_addresses() {
    let mut cluster = world(true);
    let mut compiler = Compiler::new([1, 2]);
    let before = compiler.compile(&cluster, &Touched::default());
    let named =
        before.wanted.rules.values().any(|rule| rule.policy == ObjectKey::cluster(Kind::Node, "here"));
    assert!(named);
    let mut touched = Touched::default();
    cluster.apply(Change::NodeAddresses(vec![OTHERS[1].parse().expect("an address")]), &mut touched);
    let after = compiler.compile(&cluster, &touched);
    assert!(allows(&after, ISOLATED, 1, OTHERS[1]));
    assert!(!allows(&after, ISOLATED, 1, OWN[0]), "it is the node's no more");
}
