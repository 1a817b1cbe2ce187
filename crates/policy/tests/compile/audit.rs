//! Who is audited: judged and reported, and not dropped.

use cellwall_abi::ENDPOINT_AUDIT;
use cellwall_policy::compile::{Compiled, Compiler};
use cellwall_policy::model::{Change, Cluster, Pod, Touched};

use crate::world::{NAMESPACE, cluster, link, namespace, pod, policy, tell};

/// Two pods of a namespace and one of another, all isolated.
fn world() -> Cluster {
    let mut cluster = cluster(2);
    tell(&mut cluster, Change::Namespace(namespace("bank", false)));
    let vault = Pod { namespace: "bank".to_owned(), ..pod("vault", 2) };
    tell(&mut cluster, Change::Link(link(2, &vault)));
    tell(&mut cluster, Change::Pod(vault));
    tell(&mut cluster, policy("deny", None, Vec::new()));
    cluster
}

/// Per interface, from the first: whether its record says so. The reports say the same.
fn audited(compiled: &Compiled) -> Vec<bool> {
    let is_audited = |(ifindex, endpoint): (&u32, &cellwall_policy::wanted::WantedEndpoint)| {
        let audit = endpoint.record.flags & ENDPOINT_AUDIT != 0;
        assert_eq!(compiled.endpoints[ifindex].audit, audit);
        audit
    };
    compiled.wanted.endpoints.iter().map(is_audited).collect()
}

/// Who is audited before `change`, after it, and after `back`, by a compiler that saw all of it.
fn before_between_after(change: Change, back: Change) -> [Vec<bool>; 3] {
    let mut cluster = world();
    let mut compiler = Compiler::new([1, 2]);
    let before = audited(&compiler.compile(&cluster, &Touched::default()));
    let [between, after] = [change, back].map(|change| {
        let mut touched = Touched::default();
        cluster.apply(change, &mut touched);
        assert!(!touched.is_empty(), "it is news");
        audited(&compiler.compile(&cluster, &touched))
    });
    [before, between, after]
}

#[test]
fn a_pod_is_audited_by_its_annotation_and_no_other_pod_is() {
    let annotated = Pod { audit: true, ..pod("pod0", 0) };
    let seen = before_between_after(Change::Pod(annotated), Change::Pod(pod("pod0", 0)));
    assert_eq!(seen, [vec![false; 3], vec![true, false, false], vec![false; 3]]);
}

#[test]
fn a_namespace_is_audited_by_its_annotation_and_no_other_namespace_is() {
    let [on, off] = [true, false].map(|audit| Change::Namespace(namespace(NAMESPACE, audit)));
    let seen = before_between_after(on, off);
    assert_eq!(seen, [vec![false; 3], vec![true, true, false], vec![false; 3]]);
}

#[test]
fn a_node_is_audited_as_a_whole() {
    let mut cluster = world();
    cluster.audit_all = true;
    assert_eq!(audited(&Compiler::new([1, 2]).compile(&cluster, &Touched::default())), [true; 3]);
}

/// Nobody knows whose annotation it would be.
#[test]
fn an_interface_that_two_pods_claim_is_closed_unless_the_node_is_audited() {
    let mut cluster = world();
    for name in ["pod0", "twin"] {
        tell(&mut cluster, Change::Pod(Pod { audit: true, ..pod(name, 0) }));
    }
    let compiled = Compiler::new([1, 2]).compile(&cluster, &Touched::default());
    assert_eq!(compiled.endpoints[&1].pod, None);
    assert_eq!(audited(&compiled), [false; 3]);
    cluster.audit_all = true;
    assert_eq!(audited(&Compiler::new([1, 2]).compile(&cluster, &Touched::default())), [true; 3]);
}
