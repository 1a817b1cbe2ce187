//! Addresses of an overlay, which belong to nodes and stand in pod ranges.

use cellwall_abi::{CLASS_NODE, CLASS_UNKNOWN_POD};
use cellwall_policy::compile::Compiler;
use cellwall_policy::model::{Change, Cluster, Labels, Node, Touched};

use crate::world::{allow, block, cluster, pod, policy, tell};

/// The class of an address, and of an address of the same range that nobody has.
fn classes(cluster: &Cluster, address: &str) -> (Option<u32>, Option<u32>) {
    let wanted = Compiler::new([1, 2]).compile(cluster, &Touched::default()).wanted;
    let range = "10.2.0.0/24".parse().expect("a range");
    (
        wanted.addresses.get(&address.parse().expect("an address")).copied(),
        wanted.prefixes.get(&range).copied(),
    )
}

/// flannel.1 of another node: what its processes reach pods here from, and what it masquerades.
#[test]
fn the_network_address_of_a_range_is_its_nodes_where_no_pod_has_it() {
    let mut cluster = cluster(1);
    let blocks = vec![allow(Some(vec![block("10.2.0.0/16", &[])]), &[])];
    tell(&mut cluster, policy("blocks", None, blocks));
    let node = Node {
        name: "elsewhere".to_owned(),
        labels: Labels::new(),
        addresses: vec!["192.168.0.2".parse().expect("an address")],
        pod_cidrs: vec!["10.2.0.0/24".parse().expect("a range"), "10.3.0.0/31".parse().expect("a range")],
    };
    tell(&mut cluster, Change::Node(node));
    let (overlay, range) = classes(&cluster, "10.2.0.0");
    assert_eq!(range, Some(CLASS_UNKNOWN_POD));
    let overlay = overlay.expect("a row");
    assert!(overlay & CLASS_NODE != 0 && overlay != CLASS_NODE, "a node's, in the block: {overlay:#x}");
    assert_eq!(classes(&cluster, "10.2.0.77").0, None, "an address that nobody has");
    assert_eq!(classes(&cluster, "10.3.0.0").0, None, "a range of two addresses has no name of its own");

    let mut first = pod("first", 0);
    first.node = "elsewhere".to_owned();
    first.addresses = vec!["10.2.0.0".parse().expect("an address")];
    tell(&mut cluster, Change::Pod(first));
    let pods = classes(&cluster, "10.2.0.0").0.expect("a row");
    assert_eq!(pods & CLASS_NODE, 0, "a pod's");
}
