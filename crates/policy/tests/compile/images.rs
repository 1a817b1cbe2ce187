//! Pods with the same rules have the same image, and its rows once.

use cellwall_policy::compile::Compiler;
use cellwall_policy::model::{Cluster, Touched};

use crate::world::{allow, block, cluster, pods, policy, tell};

/// The images of the pods for what comes in, and how many rows of POLICY there are.
fn images(cluster: &Cluster) -> (Vec<u32>, usize) {
    let wanted = Compiler::new([1, 2]).compile(cluster, &Touched::default()).wanted;
    (wanted.endpoints.values().map(|endpoint| endpoint.record.image[0]).collect(), wanted.policy.len())
}

#[test]
fn pods_with_the_same_rules_share_their_rows() {
    let mut cluster = cluster(4);
    let peers = || vec![pods("pod0"), pods("pod1"), block("198.51.100.0/24", &[])];
    tell(&mut cluster, policy("one", Some("pod0"), vec![allow(Some(peers()), &[(80, 80)])]));
    let (alone, rows) = images(&cluster);
    assert!(alone[0] != 0 && alone[1..] == [0; 3] && rows > 0, "{alone:?} with {rows} rows");

    tell(&mut cluster, policy("one", None, vec![allow(Some(peers()), &[(80, 80)])]));
    let (all, shared) = images(&cluster);
    assert_eq!((all, shared), (vec![alone[0]; 4], rows), "as many rows for four pods as for one");

    tell(&mut cluster, policy("more", Some("pod3"), vec![allow(Some(peers()), &[(443, 443)])]));
    let (some, more) = images(&cluster);
    assert!(some[..3] == [alone[0]; 3] && some[3] != alone[0] && more > rows, "{some:?} with {more} rows");
}
