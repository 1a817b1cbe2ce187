//! What a real agent says of itself: its status, field by field, and what it lacks when it cannot start.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use cellwall_api::v1alpha1::{NodeStatus, Source};
use cellwall_policy::plan::Capacities;

use crate::POLICY;
use crate::place::Place;

/// Kinds of objects, and how many of each the folder has; no API server serves the last.
const OBJECTS: [(&str, u64); 7] = [
    ("Namespace", 1),
    ("Node", 1),
    ("Pod", 1),
    ("Service", 0),
    ("EndpointSlice", 0),
    ("NetworkPolicy", 1),
    ("ClusterNetworkPolicy", 0),
];

/// What can be right or wrong with a node.
pub(crate) const CONDITIONS: [&str; 8] = [
    "SourcesListed",
    "SourcesCurrent",
    "LinksListed",
    "Enforcing",
    "Attached",
    "FirstOnHook",
    "Chained",
    "InStep",
];

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    since.as_secs().cast_signed()
}

#[tokio::test]
async fn every_field_of_a_status_is_what_is_there() {
    let Some(place) = Place::new() else { return };
    place.write("policy.yaml", POLICY);
    let begun = now_s();
    let agent = place.agent(&[]);
    let is_counted = |s: &NodeStatus| s.tables.iter().any(|t| t.name == "ADDRESSES4" && t.used > 0);
    let status = place.status("counted", |s| s.ready && s.endpoint_count == 1 && is_counted(s)).await;

    assert_eq!((status.node.as_str(), status.agent_version.as_str()), ("n1", env!("CARGO_PKG_VERSION")));
    assert!(status.revision > 0);
    let since = status.revision_since.as_ref().expect("it is live").seconds;
    assert!((begun..=now_s()).contains(&since), "{since} is not between {begun} and now");
    let conditions: Vec<&str> = status.conditions.iter().map(|c| c.r#type.as_str()).collect();
    assert_eq!(conditions, CONDITIONS);
    assert!(status.conditions.iter().all(|c| c.ok && !c.reason.is_empty()), "{:?}", status.conditions);
    assert_eq!((status.policy_count, status.problem_count, status.audit), (1, 0, false));
    assert!(status.problems.is_empty() && status.unplaced_pods.is_empty(), "{status:?}");
    assert!(!status.counters.is_empty());

    sources(&status.sources);
    kernel(&status);
    tables(&status);
    let [link] = &status.links[..] else { panic!("one veth: {:?}", status.links) };
    let pod = link.pod.as_ref().expect("it is known");
    assert_eq!((link.name.as_str(), pod.namespace.as_str(), pod.name.as_str()), ("veth0", "shop", "web"));
    assert!(link.ifindex > 0 && link.first && link.error.is_empty(), "{link:?}");

    // Nothing more is heard of a folder that stays as it is.
    let age = |s: &NodeStatus| s.sources.iter().filter_map(|source| source.last_event_age_ms).min();
    let first = age(&status);
    place.status("older", |s| age(s) > first).await;
    agent.stop();
}

fn sources(sources: &[Source]) {
    let known: Vec<(&str, u64)> = sources.iter().map(|s| (s.kind.as_str(), s.objects)).collect();
    assert_eq!(known, OBJECTS);
    for source in sources {
        assert!(source.listed && source.error.is_empty(), "{source:?}");
        // It was started less than the time of a whole test ago.
        assert!(source.last_event_age_ms.is_some_and(|age| age < 120_000), "{source:?}");
    }
}

/// What is said to be there is what another way of asking finds.
fn kernel(status: &NodeStatus) {
    let kernel = status.kernel.as_ref().expect("it was asked");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("it is mounted");
    assert_eq!(kernel.release, release.trim());
    assert_eq!(kernel.tcx, status.links[0].hook == "tcx", "{kernel:?}");
    assert_eq!(kernel.btf, Path::new("/sys/kernel/btf/vmlinux").exists(), "{kernel:?}");
    let global = rustix::thread::MembarrierQuery::GLOBAL;
    assert_eq!(kernel.membarrier, rustix::thread::membarrier_query().contains(global), "{kernel:?}");
    // With a kernel that always compiles there is no such file.
    if let Ok(on) = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable") {
        assert_eq!(kernel.jit, on.trim() != "0", "{kernel:?}");
    }
    // Since 5.6, and 6.1 is the oldest that is supported.
    assert!(kernel.batch, "{kernel:?}");
}

/// All tables with rows that are counted, each with the capacity that it was given, or the default one.
fn tables(status: &NodeStatus) {
    let default = Capacities::default();
    let expected: BTreeMap<&str, u64> = [
        ("ADDRESSES4", 1024),
        ("ADDRESSES6", 1024),
        ("ENDPOINTS", default.endpoints),
        ("FLOWS4", 1024),
        ("FLOWS6", 1024),
        ("PENDING4", 1024),
        ("PENDING6", 1024),
        ("POLICY", 4096),
        ("PORTS", 1024),
        ("PREFIXES4", 1024),
        ("PREFIXES6", 1024),
        ("SERVICES4", default.services),
        ("SERVICES6", default.services),
    ]
    .map(|(name, rows)| (name, rows.into()))
    .into();
    let said: BTreeMap<&str, u64> = status.tables.iter().map(|t| (t.name.as_str(), t.capacity)).collect();
    assert_eq!(said, expected);
    assert!(status.tables.is_sorted_by(|a, b| a.name < b.name), "{:?}", status.tables);
    assert!(status.tables.iter().all(|table| table.used <= table.capacity), "{:?}", status.tables);
    let used = |name: &str| status.tables.iter().find(|t| t.name == name).map(|t| t.used);
    assert_eq!((used("ENDPOINTS"), used("SERVICES4")), (Some(1), Some(0)));
}

/// Each capability that it needs is named when it is the one that is missing.
#[tokio::test]
async fn each_missing_capability_is_named() {
    let Some(place) = Place::new() else { return };
    for name in ["bpf", "net_admin", "perfmon"] {
        let Some(agent) = place.agent_without(name) else { return };
        assert_eq!(agent.ends(), Some(1), "{name}");
        let named = format!("this process lacks CAP_{}; the agent needs", name.to_uppercase());
        assert!(place.log().contains(&named), "{named}: {}", place.log());
    }
}

/// A pod whose token is not mounted: what is missing is named, and who leaves it out.
#[tokio::test]
async fn a_pod_without_a_service_account_is_told_what_is_missing() {
    let Some(place) = Place::new() else { return };
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    if Path::new(account).exists() {
        println!("skipped: this is a pod with a service account");
        return;
    }
    let pod = ["env", "-u", "KUBECONFIG", "KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT=443"];
    assert_eq!(place.start(&pod, &["--source", "api"]).ends(), Some(1));
    let log = place.log();
    assert!(log.contains(account) && log.contains("automountServiceAccountToken"), "{log}");
    assert!(log.contains("No such file"), "{log}");
}
