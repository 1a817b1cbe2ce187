//! The running agent, as the kernel of its node sees it: what a runtime adds or leaves out shows here.

use cellwall_e2e::cluster::Cluster;
use cellwall_e2e::helm::{NAMESPACE, said};
use cellwall_e2e::node::CNI_BIN_DIR;
use serde_json::Value;

/// What the chart gives: CAP_NET_ADMIN (12), CAP_PERFMON (38) and CAP_BPF (39).
const RIGHTS: u64 = (1 << 12) | (1 << 38) | (1 << 39);

/// The processes of agents on the node, as it counts.
pub(crate) fn agents(cluster: &Cluster) -> Vec<u32> {
    // That nothing is found is a failure to pgrep.
    let found = cluster.command("pgrep").args(["-x", "cellwall-agent"]).output().expect("pgrep runs");
    let pids = String::from_utf8_lossy(&found.stdout);
    let pids = pids.lines().map(|pid| pid.parse().expect("a number"));
    // One that has ended and is not reaped yet has no program.
    let lives = |pid: &u32| {
        cluster.command("readlink").arg(format!("/proc/{pid}/exe")).output().is_ok_and(|o| o.status.success())
    };
    pids.filter(lives).collect()
}

/// The one agent of the node.
pub(crate) struct Agent<'a> {
    cluster: &'a Cluster,
    /// As the node counts.
    pub(crate) pid: u32,
}

impl<'a> Agent<'a> {
    pub(crate) fn of(cluster: &'a Cluster) -> Self {
        let found = agents(cluster);
        let [pid] = found[..] else { panic!("one agent: {found:?}") };
        Self { cluster, pid }
    }

    pub(crate) fn runs_with_its_rights_alone(&self) {
        let status = self.proc("status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name}: {status}")).trim().to_owned()
        };
        for (set, rights) in [("CapEff:", RIGHTS), ("CapPrm:", RIGHTS), ("CapBnd:", RIGHTS), ("CapAmb:", 0)] {
            assert_eq!(u64::from_str_radix(&field(set), 16), Ok(rights), "{set} {}", field(set));
        }
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("Seccomp:"), "2", "there is a filter");
        let mounts = self.proc("mounts");
        let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).expect("a root");
        assert!(
            root.split(' ').nth(3).is_some_and(|options| options.split(',').any(|o| o == "ro")),
            "{root}"
        );
        // Who can write there decides what the node runs as root (CVE-2023-27593).
        for folder in ["/plugins", CNI_BIN_DIR] {
            assert!(!mounts.contains(&format!(" {folder} ")), "{mounts}");
        }
        let own =
            |name| said(self.cluster.command("readlink").arg(format!("/proc/{name}"))).expect("a namespace");
        assert_ne!(
            own(format!("{}/ns/pid", self.pid)),
            own("1/ns/pid".to_owned()),
            "not the node's processes"
        );
    }

    /// The kernel charges the tables to the agent's cgroup, and the limit that the chart derived has room for both.
    pub(crate) fn fits_into_its_memory(&self) {
        let [used, limit] = self.memory_bytes();
        let container = ["-n", NAMESPACE, "get", "daemonset", "cellwall", "-o", "json"];
        let daemonset = self.cluster.kubectl(&container, "").expect("kubectl succeeds");
        let daemonset: Value = serde_json::from_str(&daemonset).expect("JSON");
        let stated = &daemonset["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"];
        let stated =
            stated.as_str().and_then(|text| text.strip_suffix("Mi")?.parse::<u64>().ok()).expect("MiB");
        let log =
            self.cluster.kubectl(&["-n", NAMESPACE, "logs", "daemonset/cellwall"], "").unwrap_or_default();
        let tables =
            log.lines().find(|line| line.contains("the tables take")).unwrap_or("(no line in its log)");
        println!("the agent's cgroup has {} MiB of {stated}; its log: {tables}", used >> 20);
        assert_eq!(limit >> 20, stated, "the runtime set what the chart derived");
        assert!(used < limit, "{used} of {limit} bytes");
    }

    /// In use, and at most, by the memory cgroup of version 1 or 2.
    fn memory_bytes(&self) -> [u64; 2] {
        let cgroups = self.proc("cgroup");
        let path = |controller: &str| {
            let line = cgroups.lines().find(|line| line.split(':').nth(1) == Some(controller))?;
            line.splitn(3, ':').nth(2)
        };
        let (folder, files) = match path("memory") {
            Some(path) => (format!("memory{path}"), ["memory.usage_in_bytes", "memory.limit_in_bytes"]),
            None => (path("").expect("a cgroup").to_owned(), ["memory.current", "memory.max"]),
        };
        files.map(|file| {
            let text = said(self.cluster.command("cat").arg(format!("/sys/fs/cgroup/{folder}/{file}")));
            text.expect("a file of the cgroup").trim().parse().expect("bytes")
        })
    }

    fn proc(&self, file: &str) -> String {
        said(self.cluster.command("cat").arg(format!("/proc/{}/{file}", self.pid))).expect("it runs")
    }
}
