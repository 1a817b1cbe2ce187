//! What people count on who run pods behind policies, one claim and one namespace each.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use cellwall_e2e::agent::Agent;
use cellwall_e2e::helm::said;
use cellwall_e2e::image::AGNHOST;
use cellwall_e2e::node::{ADDRESS, ADDRESS6};
use serde_json::{Value, json};

use crate::{Node, PATIENCE, Pods, list, names, server};

/// The DNS server's Service, where the kubelet tells pods that it is.
const DNS_SERVICE: &str = "10.96.0.10";
/// Port of the API server on the node.
const API_PORT: u16 = 6443;
/// What the pod in the node's network listens on, where nobody else does.
const HOST_PORT: u16 = 8123;
/// How often an address changes hands.
const OWNERS: usize = 4;

/// Everybody in the namespace, in these directions and with these rules.
fn everybody(mut spec: Value) -> Value {
    spec["podSelector"] = json!({});
    policy("everybody", &spec)
}

fn policy(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec})
}

fn pod(name: &str, app: &str, mut container: Value, more: &Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": app}},
        "spec": more});
    container["name"] = json!("main");
    container["image"] = json!(AGNHOST);
    pod["spec"]["containers"] = json!([container]);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(0);
    pod
}

impl Pods<'_> {
    fn apply(&self, object: &Value) {
        let apply = ["-n", self.namespace, "apply", "-f", "-"];
        self.cluster.kubectl(&apply, &object.to_string()).expect("kubectl succeeds");
    }

    fn kubectl(&self, arguments: &str) -> String {
        let arguments: Vec<&str> = ["-n", self.namespace].into_iter().chain(arguments.split(' ')).collect();
        self.cluster.kubectl(&arguments, "").expect("kubectl succeeds")
    }

    /// Until kube-proxy knows a Service it may refuse.
    fn until_reaches(&self, to: SocketAddr, protocol: &str, wanted: bool) {
        let begun = Instant::now();
        loop {
            let answer = self.ask(to, protocol);
            if answer.is_none() == wanted {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{to} over {protocol} is not {wanted}: {answer:?}");
        }
    }
}

/// The kubelet asks from its node, and that is never denied.
#[test]
fn probes_reach_a_pod_to_which_everything_is_denied() {
    let Some(node) = Node::take() else { return };
    let node = node.as_ref().expect("just made");
    let pods = node.pods("probes");
    pods.apply(&everybody(json!({"policyTypes": ["Ingress", "Egress"]})));
    node.until("endpoints -n probes", |answer| server(answer)["egress"]["isolated"] == true);
    let main = json!({"args": ["netexec", "--http-port=8080"],
        "startupProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        "readinessProbe": {"httpGet": {"path": "/hostname", "port": 8080}, "periodSeconds": 1},
        "livenessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1}});
    pods.apply(&pod("probed", "probed", main, &json!({})));
    pods.kubectl("wait --for=condition=Ready pod/probed --timeout=60s");
    assert_eq!(node.addresses("probes", "probed").map(|address| pods.connects(address)), [false, false]);
    // The liveness probe would have had it restarted by now.
    assert_eq!(pods.kubectl("get pod probed -o jsonpath={.status.containerStatuses[0].restartCount}"), "0");
    assert_eq!(pods.kubectl("get pod probed -o jsonpath={.status.containerStatuses[0].ready}"), "true");
}

/// A policy that selects its labels selects the others alone, and the node says why.
#[test]
fn a_pod_in_its_nodes_network_is_not_isolated_and_named_as_such() {
    let Some(node) = Node::take() else { return };
    let node = node.as_ref().expect("just made");
    let pods = node.pods("host");
    let main = json!({"args": ["netexec", format!("--http-port={HOST_PORT}"), "--udp-port=-1"]});
    pods.apply(&pod("in-the-nodes-network", "server", main, &json!({"hostNetwork": true})));
    pods.kubectl("wait --for=condition=Ready pod/in-the-nodes-network --timeout=60s");
    pods.deny();
    let policies =
        node.until("policies -n host", |answer| !list(&answer["policies"][0], "selects").is_empty());
    assert_eq!(names(&policies["policies"][0]["selects"]), ["host/server"]);
    node.until("status", |status| {
        let is_it = |pod: &Value| {
            pod["pod"]["name"] == "in-the-nodes-network" && pod["reason"] == "UNPLACED_REASON_HOST_NETWORK"
        };
        list(status, "unplacedPods").iter().any(is_it)
    });
    assert_eq!(pods.server.map(|server| pods.connects(server)), [false, false]);
    for address in [ADDRESS, ADDRESS6] {
        assert!(pods.reaches(SocketAddr::new(address.parse().expect("an address"), HOST_PORT), "tcp"));
    }
}

/// Labels of a pod and of a namespace decide from the moment they are there, also on what is connected.
#[test]
fn labels_that_come_and_go_open_and_cut() {
    let Some(node) = Node::take() else { return };
    let node = node.as_ref().expect("just made");
    let pods = node.pods("labels");
    let heartbeat = pods.heartbeat();
    let friends = json!([{"namespaceSelector": {"matchLabels": {"team": "blue"}},
        "podSelector": {"matchLabels": {"role": "friend"}}}]);
    pods.apply(&policy(
        "friends",
        &json!({"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"from": friends}]}),
    ));
    heartbeat.until_silent(Instant::now(), PATIENCE).expect("it is no friend");
    let open = || heartbeat.until_answered_after(Instant::now(), PATIENCE).expect("it is a friend");
    let cut = || heartbeat.until_silent(Instant::now(), PATIENCE).expect("it is no friend any more");
    for (give, take) in [
        ("label pod client role=friend", "label pod client role-"),
        ("label namespace labels team=blue", "label namespace labels team-"),
    ] {
        // Each alone is not enough.
        pods.kubectl(give);
        assert_eq!(pods.server.map(|server| pods.connects(server)), [false, false], "after {give}");
        pods.kubectl(take);
    }
    pods.kubectl("label pod client role=friend");
    pods.kubectl("label namespace labels team=blue");
    open();
    assert_eq!(pods.server.map(|server| pods.connects(server)), [true, true]);
    pods.kubectl("label pod client role=stranger --overwrite");
    cut();
    pods.kubectl("label pod client role=friend --overwrite");
    open();
    pods.kubectl("label namespace labels team-");
    cut();
    assert_eq!(pods.server.map(|server| pods.connects(server)), [false, false]);
}

/// Row C12: an address is its owner's, whether the last one has ended or was deleted a moment ago.
#[test]
fn who_gets_an_address_gets_nothing_that_its_last_owner_might() {
    let Some(node) = Node::take() else { return };
    let node = node.as_ref().expect("just made");
    let pods = node.pods("reuse");
    let friend = json!({"podSelector": {"matchLabels": {"app": "friend"}}});
    pods.apply(&policy(
        "friend",
        &json!({"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"from": [friend]}]}),
    ));
    node.until("endpoints -n reuse", |answer| server(answer)["ingress"]["isolated"] == true);
    for owner in 0..OWNERS {
        let to = SocketAddr::new(pods.server[owner % 2], 8080);
        let connect =
            |timeout: &str| json!({"args": ["connect", to.to_string(), format!("--timeout={timeout}")]});
        let [friend, stranger] = ["friend", "stranger"].map(|who| format!("{who}-{owner}"));
        let once = json!({"restartPolicy": "Never"});
        pods.apply(&pod(&friend, "friend", connect("20s"), &once));
        pods.kubectl(&format!("wait --for=jsonpath={{.status.phase}}=Succeeded pod/{friend} --timeout=60s"));
        let addresses = node.addresses("reuse", &friend);
        if owner % 3 == 0 {
            pods.kubectl(&format!("delete pod {friend} --grace-period=0 --force"));
        }
        node.gives_next(addresses);
        pods.apply(&pod(&stranger, "stranger", connect("3s"), &once));
        pods.kubectl(&format!("wait --for=jsonpath={{.status.phase}}=Failed pod/{stranger} --timeout=60s"));
        assert_eq!(node.addresses("reuse", &stranger), addresses, "it has what {friend} had");
        assert!(pods.kubectl(&format!("logs {stranger}")).contains("TIMEOUT"));
    }
}

impl Node {
    /// Waits until the addresses of a pod that has ended are free, and has them given to the next one.
    fn gives_next(&self, addresses: [IpAddr; 2]) {
        let folder = "/run/cni-addresses/pods";
        let begun = Instant::now();
        let is_free = |address: &IpAddr| {
            let test = self.cluster.command("test").args(["-e", &format!("{folder}/{address}")]).status();
            !test.expect("test runs").success()
        };
        while !addresses.iter().all(is_free) {
            assert!(begun.elapsed() < PATIENCE, "{addresses:?} are not free");
            std::thread::sleep(Duration::from_millis(10));
        }
        // The plugin begins behind the last one that it gave.
        for (range, address) in addresses.into_iter().enumerate() {
            let before = match address {
                IpAddr::V4(address) => IpAddr::V4((u32::from(address) - 1).into()),
                IpAddr::V6(address) => IpAddr::V6((u128::from(address) - 1).into()),
            };
            let write = format!("printf {before} > {folder}/last_reserved_ip.{range}");
            said(self.cluster.command("sh").args(["-c", &write])).expect("the plugin's file");
        }
    }
}

/// A pod that may send to nobody, and then to what it needs: the API server by way of its Service, names, and its node.
#[test]
fn out_to_the_api_server_to_names_and_to_the_own_node_rules_are_needed_and_suffice() {
    let Some(node) = Node::take() else { return };
    let node = node.as_ref().expect("just made");
    let pods = node.pods("egress");
    let names = json!({"args": ["netexec", "--udp-port=53", "--http-port=8080"]});
    pods.apply(&pod("names", "names", names, &json!({})));
    pods.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "names"}, "spec": {
        "clusterIP": DNS_SERVICE, "selector": {"app": "names"}, "ports": [{"protocol": "UDP", "port": 53}]}}));
    pods.kubectl("wait --for=condition=Ready pod/names --timeout=60s");
    let own_node: IpAddr = ADDRESS.parse().expect("an address");
    let api: IpAddr =
        pods.kubectl("get service kubernetes -n default -o jsonpath={.spec.clusterIP}").parse().expect("one");
    let places = [
        (SocketAddr::new(api, 443), "tcp"),
        (SocketAddr::new(own_node, API_PORT), "tcp"),
        (SocketAddr::new(DNS_SERVICE.parse().expect("an address"), 53), "udp"),
    ];
    for (to, protocol) in places {
        pods.until_reaches(to, protocol, true);
    }
    let rules = [
        json!({"to": [{"ipBlock": {"cidr": format!("{ADDRESS}/32")}}], "ports": [{"port": API_PORT}]}),
        json!({"to": [{"podSelector": {"matchLabels": {"app": "names"}}}], "ports": [{"protocol": "UDP", "port": 53}]}),
    ];
    // Of the three places the first rule opens two, the Service being that port of the node.
    for (given, open) in
        [(0..0, [false; 3]), (0..1, [true, true, false]), (1..2, [false, false, true]), (0..2, [true; 3])]
    {
        pods.apply(&policy(
            "out",
            &json!({"podSelector": {"matchLabels": {"app": "client"}},
            "policyTypes": ["Egress"], "egress": rules[given]}),
        ));
        for ((to, protocol), open) in places.into_iter().zip(open) {
            pods.until_reaches(to, protocol, open);
        }
        for ((to, protocol), open) in places.into_iter().zip(open) {
            assert_eq!(pods.reaches(to, protocol), open, "{to} over {protocol}");
        }
    }
}

/// A cluster whose policies would cut traffic: in audit nothing is cut, and what is opened is counted. Then they are enforced.
#[test]
fn in_audit_nothing_is_cut_and_what_is_opened_is_counted_and_then_it_is_enforced() {
    let Some(mut guard) = Node::take() else { return };
    let node = guard.as_mut().expect("just made");
    node.agent.take().expect("just started").kill().expect("it was running");
    let node = &*node;
    let audit = Agent::start_with(&node.cluster, &["--enforcement", "audit"]).expect("the agent starts");
    let pods = node.pods("audit");
    let heartbeat = pods.heartbeat();
    pods.deny();
    node.until("endpoints -n audit", |answer| server(answer)["ingress"]["isolated"] == true);
    crate::works(&heartbeat, Duration::from_secs(2));
    let before = denied(&node.until("status", |status| status["ready"] == true));
    assert_eq!(pods.server.map(|server| pods.connects(server)), [true, true], "nothing is cut");
    // What opens a connection of each family.
    let status = node.until("status", |status| denied(status) >= before + 2);
    println!("{} packets were counted as denied and passed", denied(&status) - before);
    crate::works(&heartbeat, Duration::from_secs(1));

    audit.kill().expect("it was running");
    let agent = Agent::start(&node.cluster).expect("the agent starts");
    heartbeat.until_silent(Instant::now(), PATIENCE).expect("what policy denies is cut");
    assert_eq!(pods.server.map(|server| pods.connects(server)), [false, false]);
    drop(pods);
    guard.as_mut().expect("just made").agent = Some(agent);
}

/// Packets into pods that policy denied, whatever became of them.
fn denied(status: &Value) -> u64 {
    let is_it = |c: &&Value| c["reason"] == "default_deny" && c["direction"] == "DIRECTION_INGRESS";
    let packets =
        list(status, "counters").iter().find(is_it).and_then(|c| c["packets"].as_str()?.parse().ok());
    packets.unwrap_or_default()
}
