//! `cellwall status`.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cellwall_api::v1alpha1::{Counter, KernelFeatures, NodeStatus, Source, Table};

use crate::age::age;
use crate::output::Answer;
use crate::table;

impl Answer for NodeStatus {
    fn table(&self, wide: bool, now: SystemTime) -> String {
        table::sections(&[
            facts(self, now),
            conditions(self),
            sources(self),
            tables(self, wide),
            links(self),
            counters(self, wide),
            unplaced(self),
            problems(self),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![format!("node/{}", self.node)]
    }
}

fn facts(status: &NodeStatus, now: SystemTime) -> String {
    let since = status.revision_since.as_ref().map(|since| {
        let since =
            Duration::new(u64::try_from(since.seconds).unwrap_or(0), u32::try_from(since.nanos).unwrap_or(0));
        let elapsed = now.duration_since(UNIX_EPOCH + since).unwrap_or_default();
        format!(", live for {}", age(elapsed))
    });
    let enforcement =
        if status.audit { "audit: every pod is judged and nothing is dropped" } else { "enforce" };
    table::facts(&[
        ("Node", status.node.clone()),
        ("Ready", table::yes(status.ready)),
        ("Revision", format!("{}{}", status.revision, since.unwrap_or_default())),
        ("Enforcement", enforcement.to_owned()),
        ("Endpoints", status.endpoint_count.to_string()),
        ("Policies", status.policy_count.to_string()),
        ("Agent", status.agent_version.clone()),
        ("Kernel", status.kernel.as_ref().map(kernel).unwrap_or_default()),
    ])
}

fn kernel(kernel: &KernelFeatures) -> String {
    let KernelFeatures { release, tcx, batch, membarrier, btf, jit } = kernel;
    let features =
        [("tcx", *tcx), ("batch", *batch), ("membarrier", *membarrier), ("btf", *btf), ("jit", *jit)];
    let missing: Vec<&str> = features.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect();
    match missing.as_slice() {
        [] => release.clone(),
        missing => format!("{release}, without {}", missing.join(", ")),
    }
}

fn conditions(status: &NodeStatus) -> String {
    let rows = status.conditions.iter().map(|condition| {
        [
            condition.r#type.clone(),
            table::yes(condition.ok),
            condition.reason.clone(),
            condition.message.clone(),
        ]
    });
    table::rows(["CONDITION", "OK", "REASON", "MESSAGE"], rows.collect())
}

fn sources(status: &NodeStatus) -> String {
    let state = |source: &Source| match (source.served, source.listed) {
        (false, _) => "not served",
        (true, true) => "listed",
        (true, false) => "not listed",
    };
    let rows = status.sources.iter().map(|source| {
        [
            source.kind.clone(),
            state(source).to_owned(),
            source.objects.to_string(),
            source.last_event_age_ms.map_or("-".to_owned(), |ms| age(Duration::from_millis(ms))),
            table::or_dash(source.error.clone()),
        ]
    });
    table::rows(["SOURCE", "STATE", "OBJECTS", "LAST EVENT", "ERROR"], rows.collect())
}

/// Tables that hold something; all of them when `wide`.
fn tables(status: &NodeStatus, wide: bool) -> String {
    let percent = |table: &Table| (table.used.saturating_mul(100)).checked_div(table.capacity).unwrap_or(0);
    let rows = status.tables.iter().filter(|table| wide || table.used > 0).map(|table| {
        [
            table.name.clone(),
            table.used.to_string(),
            table.capacity.to_string(),
            format!("{}%", percent(table)),
        ]
    });
    table::rows(["TABLE", "USED", "CAPACITY", "FULL"], rows.collect())
}

fn links(status: &NodeStatus) -> String {
    let rows = status.links.iter().map(|link| {
        let hook = match (link.hook.as_str(), link.error.as_str(), link.first) {
            ("", "", _) => "none".to_owned(),
            ("", error, _) => error.to_owned(),
            (hook, _, true) => hook.to_owned(),
            (hook, _, false) => format!("{hook}, another program is before ours"),
        };
        [link.ifindex.to_string(), link.name.clone(), table::name(link.pod.as_ref()), hook]
    });
    table::rows(["IFINDEX", "INTERFACE", "POD", "HOOK"], rows.collect())
}

/// Drops that occurred; everything when `wide`.
fn counters(status: &NodeStatus, wide: bool) -> String {
    let shown = status.counters.iter().filter(|counter| wide || (counter.drop && counter.packets > 0));
    let rows = shown.map(|counter| {
        [
            if counter.drop { "drop" } else { "pass" }.to_owned(),
            counter.reason.clone(),
            direction(counter).to_owned(),
            counter.packets.to_string(),
            counter.bytes.to_string(),
        ]
    });
    table::rows(["VERDICT", "REASON", "DIRECTION", "PACKETS", "BYTES"], rows.collect())
}

fn direction(counter: &Counter) -> &'static str {
    use cellwall_api::v1alpha1::Direction;
    match counter.direction() {
        Direction::Unspecified => "-",
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

fn unplaced(status: &NodeStatus) -> String {
    let rows = status.unplaced_pods.iter().map(|pod| [table::name(pod.pod.as_ref()), pod.message.clone()]);
    table::rows(["POD NOT ENFORCED", "BECAUSE"], rows.collect())
}

fn problems(status: &NodeStatus) -> String {
    let rows = status.problems.iter().map(|problem| {
        let object = problem.object.as_ref();
        let kind = object.map(|object| object.kind.clone()).unwrap_or_default();
        [
            format!("{kind} {}", table::name(object)),
            table::or_dash(problem.field.clone()),
            problem.message.clone(),
        ]
    });
    let mut text = table::rows(["PROBLEM WITH", "FIELD", "MESSAGE"], rows.collect());
    let shown = status.problems.len();
    let all = status.problem_count as usize;
    if all > shown {
        writeln!(text, "and {} more", all - shown).expect("a string takes everything");
    }
    text
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
mod tests {
    use cellwall_api::timestamp;
    use cellwall_api::v1alpha1::{
        Condition, Direction, Link, ObjectReference, Problem, UnplacedPod, UnplacedReason,
    };
    use expect_test::{Expect, expect};

    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "the fields are optional")]
    fn object(kind: &str, namespace: &str, name: &str) -> Option<ObjectReference> {
        Some(ObjectReference {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    fn condition(name: &str, ok: bool, reason: &str, message: &str) -> Condition {
        Condition {
            r#type: name.to_owned(),
            ok,
            reason: reason.to_owned(),
            message: message.to_owned(),
            required: true,
        }
    }

    fn source(kind: &str, served: bool, listed: bool, age_ms: Option<u64>, error: &str) -> Source {
        Source {
            kind: kind.to_owned(),
            served,
            listed,
            objects: u64::from(listed) * 3,
            last_event_age_ms: age_ms,
            error: error.to_owned(),
            enforced_resource_version: String::new(),
        }
    }

    fn counter(reason: &str, drop: bool, packets: u64) -> Counter {
        Counter {
            reason: reason.to_owned(),
            direction: Direction::Ingress.into(),
            drop,
            packets,
            bytes: packets * 74,
        }
    }

    fn link(ifindex: u32, hook: &str, first: bool, error: &str) -> Link {
        Link {
            ifindex,
            name: format!("veth{ifindex}"),
            pod: (ifindex == 12).then(|| object("Pod", "shop", "web-0")).flatten(),
            hook: hook.to_owned(),
            first,
            error: error.to_owned(),
        }
    }

    fn status() -> NodeStatus {
        NodeStatus {
            node: "n1".to_owned(),
            agent_version: "0.1.0".to_owned(),
            revision: 7,
            revision_since: Some(timestamp(UNIX_EPOCH + Duration::from_secs(1000))),
            ready: false,
            conditions: vec![
                condition("SourcesListed", false, "NotListed", "ClusterNetworkPolicy is not listed yet"),
                condition("Enforcing", true, "Applied", ""),
            ],
            sources: vec![
                source("Pod", true, true, Some(1500), ""),
                source("NetworkPolicy", true, false, None, "403 Forbidden"),
                source("ClusterNetworkPolicy", false, true, None, ""),
            ],
            kernel: Some(KernelFeatures {
                release: "6.1.0".to_owned(),
                batch: true,
                membarrier: true,
                btf: true,
                jit: true,
                tcx: false,
            }),
            tables: vec![
                Table { name: "POLICY".to_owned(), used: 1311, capacity: 262_144 },
                Table { name: "PORTS".to_owned(), used: 0, capacity: 65_536 },
            ],
            links: vec![
                link(12, "tcx", true, ""),
                link(14, "clsact", false, ""),
                link(15, "", false, "cannot attach: EPERM"),
            ],
            problems: vec![Problem {
                object: object("NetworkPolicy", "shop", "web"),
                field: "spec.podSelector".to_owned(),
                message: "operator \"Inn\" is not known: it selects as if it were not there".to_owned(),
            }],
            problem_count: 3,
            counters: vec![counter("established", false, 1000), counter("default_deny", true, 12)],
            unplaced_pods: vec![UnplacedPod {
                pod: object("Pod", "kube-system", "kube-proxy"),
                reason: UnplacedReason::HostNetwork.into(),
                message: "it uses the node's network, which policies do not cover".to_owned(),
            }],
            endpoint_count: 1,
            policy_count: 2,
            audit: false,
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "the macro makes values")]
    fn check(wide: bool, expected: Expect) {
        expected.assert_eq(&status().table(wide, UNIX_EPOCH + Duration::from_mins(20)));
    }

    #[test]
    fn table() {
        check(
            false,
            expect![[r#"
            Node:        n1
            Ready:       no
            Revision:    7, live for 3m20s
            Enforcement: enforce
            Endpoints:   1
            Policies:    2
            Agent:       0.1.0
            Kernel:      6.1.0, without tcx

            CONDITION      OK   REASON     MESSAGE
            SourcesListed  no   NotListed  ClusterNetworkPolicy is not listed yet
            Enforcing      yes  Applied

            SOURCE                STATE       OBJECTS  LAST EVENT  ERROR
            Pod                   listed      3        1s          -
            NetworkPolicy         not listed  0        -           403 Forbidden
            ClusterNetworkPolicy  not served  3        -           -

            TABLE   USED  CAPACITY  FULL
            POLICY  1311  262144    0%

            IFINDEX  INTERFACE  POD         HOOK
            12       veth12     shop/web-0  tcx
            14       veth14     -           clsact, another program is before ours
            15       veth15     -           cannot attach: EPERM

            VERDICT  REASON        DIRECTION  PACKETS  BYTES
            drop     default_deny  ingress    12       888

            POD NOT ENFORCED        BECAUSE
            kube-system/kube-proxy  it uses the node's network, which policies do not cover

            PROBLEM WITH            FIELD             MESSAGE
            NetworkPolicy shop/web  spec.podSelector  operator "Inn" is not known: it selects as if it were not there
            and 2 more
        "#]],
        );
    }

    #[test]
    fn wide() {
        check(
            true,
            expect![[r#"
            Node:        n1
            Ready:       no
            Revision:    7, live for 3m20s
            Enforcement: enforce
            Endpoints:   1
            Policies:    2
            Agent:       0.1.0
            Kernel:      6.1.0, without tcx

            CONDITION      OK   REASON     MESSAGE
            SourcesListed  no   NotListed  ClusterNetworkPolicy is not listed yet
            Enforcing      yes  Applied

            SOURCE                STATE       OBJECTS  LAST EVENT  ERROR
            Pod                   listed      3        1s          -
            NetworkPolicy         not listed  0        -           403 Forbidden
            ClusterNetworkPolicy  not served  3        -           -

            TABLE   USED  CAPACITY  FULL
            POLICY  1311  262144    0%
            PORTS   0     65536     0%

            IFINDEX  INTERFACE  POD         HOOK
            12       veth12     shop/web-0  tcx
            14       veth14     -           clsact, another program is before ours
            15       veth15     -           cannot attach: EPERM

            VERDICT  REASON        DIRECTION  PACKETS  BYTES
            pass     established   ingress    1000     74000
            drop     default_deny  ingress    12       888

            POD NOT ENFORCED        BECAUSE
            kube-system/kube-proxy  it uses the node's network, which policies do not cover

            PROBLEM WITH            FIELD             MESSAGE
            NetworkPolicy shop/web  spec.podSelector  operator "Inn" is not known: it selects as if it were not there
            and 2 more
        "#]],
        );
    }

    #[test]
    fn a_fresh_agent_prints_its_facts() {
        let fresh = NodeStatus { node: "n1".to_owned(), audit: true, ..NodeStatus::default() };
        expect![[r#"
            Node:        n1
            Ready:       no
            Revision:    0
            Enforcement: audit: every pod is judged and nothing is dropped
            Endpoints:   0
            Policies:    0
            Agent:       -
            Kernel:      -
        "#]]
        .assert_eq(&fresh.table(false, UNIX_EPOCH));
    }
}
