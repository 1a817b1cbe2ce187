//! Pods, nodes and namespaces as an API server sends them, or a user writes them.

use cellwall_kube::convert::{Decoded, decode};
use cellwall_policy::model::{Change, Namespace};
use expect_test::{Expect, expect};
use serde_json::json;

#[expect(clippy::needless_pass_by_value, reason = "`expect!` makes a value")]
fn check(yaml: &str, expected: Expect) {
    expected.assert_eq(&crate::common::render(&crate::common::changes(yaml)));
}

/// 256 KiB of annotations is what the API server takes, and every agent of the cluster keeps what it says of an object and
/// answers it again and again.
#[test]
fn what_is_said_of_an_object_is_short_whatever_the_object_says() {
    let long = "é".repeat(100 << 10);
    let annotated = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "annotations": {"cellwall.dev/enforcement": long}},
    });
    let broken = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": long},
    });
    for object in [annotated, broken] {
        let Decoded::Object(_, changes) = decode(object) else { panic!("a pod") };
        let said = changes.iter().filter_map(|change| match change {
            Change::Bad(problem) => Some(problem.message.len()),
            _ => None,
        });
        let said: Vec<usize> = said.collect();
        assert!(said.len() == 1 && said[0] > 50 && said[0] < 1000, "{said:?} bytes");
    }
}

/// So that its policies go on to apply (S88).
#[test]
fn a_namespace_that_is_being_deleted_is_what_it_was() {
    let deleting = "  deletionTimestamp: '2026-01-02T03:05:05Z'\nstatus: {phase: Terminating}\n";
    let changes = |rest: &str| {
        let namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels: {team: a}\n";
        crate::common::changes(&format!("{namespace}{rest}"))
    };
    let [Change::Namespace(before)] = &changes("")[..] else { panic!("a namespace") };
    let deleting = changes(deleting);
    assert_eq!(deleting, [Change::Namespace(Namespace { deleting: true, ..before.clone() })]);
}

/// S47, S81, S83, S85.
#[test]
fn a_pod_with_everything() {
    check(
        "
apiVersion: v1
kind: Pod
metadata:
  name: db-0
  namespace: shop
  uid: 1-2-3
  labels: {app: db}
  annotations: {cellwall.dev/enforcement: audit}
  creationTimestamp: '2026-01-02T03:04:05Z'
  deletionTimestamp: '2026-01-02T03:05:05Z'
spec:
  nodeName: a
  initContainers:
  - {name: plain, ports: [{name: plain, containerPort: 1}]}
  - {name: mesh, restartPolicy: Always, ports: [{name: mesh, containerPort: 15000}, {name: sql, containerPort: 2}]}
  containers:
  - {name: db, ports: [{name: sql, containerPort: 5432}, {containerPort: 99}, {name: dns, protocol: UDP, containerPort: 53}]}
  - {name: two, ports: [{name: sql, containerPort: 3}, {name: dns, containerPort: 54}, {name: bad, containerPort: 70000}]}
status:
  phase: Running
  podIP: 10.0.0.1
  podIPs: [{ip: 10.0.0.1}, {ip: '2001:db8::1'}, {ip: nowhere}]
",
        expect![[r#"
            Pod(
                Pod {
                    namespace: "shop",
                    name: "db-0",
                    uid: "1-2-3",
                    labels: {
                        "app": "db",
                    },
                    addresses: [
                        10.0.0.1,
                        2001:db8::1,
                    ],
                    node: "a",
                    host_network: false,
                    phase: Running,
                    deleting: true,
                    created_s: 1767323045,
                    ports: [
                        NamedPort {
                            name: "sql",
                            protocol: TCP,
                            number: 5432,
                        },
                        NamedPort {
                            name: "dns",
                            protocol: UDP,
                            number: 53,
                        },
                        NamedPort {
                            name: "dns",
                            protocol: TCP,
                            number: 54,
                        },
                        NamedPort {
                            name: "mesh",
                            protocol: TCP,
                            number: 15000,
                        },
                    ],
                    host_ports: [],
                    audit: true,
                },
            )
            bad Pod shop/db-0: status.podIPs: `nowhere` is not an IP address; it is left out; spec.containers[two].ports[bad]: TCP 70000 is no port; the name is left out
        "#]],
    );
}

/// Only what is missing in the object is defaulted; S60, S84.
#[test]
fn a_pod_with_nearly_nothing() {
    check(
        "{apiVersion: v1, kind: Pod, metadata: {name: p, annotations: {cellwall.dev/enforcement: 'off'}}, \
         spec: {hostNetwork: true, containers: []}, status: {phase: Failed, podIP: '::ffff:10.0.0.1'}}",
        expect![[r#"
            Pod(
                Pod {
                    namespace: "default",
                    name: "p",
                    uid: "",
                    labels: {},
                    addresses: [
                        ::ffff:10.0.0.1,
                    ],
                    node: "",
                    host_network: true,
                    phase: Terminal,
                    deleting: false,
                    created_s: 0,
                    ports: [],
                    host_ports: [],
                    audit: false,
                },
            )
            bad Pod default/p: metadata.annotations[cellwall.dev/enforcement]: `off` is neither `enforce` nor `audit`; policies are enforced
        "#]],
    );
    check(
        "{apiVersion: v1, kind: Pod, metadata: {name: p}}",
        expect![[r#"
            Pod(
                Pod {
                    namespace: "default",
                    name: "p",
                    uid: "",
                    labels: {},
                    addresses: [],
                    node: "",
                    host_network: false,
                    phase: Pending,
                    deleting: false,
                    created_s: 0,
                    ports: [],
                    host_ports: [],
                    audit: false,
                },
            )
        "#]],
    );
}

/// A pod keeps its identity when its containers cannot be read.
#[test]
fn a_pod_with_broken_containers() {
    check(
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {nodeName: a, containers: [{name: c, ports: all}]}, \
         status: {phase: Running, podIP: 10.0.0.1}}",
        expect![[r#"
            Pod(
                Pod {
                    namespace: "default",
                    name: "p",
                    uid: "",
                    labels: {},
                    addresses: [
                        10.0.0.1,
                    ],
                    node: "a",
                    host_network: false,
                    phase: Running,
                    deleting: false,
                    created_s: 0,
                    ports: [],
                    host_ports: [],
                    audit: false,
                },
            )
            bad Pod default/p: spec.containers: cannot be read: invalid type: string "all", expected a sequence; no named port and no host port of this pod is known
        "#]],
    );
    check(
        "{apiVersion: v1, kind: Pod, metadata: {name: p, labels: [a]}}",
        expect![[r#"
        bad Pod default/p: : cannot be read: invalid type: sequence, expected a map; it has no effect, or the one that its last version had
    "#]],
    );
}

#[test]
fn secrets_of_a_pod_are_not_repeated() {
    let yaml = "{apiVersion: v1, kind: Pod, metadata: {name: p}, \
                spec: {containers: [{name: c, env: hunter2, args: {a: hunter2}}], volumes: hunter2}}";
    assert!(!crate::common::render(&crate::common::changes(yaml)).contains("hunter2"));
}

/// S25: the name is a label whatever the object says.
#[test]
fn namespaces() {
    check(
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}",
        expect![[r#"
        Namespace(
            Namespace {
                name: "shop",
                labels: {
                    "kubernetes.io/metadata.name": "shop",
                },
                audit: false,
                deleting: false,
            },
        )
    "#]],
    );
    check(
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a, kubernetes.io/metadata.name: other}, \
         annotations: {cellwall.dev/enforcement: audit}}}",
        expect![[r#"
            Namespace(
                Namespace {
                    name: "shop",
                    labels: {
                        "kubernetes.io/metadata.name": "shop",
                        "team": "a",
                    },
                    audit: true,
                    deleting: false,
                },
            )
        "#]],
    );
    check(
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, annotations: {cellwall.dev/enforcement: Audit}}}",
        expect![[r#"
            Namespace(
                Namespace {
                    name: "shop",
                    labels: {
                        "kubernetes.io/metadata.name": "shop",
                    },
                    audit: false,
                    deleting: false,
                },
            )
            bad Namespace shop: metadata.annotations[cellwall.dev/enforcement]: `Audit` is neither `enforce` nor `audit`; policies are enforced
        "#]],
    );
}

#[test]
fn nodes() {
    check(
        "{apiVersion: v1, kind: Node, metadata: {name: a, labels: {zone: x}}, spec: {podCIDR: 10.0.0.0/24, \
         podCIDRs: [10.0.0.0/24, '2001:db8::/64', x]}, status: {images: 7, addresses: [{type: InternalIP, address: 192.0.2.1}, \
         {type: Hostname, address: a}, {type: ExternalIP, address: b}]}}",
        expect![[r#"
            Node(
                Node {
                    name: "a",
                    labels: {
                        "zone": "x",
                    },
                    addresses: [
                        192.0.2.1,
                    ],
                    pod_cidrs: [
                        10.0.0.0/24,
                        2001:db8::/64,
                    ],
                },
            )
            bad Node a: status.addresses[2].address: `b` is not an IP address; it is left out; spec.podCIDRs[2]: `x` is not a CIDR such as 10.0.0.0/8 or 2001:db8::/32; addresses in it are not known to be pods
        "#]],
    );
    check(
        "{apiVersion: v1, kind: Node, metadata: {name: a}, spec: {podCIDR: 10.0.0.0/24}}",
        expect![[r#"
        Node(
            Node {
                name: "a",
                labels: {},
                addresses: [],
                pod_cidrs: [
                    10.0.0.0/24,
                ],
            },
        )
    "#]],
    );
}

#[test]
fn cluster_network_policies_are_named_as_not_enforced() {
    check(
        "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: c}}",
        expect![[r#"
            bad ClusterNetworkPolicy c: : ClusterNetworkPolicy is not enforced by this version: this object has no effect
        "#]],
    );
}

#[test]
fn what_is_not_ours() {
    let other = decode(crate::common::json("{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}"));
    assert_eq!(other, Decoded::Other { api_version: "apps/v1".into(), kind: "Deployment".into() });
    assert!(matches!(decode(crate::common::json("{apiVersion: v1, kind: Pod}")), Decoded::Unnamed(_)));
    assert!(matches!(decode(crate::common::json("[1]")), Decoded::Other { .. }));
}

/// The runtime, and so the CNI plugin, knows a static pod by the uid that the kubelet gave it.
#[test]
fn the_uid_of_a_static_pod_is_its_own() {
    let yaml = "
apiVersion: v1
kind: Pod
metadata: {name: dns-a, namespace: shop, uid: of-the-mirror, annotations: {kubernetes.io/config.mirror: its-own}}
";
    let changes = crate::common::changes(yaml);
    let is_it = |change: &Change| matches!(change, Change::Pod(pod) if pod.uid == "its-own");
    assert!(changes.iter().any(is_it), "{changes:?}");
}
