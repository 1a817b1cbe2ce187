//! The chart on a real cluster: helm installs it, the image runs with the rights that it names and no others, a policy is
//! enforced, and an uninstallation takes every object away.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use cellwall_e2e::cluster::Cluster;
use cellwall_e2e::flavour::Flavour;
use cellwall_e2e::helm::{NAMESPACE, chart, helm, load_image};
use cellwall_e2e::image::AGNHOST;
use serde_json::{Value, json};

/// How long something may take that has no promise. Machines are shared.
const PATIENCE: Duration = Duration::from_mins(2);
/// What the chart gives: CAP_NET_ADMIN (12), CAP_PERFMON (38) and CAP_BPF (39).
const RIGHTS: u64 = (1 << 12) | (1 << 38) | (1 << 39);

#[test]
fn the_chart_installs_the_agent_which_enforces_and_an_uninstallation_takes_every_object_away() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: a cluster needs root");
        return;
    }
    let cluster =
        Cluster::start(Path::new(env!("CARGO_BIN_EXE_cluster")), Flavour::default()).expect("a cluster");
    load_image(&cluster).expect("the image is loaded");

    let begun = Instant::now();
    let chart = chart().display().to_string();
    let install = ["install", NAMESPACE, &chart, "--create-namespace", "--wait", "--timeout", "2m"];
    if let Err(error) = helm(&cluster, &install) {
        panic!("{error:#}\n{}", state(&cluster));
    }
    println!("ready {} ms after the start of helm install", begun.elapsed().as_millis());

    let address = server(&cluster);
    enforces(&cluster, &address);
    runs_with_its_rights_alone(&cluster);
    may_only_list_and_watch(&cluster);
    let tested = helm(&cluster, &["test", NAMESPACE, "--timeout", "1m"]);
    assert!(tested.is_ok_and(|said| said.contains("Succeeded")), "{}", state(&cluster));

    helm(&cluster, &["uninstall", NAMESPACE, "--wait", "--timeout", "1m"]).expect("helm uninstalls");
    let kinds = "all,serviceaccounts,clusterroles,clusterrolebindings,roles,rolebindings";
    let left =
        kubectl(&cluster, &format!("get {kinds} -A -o name -l app.kubernetes.io/instance={NAMESPACE}"), "");
    // `helm test` leaves its pod, so that its log can be read.
    assert_eq!(left.trim(), "pod/cellwall-test");
    assert!(!connects(&cluster, &address), "without a clean-up what was last known stays in force");

    let removed = cluster.command("rm").args(["-r", "/sys/fs/bpf/cellwall"]).status().expect("rm runs");
    assert!(removed.success());
    assert!(connects(&cluster, &address), "the pins were all there was");
}

/// A policy of a namespace is in force soon after it is there.
fn enforces(cluster: &Cluster, address: &str) {
    assert!(connects(cluster, address), "nothing is isolated yet");
    let deny = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny"},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]}});
    kubectl(cluster, "apply -f -", &deny.to_string());
    let begun = Instant::now();
    loop {
        let answer = kubectl(
            cluster,
            "-n cellwall exec daemonset/cellwall -- cellwall endpoints -n default -o json",
            "",
        );
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let endpoints = answer["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
        if endpoints.iter().any(|e| e["pod"]["name"] == "server" && e["ingress"]["isolated"] == true) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{answer:#}\n{}", state(cluster));
        thread::sleep(Duration::from_millis(100));
    }
    assert!(!connects(cluster, address), "the policy is in force");
}

/// Those of the process, as the kernel has them: what a runtime adds or leaves out shows here.
fn runs_with_its_rights_alone(cluster: &Cluster) {
    let agents = cluster.command("pgrep").args(["-x", "cellwall-agent"]).output().expect("pgrep runs");
    let agents = String::from_utf8_lossy(&agents.stdout).trim().to_owned();
    assert_eq!(agents.lines().count(), 1, "one agent: {agents}");
    let status = cluster.command("cat").arg(format!("/proc/{agents}/status")).output().expect("cat runs");
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name}: {status}")).trim().to_owned()
    };
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(u64::from_str_radix(&field(set), 16), Ok(RIGHTS), "{set} {}", field(set));
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2", "there is a filter");
    let mounts = cluster.command("cat").arg(format!("/proc/{agents}/mounts")).output().expect("cat runs");
    let mounts = String::from_utf8_lossy(&mounts.stdout).into_owned();
    let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).expect("a root");
    assert!(root.split(' ').nth(3).is_some_and(|options| options.starts_with("ro")), "{root}");
}

/// The service account: what is listed and watched, and nothing is written.
fn may_only_list_and_watch(cluster: &Cluster) {
    let may = |what: &str| {
        let arguments = format!("auth can-i {what} -A --as=system:serviceaccount:{NAMESPACE}:cellwall");
        // It exits with 1 when the answer is no.
        let arguments: Vec<&str> = arguments.split(' ').collect();
        cluster.kubectl(&arguments, "").is_ok_and(|answer| answer.trim() == "yes")
    };
    for resource in
        ["pods", "nodes", "services", "endpointslices.discovery.k8s.io", "networkpolicies.networking.k8s.io"]
    {
        for verb in ["list", "watch"] {
            assert!(may(&format!("{verb} {resource}")), "{verb} {resource}");
        }
        for verb in ["get", "create", "update", "patch", "delete"] {
            assert!(!may(&format!("{verb} {resource}")), "{verb} {resource}");
        }
    }
    for what in ["list secrets", "list configmaps", "create pods/exec", "create serviceaccounts/token"] {
        assert!(!may(what), "{what}");
    }
}

/// A server and a client in the namespace `default`; the server's address.
fn server(cluster: &Cluster) -> String {
    for (name, arguments) in
        [("server", json!(["netexec", "--http-port=8080"])), ("client", json!(["pause"]))]
    {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"containers": [{"name": "main", "image": AGNHOST, "args": arguments}],
            "terminationGracePeriodSeconds": 0}});
        kubectl(cluster, "apply -f -", &pod.to_string());
    }
    kubectl(cluster, "wait --for=condition=Ready pod/server pod/client --timeout=120s", "");
    kubectl(cluster, "get pod server -o jsonpath={.status.podIP}", "")
}

/// True when the client connects to the server; false when it gets no answer.
fn connects(cluster: &Cluster, address: &str) -> bool {
    let target = format!("{address}:8080");
    let connect = ["exec", "client", "--", "/agnhost", "connect", &target, "--timeout=2s"];
    match cluster.kubectl(&connect, "") {
        Ok(_) => true,
        Err(error) => {
            assert!(error.to_string().contains("TIMEOUT"), "dropped silently, nothing else: {error}");
            false
        }
    }
}

fn kubectl(cluster: &Cluster, arguments: &str, input: &str) -> String {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    cluster.kubectl(&arguments, input).expect("kubectl succeeds")
}

/// What somebody would look at to see why it does not work.
fn state(cluster: &Cluster) -> String {
    let questions =
        ["describe pods", "get events", "logs daemonset/cellwall --tail=30", "logs pod/cellwall-test"];
    let answer = |question: &str| {
        let arguments: Vec<&str> = ["-n", NAMESPACE].into_iter().chain(question.split(' ')).collect();
        let said = cluster.kubectl(&arguments, "").unwrap_or_else(|error| error.to_string());
        format!("--- {question}\n{said}\n")
    };
    questions.map(answer).concat()
}
