//! What a kernel offers beyond what is needed: each was tried, and what was found is what is used.

use std::fs;

use cellwall_datapath::Datapath;

use crate::place::place;

/// Prints what was found, so that a run on another kernel says what it ran on.
#[test]
fn each_optional_feature_is_probed_and_used() {
    // The setting is not shown in the node's network namespace.
    let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable");
    place("features", |place| {
        let pod = place.net.pod().expect("a pod");
        let datapath = Datapath::open(&place.settings).expect("a data path");
        let found = datapath.features();
        println!("{found:?}");
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs");
        assert_eq!(found.kernel, release.trim());
        datapath.attach(pod.ifindex).expect("an interface");
        let kind = if found.tcx { "tcx" } else { "clsact" };
        assert_eq!(datapath.attached().expect("hooks")[&pod.ifindex].kind, kind);
        let grace = if found.membarrier { "membarrier" } else { "map-in-map" };
        assert_eq!(datapath.grace_name(), grace);
        assert_eq!(found.btf, fs::read("/sys/kernel/btf/vmlinux").is_ok_and(|types| !types.is_empty()));
        assert_eq!(found.jit, jit.expect("procfs").trim() != "0");
        assert!(found.batch, "since 5.6, and older kernels lack helpers that the programs call");
    });
}
