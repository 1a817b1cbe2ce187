//! What an ADD costs: the plugin called directly, as a runtime does, before an agent with a folder of manifests. A runtime
//! without the plugin has none of this, so the whole call is what a start takes longer.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cellwall_e2e::programs::program;
use cellwall_testkit::net::{Net, Pod, Process};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::json;
use tempfile::TempDir;

use crate::scene::PATIENCE;

/// Pods that are there at a time.
const ALIVE: usize = 50;
/// Flags of an agent whose tables are made quickly.
const SMALL: [&str; 4] = ["--capacity-flows", "1024", "--capacity-pending", "1024"];

/// How many calls: `CELLWALL_ADDS`.
fn calls() -> usize {
    std::env::var("CELLWALL_ADDS").map_or(20, |text| text.parse().expect("CELLWALL_ADDS is a number"))
}

/// A BPF file system in a folder, which goes first.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}

/// Prints median and 95th percentile, and holds that every pod was enforced when its call returned.
#[test]
fn direct_calls_of_add_are_timed() {
    if !cellwall_testkit::net::is_root() {
        println!("skipped: needs root");
        return;
    }
    let folder = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
    let bpffs = folder.path().join("bpf");
    fs::create_dir(&bpffs).expect("ours");
    mount("bpf", &bpffs, "bpf", MountFlags::empty(), None).expect("root");
    let _mounted = Mounted(&bpffs);
    let net = Net::new("cost").expect("a network namespace");
    let _agent = agent(&folder, &net);

    let mut alive: Vec<Pod> = Vec::new();
    let mut took: Vec<Duration> = Vec::new();
    let mut bare: Vec<Duration> = Vec::new();
    for n in 0..calls() {
        if alive.len() == ALIVE {
            net.remove(alive.remove(0)).expect("it is there");
        }
        let (v4, v6) = addresses(n);
        let pod = net.connect(&format!("cw{n}"), v4, v6).expect("a pod");
        let (answer, time) = call(&folder, &net, "VERSION", n, &pod);
        assert!(answer.contains("supportedVersions"), "{answer}");
        bare.push(time);
        let (answer, time) = call(&folder, &net, "ADD", n, &pod);
        assert!(answer.contains(&v4.to_string()), "pod {n}: {answer}");
        took.push(time);
        let (answer, _) = call(&folder, &net, "CHECK", n, &pod);
        assert_eq!(answer, "", "pod {n} is enforced");
        alive.push(pod);
    }
    for (what, times) in [("ADD", &mut took), ("VERSION, which asks no agent", &mut bare)] {
        times.sort();
        let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
        println!("{} calls of {what}: median {:.1} ms, p95 {:.1} ms", times.len(), at(50), at(95));
    }
}

/// The addresses of a pod.
fn addresses(n: usize) -> (Ipv4Addr, Ipv6Addr) {
    let n = u32::try_from(n).expect("some thousands") + 2;
    let v4 = Ipv4Addr::from_bits(Ipv4Addr::new(10, 245, 0, 0).to_bits() + n);
    (v4, Ipv6Addr::from_bits(Ipv6Addr::new(0xfd00, 0x245, 0, 0, 0, 0, 0, 0).to_bits() + u128::from(n)))
}

/// An agent that is ready, and knows every pod as it is before the kubelet writes its status.
fn agent(folder: &TempDir, net: &Net) -> Process {
    let manifests = folder.path().join("manifests");
    fs::create_dir(&manifests).expect("ours");
    let mut objects = String::from(OBJECTS);
    for n in 0..calls() {
        let meta = json!({"name": format!("p{n}"), "namespace": "shop", "uid": format!("uid-{n}")});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"nodeName": "n1"}});
        writeln!(objects, "---\n{pod}").expect("a string takes it");
    }
    fs::write(manifests.join("objects.yaml"), objects).expect("ours");
    let mut agent = Command::new(program("cellwall-agent").expect("it is built"));
    agent.args(["--node-name", "n1", "--source", &format!("dir:{}", manifests.display())]).args(SMALL);
    agent.args(["--disabled-file", "/nonexistent", "--bpffs"]);
    agent.arg(folder.path().join("bpf")).arg("--socket").arg(folder.path().join("agent.sock"));
    let log = fs::File::create(folder.path().join("log")).expect("ours");
    let agent = net.host.spawn(agent.stdout(log.try_clone().expect("a file")).stderr(log));
    let agent = agent.expect("it starts");
    let began = Instant::now();
    loop {
        let mut status = Command::new(program("cellwall").expect("it is built"));
        status.arg("--socket").arg(folder.path().join("agent.sock")).arg("status");
        if status.output().expect("it runs").status.success() {
            return agent;
        }
        let log = || fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        assert!(began.elapsed() < PATIENCE, "the agent is not ready\n{}", log());
        thread::sleep(Duration::from_millis(50));
    }
}

/// What the plugin prints, and how long the call took from its start to its end.
fn call(folder: &TempDir, net: &Net, command: &str, n: usize, pod: &Pod) -> (String, Duration) {
    let entry = json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "cellwall-cni", "socket": folder.path().join("agent.sock"),
        "prevResult": {
            "cniVersion": "1.0.0",
            "interfaces": [{"name": pod.interface}, {"name": "eth0", "sandbox": "/run/netns/x"}],
            "ips": [{"address": format!("{}/32", pod.v4)}, {"address": format!("{}/128", pod.v6)}],
        },
    });
    let mut plugin = Command::new(program("cellwall-cni").expect("it is built"));
    plugin.env("CNI_COMMAND", command);
    plugin.env("CNI_ARGS", format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=p{n};K8S_POD_UID=uid-{n}"));
    plugin.stdin(Stdio::piped()).stdout(Stdio::piped());
    let began = Instant::now();
    let mut process = net.host.spawn(&mut plugin).expect("it is built");
    let mut stdin = process.child().stdin.take().expect("it is piped");
    stdin.write_all(entry.to_string().as_bytes()).expect("it reads");
    drop(stdin);
    let mut said = String::new();
    let mut stdout = process.child().stdout.take().expect("it is piped");
    stdout.read_to_string(&mut said).expect("text");
    process.wait().expect("it ends");
    (said, began.elapsed())
}

const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
";
