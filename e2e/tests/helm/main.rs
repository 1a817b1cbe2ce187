//! The chart on a real cluster: helm installs it, the image runs with the rights that it names and no others, policies are
//! enforced through an upgrade and a rollback, and an uninstallation takes everything away, while a connection goes on and
//! no pod is restarted. Many connections live through much more of that in `lives`, and
//! `latency` says how long a change takes.

mod latency;
mod lives;
mod process;
mod rig;
mod rights;
mod site;

use std::thread;
use std::time::{Duration, Instant};

use cellwall_e2e::cluster::Cluster;
use cellwall_e2e::helm::{NAMESPACE, ask, chart, cleanup_manifest, helm, said};
use cellwall_e2e::node::CNI_CONF_DIR;
use cellwall_e2e::programs::program;
use serde_json::Value;

use crate::process::Agent;
use crate::site::{PATIENCE, Site};

/// The promise: from the start of `helm install` until all nodes are ready, with the image there.
const INSTALLED_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn the_chart_is_installed_upgraded_rolled_back_and_uninstalled_and_nothing_is_left() {
    let Some(site) = Site::new() else { return };
    let cluster = &site.cluster;
    let before = site.pods();
    let conflist = site.conflist();

    let begun = Instant::now();
    roll_out(cluster, &["install", NAMESPACE, &chart(), "--create-namespace"]);
    let ready = begun.elapsed();
    assert_eq!(ask(cluster, "status").expect("the agent answers")["ready"], true);
    println!("ready {} ms after the start of helm install", ready.as_millis());
    assert!(ready < INSTALLED_WITHIN, "{} ms\n{}", ready.as_millis(), site::state(cluster));
    site.isolate();
    site.until_enforced();

    assert!(site.conflist().contains("cellwall-cni"));
    site.starts_a_pod("enforced");
    let installed = Agent::of(cluster);
    installed.runs_with_its_rights_alone();
    installed.fits_into_its_memory();
    rights::may_write_nothing_but_its_object(cluster);
    says_what_it_enforces(&site);
    is_asked_from_outside(cluster);
    let tested = run(cluster, &["test", NAMESPACE, "--timeout", "1m"]);
    assert!(tested.contains("Succeeded"), "{tested}");

    roll_out(cluster, &["upgrade", NAMESPACE, &chart(), "--set", "log.level=debug"]);
    let upgraded = Agent::of(cluster);
    assert_ne!(upgraded.pid, installed.pid, "another agent runs");
    site.is_enforced();
    roll_out(cluster, &["rollback", NAMESPACE, "1"]);
    assert_ne!(Agent::of(cluster).pid, upgraded.pid, "another agent runs");
    site.is_enforced();

    let begun = Instant::now();
    run(cluster, &["uninstall", NAMESPACE, "--wait", "--timeout", "2m"]);
    println!("gone {} ms after the start of helm uninstall", begun.elapsed().as_millis());
    nothing_is_left(cluster);
    site.is_open();
    assert_eq!(site.conflist(), conflist, "byte for byte");
    // What is left of the plugin is in nobody's way, and lets a pod end that was started with it.
    site.starts_a_pod("open");
    site.ends_pods(&["enforced", "open"]);
    assert_eq!(site.pods(), before, "no pod was restarted");

    without_hooks(&site);
    assert_eq!(site.conflist(), conflist, "byte for byte");
    site.starts_a_pod("open");
    site.ends_pods(&["open"]);
    assert_eq!(site.pods(), before, "no pod was restarted");
}

/// The node's object, and who waits for a policy.
fn says_what_it_enforces(site: &Site) {
    let enforced = ask(&site.cluster, "wait policy/echo -n default --timeout 30s").expect("it is enforced");
    assert_eq!((&enforced["enforced"], &enforced["nodes"]), (&true.into(), &1.into()), "{enforced}");
    assert!(ask(&site.cluster, "wait policy/other -n default").is_err(), "there is no such policy");
    let columns = "-o=jsonpath={.metadata.ownerReferences[0].kind} {.status.conditions[0].type}={.status.conditions[0].status}";
    let told = site.cluster.kubectl(&["get", "cwn", "node-1", columns], "").expect("kubectl succeeds");
    assert_eq!(told, "Node Ready=True");
    println!("{}", site.kubectl("get cellwall"));
}

/// By an administrator, with what the chart has installed.
fn is_asked_from_outside(cluster: &Cluster) {
    let mut cellwall = cluster.outside(program("cellwall").expect("it is built"));
    cellwall.args(["status", "--node", "node-1", "-o", "json", "--kubeconfig"]);
    let begun = Instant::now();
    let answer = said(cellwall.arg(cluster.folder().join("kubeconfig"))).expect("it may ask");
    println!("asked from outside the node in {} ms", begun.elapsed().as_millis());
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!((&answer["node"], &answer["ready"]), (&"node-1".into(), &true.into()), "{answer}");
}

/// What was last known stays enforced without the hook, and `deploy/cleanup.yaml` removes it.
fn without_hooks(site: &Site) {
    let cluster = &site.cluster;
    roll_out(cluster, &["install", NAMESPACE, &chart(), "--set", "cleanup.enabled=false"]);
    site.until_enforced();
    run(cluster, &["uninstall", NAMESPACE, "--wait", "--timeout", "1m"]);
    site.is_enforced();

    let manifest = cleanup_manifest().display().to_string();
    site.kubectl(&format!("apply -f {manifest}"));
    site.kubectl("-n kube-system rollout status daemonset/cellwall-cleanup --timeout=60s");
    site.kubectl(&format!("delete -f {manifest} --timeout=60s"));
    nothing_is_left(cluster);
    site.is_open();
}

/// No object, no pin, no socket. The folder of the socket is a mount for whoever removes what is in it, so it stays.
fn nothing_is_left(cluster: &Cluster) {
    let kinds = "all,customresourcedefinitions,serviceaccounts,configmaps,secrets,clusterroles,clusterrolebindings,roles,rolebindings";
    let selector = format!("app.kubernetes.io/instance={NAMESPACE}");
    let list = ["get", kinds, "-A", "-o", "name", "-l", &selector];
    let begun = Instant::now();
    loop {
        // The pods of a DaemonSet end after it is gone.
        let objects = cluster.kubectl(&list, "").expect("kubectl succeeds");
        if objects.is_empty() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{objects}\n{}", site::state(cluster));
        thread::sleep(Duration::from_millis(100));
    }
    // The kernel has files of its own in the first.
    for (folder, prefix) in
        [("/sys/fs/bpf", NAMESPACE), ("/run/cellwall", ""), (CNI_CONF_DIR, NAMESPACE), (CNI_CONF_DIR, ".")]
    {
        let names = said(cluster.command("ls").args(["-A", folder])).expect("it is there");
        let left: Vec<&str> = names.lines().filter(|name| name.starts_with(prefix)).collect();
        assert_eq!(left, [""; 0], "{folder} of the node");
    }
}

/// Runs helm and waits for every agent: with `--wait` it would leave out as many as may be replaced at once, which of one is one.
fn roll_out(cluster: &Cluster, arguments: &[&str]) {
    run(cluster, arguments);
    let status = ["-n", NAMESPACE, "rollout", "status", "daemonset/cellwall", "--timeout=2m"];
    cluster.kubectl(&status, "").unwrap_or_else(|error| panic!("{error:#}\n{}", site::state(cluster)));
}

/// Runs helm, which succeeds.
fn run(cluster: &Cluster, arguments: &[&str]) -> String {
    helm(cluster, arguments).unwrap_or_else(|error| panic!("{error:#}\n{}", site::state(cluster)))
}
