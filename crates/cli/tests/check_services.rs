//! `cellwall check` with a Service as destination, or as source.

mod folder;

use folder::{check, flow, manifests, run};
use serde_json::{Value, json};

/// A pod of the app `api`; its port `http` has a number of its own.
fn api(name: &str, version: &str, host: u8, http: u16) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{namespace: shop, name: {name}, labels: {{app: api, version: {version}}}}}, \
         spec: {{containers: [{{name: c, ports: [{{name: http, containerPort: {http}}}]}}]}}, \
         status: {{podIPs: [{{ip: 10.0.0.{host}}}, {{ip: \"fd00::{host}\"}}]}}}}"
    )
}

/// Asks, and has no policy about itself.
const WEB: &str = "{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web, labels: {app: web}}, \
                   spec: {containers: []}, status: {podIPs: [{ip: 10.0.0.9}, {ip: \"fd00::9\"}]}}";

/// A Service of the namespace `shop`.
fn service(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{namespace: shop, name: {name}}}, spec: {{{spec}}}}}"
    )
}

/// The Service `api` as repositories have it: without an address.
fn selecting() -> String {
    service("api", "selector: {app: api}, ports: [{port: 80, targetPort: http}]")
}

/// Backends of the Service `api` by a controller, or by hand.
fn slice(name: &str, addresses: &str, ports: &str) -> String {
    let family = if addresses.contains(':') { "IPv6" } else { "IPv4" };
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{namespace: shop, name: {name}, labels: \
         {{kubernetes.io/service-name: api}}}}, addressType: {family}, endpoints: [{{addresses: [{addresses}]}}], \
         ports: [{ports}]}}"
    )
}

/// Policy `p` about the pods of `api`.
fn policy(ingress: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{namespace: shop, name: p}}, spec: \
         {{podSelector: {{matchLabels: {{app: api}}}}, ingress: [{ingress}]}}}}"
    )
}

/// Pods `old` (port http is 8080) and `new` (9090) of `api`, `web`, and what else there is.
fn shop(more: &[&str]) -> String {
    let pods = [api("old", "one", 1, 8080), api("new", "two", 2, 9090), WEB.to_owned()];
    [pods.join("\n---\n"), more.join("\n---\n")].join("\n---\n")
}

/// A flow to a Service.
fn to_service(src: &str, dst: &str, port: &str) -> Value {
    let mut flow = flow(src, "192.0.2.1", port);
    flow["dst"] = json!({"service": dst});
    flow
}

/// The same flow with a Service as its source.
fn from_service(src: &str, mut flow: Value) -> Value {
    flow["src"] = json!({"service": src});
    flow
}

fn from_web(port: &str) -> Value {
    to_service("shop/web", "shop/api", port)
}

/// The one answer to a flow.
fn answer(objects: &str, flow: &Value) -> Value {
    let run = check(objects, &json!([flow]));
    let expected = if run.out.contains("\"error\"") { 2 } else { 0 };
    assert_eq!(run.code, expected, "{run:?}");
    run.answers().remove(0)
}

/// Name or address with port, and verdict of each backend.
fn backends(answer: &Value) -> Vec<String> {
    let all = answer["backends"].as_array().unwrap_or_else(|| panic!("no backends: {answer}"));
    let end = |b: &Value| b["pod"].as_str().or(b["ip"].as_str()).expect("one of them").to_owned();
    let port = |b: &Value| b.get("port").map_or_else(String::new, |port| format!("{port} "));
    all.iter().map(|b| format!("{} {}{}", end(b), port(b), b["verdict"].as_str().expect("a word"))).collect()
}

#[test]
fn a_service_is_allowed_when_all_backends_are_and_denied_when_none_is() {
    let cases = [
        ("{ports: [{port: http}]}", "allow", ["allow", "allow"]),
        ("", "deny", ["deny", "deny"]),
        ("{from: [{podSelector: {matchLabels: {app: other}}}]}", "deny", ["deny", "deny"]),
        // Policies mean the port of the pod, never the Service's (S48).
        ("{ports: [{port: 80}]}", "deny", ["deny", "deny"]),
        ("{ports: [{port: 8080}]}", "partial", ["allow", "deny"]),
        ("{ports: [{port: 9000, endPort: 9099}]}", "partial", ["deny", "allow"]),
    ];
    for (ingress, verdict, [old, new]) in cases {
        let answer = answer(&shop(&[&selecting(), &policy(ingress)]), &from_web("TCP/80"));
        assert_eq!(answer["verdict"], verdict, "{ingress}: {answer}");
        // By name, and a named port has each pod's number (S43).
        assert_eq!(
            backends(&answer),
            [format!("shop/new 9090 {new}"), format!("shop/old 8080 {old}")],
            "{ingress}"
        );
    }
}

#[test]
fn sides_say_what_backends_have_in_common_and_each_backend_says_why() {
    let objects = shop(&[&selecting(), &policy("{ports: [{port: 8080}]}")]);
    let isolated =
        json!({"verdict": "deny", "reason": "isolated by shop/p, no rule matched", "isolatedBy": ["shop/p"]});
    let allowed = json!({
        "verdict": "allow",
        "reason": "allowed by NetworkPolicy shop/p: spec.ingress[0]",
        "isolatedBy": ["shop/p"],
        "policy": "shop/p",
        "rule": 0,
    });
    let open = json!({"verdict": "allow", "reason": "not isolated"});
    let expected = json!({
        "verdict": "partial",
        "egress": open,
        "ingress": {"verdict": "partial", "reason": "not the same for all backends"},
        "backends": [
            {"pod": "shop/new", "port": 9090, "verdict": "deny", "egress": open, "ingress": isolated},
            {"pod": "shop/old", "port": 8080, "verdict": "allow", "egress": open, "ingress": allowed},
        ],
    });
    assert_eq!(answer(&objects, &from_web("TCP/80")), expected);
    let nobody = answer(&shop(&[&selecting(), &policy("")]), &from_web("TCP/80"));
    assert_eq!(nobody["ingress"], isolated, "what all backends say is said of the Service");
}

/// Egress is judged where the Service leads, not on its address (S48).
#[test]
fn egress_to_a_service_is_judged_at_its_backends() {
    let egress = |peer: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{namespace: shop, name: out}}, spec: \
             {{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Egress], egress: [{{to: [{peer}]}}]}}}}"
        )
    };
    let service =
        service("api", "selector: {app: api}, clusterIP: 10.96.0.1, ports: [{port: 80, targetPort: http}]");
    let cases = [
        ("{podSelector: {matchLabels: {app: api}}}", "allow"),
        ("{podSelector: {matchLabels: {version: one}}}", "partial"),
        ("{ipBlock: {cidr: 10.96.0.0/16}}", "deny"),
    ];
    for (peer, verdict) in cases {
        let objects = shop(&[&service, &egress(peer)]);
        // By its name, and by the address that this is.
        for flow in [from_web("TCP/80"), flow("shop/web", "10.96.0.1", "TCP/80")] {
            let answer = answer(&objects, &flow);
            assert_eq!(answer["verdict"], verdict, "{peer}: {answer}");
            assert_eq!(answer["egress"]["verdict"], verdict, "{peer}: {answer}");
            assert_eq!(backends(&answer).len(), 2);
        }
        // At another port it leads nowhere: this is an address as any.
        let other = answer(&objects, &flow("shop/web", "10.96.0.1", "TCP/81"));
        assert_eq!((&other["backends"], &other["ingress"]["reason"]), (&Value::Null, &json!("not a pod")));
    }
}

#[test]
fn a_service_without_backends_lets_nothing_arrive() {
    let nowhere = json!({"verdict": "deny", "reason": "Service shop/api has no backends"});
    let expected = json!({"verdict": "deny", "egress": nowhere, "ingress": nowhere, "backends": []});
    let of_nobody = service("api", "selector: {app: nobody}, ports: [{port: 80}]");
    // Backends by hand, and nobody has written any.
    let of_hand = service("api", "ports: [{port: 80}]");
    let with_slice = [&*selecting(), &slice("empty", "", "{port: 8080}")].join("\n---\n");
    for objects in [of_nobody, of_hand, with_slice] {
        assert_eq!(answer(&shop(&[&objects]), &from_web("TCP/80")), expected, "{objects}");
    }
    // Nobody has the name of that port.
    let nameless = service("api", "selector: {app: api}, ports: [{port: 80, targetPort: grpc}]");
    assert_eq!(answer(&shop(&[&nameless]), &from_web("TCP/80")), expected);
}

#[test]
fn slices_are_believed_before_selectors_and_count_together() {
    let port = "{name: \"\", port: 8080}";
    let slices = [
        slice("api-1", "10.0.0.1", port),
        slice("api-2", "10.0.0.1, 10.0.0.9, 192.0.2.7", port),
        // Ports of a name differ from slice to slice.
        slice("api-3", "10.0.0.2", "{name: \"\", port: 9090}"),
        slice("api-4", "10.0.0.2", "{name: other, port: 1}"),
        slice("api-5", "10.0.0.2", "{name: \"\", protocol: UDP, port: 2}"),
        // IPv4 is meant where there is some.
        slice("api-6", "\"fd00::2\"", port),
    ];
    let objects = shop(&[&selecting(), &slices.join("\n---\n"), &policy("{ports: [{port: http}]}")]);
    let all = answer(&objects, &from_web("TCP/80"));
    assert_eq!(
        backends(&all),
        ["shop/old 8080 allow", "shop/new 9090 allow", "shop/web 8080 allow", "192.0.2.7 8080 allow"]
    );
    assert_eq!(all["verdict"], "allow");
    // A pod asks by IPv6 where it has nothing else.
    let from_ip = answer(&objects, &to_service("2001:db8::1", "shop/api", "TCP/80"));
    assert_eq!(backends(&from_ip), ["shop/new 8080 deny"]);
}

#[test]
fn families_of_a_service_and_its_source_must_meet() {
    let of = |address: &str| {
        service(
            "api",
            &format!("selector: {{app: api}}, clusterIP: {address}, ports: [{{port: 80, targetPort: http}}]"),
        )
    };
    let peers = "{from: [{ipBlock: {cidr: '::/0'}}]}";
    // The Service has IPv6 alone, so that is meant.
    let answer6 = answer(&shop(&[&of("'fd96::1'"), &policy(peers)]), &from_web("TCP/80"));
    assert_eq!(answer6["verdict"], "allow", "{answer6}");
    let answer4 = answer(&shop(&[&of("10.96.0.1"), &policy(peers)]), &from_web("TCP/80"));
    assert_eq!(answer4["verdict"], "deny", "{answer4}");
    let error = answer(&shop(&[&of("10.96.0.1")]), &to_service("2001:db8::1", "shop/api", "TCP/80"));
    assert_eq!(
        error,
        json!({"error": "dst: Service shop/api leads to no address of a family that the source has"})
    );
}

/// A headless Service is a name of its pods: nothing is translated.
#[test]
fn the_port_of_a_headless_service_is_that_of_its_pods() {
    let headless =
        service("api", "clusterIP: None, selector: {app: api}, ports: [{port: 80, targetPort: http}]");
    let objects = shop(&[&headless, &policy("{ports: [{port: 8080}]}")]);
    for (port, verdict) in [("TCP/8080", "allow"), ("TCP/80", "deny")] {
        let answer = answer(&objects, &from_web(port));
        assert_eq!(answer["verdict"], verdict, "{answer}");
        let number = port.replace("TCP/", "");
        let expected = ["new", "old"].map(|name| format!("shop/{name} {number} {verdict}"));
        assert_eq!(backends(&answer), expected);
    }
}

#[test]
fn what_cannot_be_asked_of_a_service_says_what_can() {
    let two = service(
        "two",
        "selector: {app: api}, ports: [{name: a, port: 80}, {name: b, port: 53, protocol: UDP}]",
    );
    let elsewhere = service("elsewhere", "type: ExternalName, externalName: db.example.com");
    let objects = shop(&[&two, &service("none", "selector: {app: api}"), &elsewhere]);
    let asked = json!([
        to_service("shop/web", "shop/unknown", "TCP/80"),
        to_service("shop/web", "two", "TCP/80"),
        to_service("shop/web", "shop/two", "TCP/53"),
        to_service("shop/web", "shop/none", "TCP/80"),
        to_service("shop/web", "shop/two", "ICMP"),
        to_service("shop/web", "shop/elsewhere", "TCP/5432"),
        from_service("shop/unknown", flow("shop/web", "shop/old", "TCP/80")),
        from_service("shop/elsewhere", flow("shop/web", "shop/old", "TCP/80")),
        from_service("shop/two", to_service("shop/web", "shop/two", "TCP/81")),
        to_service("shop/web", "shop/two", "UDP/53"),
    ]);
    let run = check(&objects, &asked);
    let errors: Vec<String> =
        run.answers().iter().map(|a| a["error"].as_str().unwrap_or("answered").to_owned()).collect();
    assert_eq!(
        errors,
        [
            "dst: there is no Service shop/unknown",
            "dst: `two` is no name of a Service: that is NAMESPACE/NAME",
            "dst: Service shop/two has no port TCP/53; it has TCP/80, UDP/53",
            "dst: Service shop/none has no port TCP/80; it has none",
            "dst: Services have no ICMP: name a pod",
            "dst: Service shop/elsewhere is a name for db.example.com: ask about the address of that",
            "src: there is no Service shop/unknown",
            "src: Service shop/elsewhere is a name for db.example.com: ask about the address of that",
            "dst: Service shop/two has no port TCP/81; it has TCP/80, UDP/53",
            "answered",
        ]
    );
    assert_eq!((run.code, run.err.as_str()), (2, ""));
}

/// Who speaks for a Service is one of its pods.
#[test]
fn a_service_as_the_source_is_each_of_its_pods() {
    let egress = |peers: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{namespace: shop, name: out}}, spec: \
             {{podSelector: {{matchLabels: {{version: one}}}}, policyTypes: [Egress], egress: [{peers}]}}}}"
        )
    };
    let to_web = |port| from_service("shop/api", flow("shop/web", "shop/web", port));
    let cases = [
        ("{to: [{podSelector: {matchLabels: {app: web}}}]}", "allow", "allow"),
        // Its own ports have no part in it, and what one of its pods may not, the other may.
        ("{ports: [{port: http}]}", "partial", "deny"),
        ("", "partial", "deny"),
    ];
    for (peers, verdict, old) in cases {
        for port in ["TCP/80", "ICMP"] {
            let answer = answer(&shop(&[&selecting(), &egress(peers)]), &to_web(port));
            assert_eq!(answer["verdict"], verdict, "{peers}: {answer}");
            assert_eq!(backends(&answer), ["shop/new allow".to_owned(), format!("shop/old {old}")]);
        }
    }
    let both = answer(&shop(&[&selecting(), &egress("")]), &to_web("TCP/80"));
    let open = json!({"verdict": "allow", "reason": "not isolated"});
    let isolated = json!({"verdict": "deny", "reason": "isolated by shop/out, no rule matched", "isolatedBy": ["shop/out"]});
    let expected = json!({
        "verdict": "partial",
        "egress": {"verdict": "partial", "reason": "not the same for all backends"},
        "ingress": open,
        "backends": [
            {"pod": "shop/new", "verdict": "allow", "egress": open, "ingress": open},
            {"pod": "shop/old", "verdict": "deny", "egress": isolated, "ingress": open},
        ],
    });
    assert_eq!(both, expected);
}

#[test]
fn pods_of_slices_speak_for_their_service_and_addresses_of_nobody_do_not() {
    let port = "{name: \"\", port: 8080}";
    let all = [
        slice("api-1", "10.0.0.1, 192.0.2.7", port),
        slice("api-2", "\"fd00::1\"", port),
        slice("api-3", "10.0.0.2", "{name: other, port: 1}"),
    ];
    let objects = shop(&[&selecting(), &all.join("\n---\n")]);
    let to = |dst| from_service("shop/api", flow("shop/web", dst, "TCP/80"));
    // Each pod once, and with all its addresses, whatever the slices' ports are.
    for dst in ["shop/web", "192.0.2.1", "2001:db8::1"] {
        assert_eq!(backends(&answer(&objects, &to(dst))), ["shop/new allow", "shop/old allow"], "{dst}");
    }
    let foreign = shop(&[&selecting(), &slice("api-1", "192.0.2.7", port)]);
    assert_eq!(
        answer(&foreign, &to("shop/web")),
        json!({"error": "src: no backend of Service shop/api is a pod: name an address"})
    );
    let nobody = service("api", "selector: {app: nobody}, ports: [{port: 80}]");
    let nowhere = json!({"verdict": "deny", "reason": "Service shop/api has no backends"});
    assert_eq!(
        answer(&shop(&[&nobody]), &to("shop/web")),
        json!({"verdict": "deny", "egress": nowhere, "ingress": nowhere, "backends": []})
    );
}

#[test]
fn from_a_service_to_another_each_pod_has_the_backends_of_the_other() {
    let front = service("front", "selector: {app: web}, ports: [{port: 80}]");
    let objects = shop(&[
        &selecting(),
        &front,
        &policy("{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}]}"),
    ]);
    let asked = from_service("shop/front", from_web("TCP/80"));
    let found = answer(&objects, &asked);
    assert_eq!(found["verdict"], "partial", "{found}");
    assert_eq!(backends(&found), ["shop/web partial"]);
    assert_eq!(backends(&found["backends"][0]), ["shop/new 9090 deny", "shop/old 8080 allow"]);
    let itself = answer(&objects, &from_service("shop/api", from_web("TCP/80")));
    // Nobody forbids a pod to reach itself (S64).
    assert_eq!(backends(&itself), ["shop/new partial", "shop/old partial"]);
    assert_eq!(backends(&itself["backends"][0]), ["shop/new 9090 allow", "shop/old 8080 deny"]);

    let folder = manifests(&[("all.yaml", &objects)]);
    let path = folder.path().to_str().expect("UTF-8");
    let table = run(&["-f", path, "--flows", "-"], &json!([asked]).to_string()).out;
    assert_eq!(
        table,
        "\
SRC                 DST               PROTOCOL  VERDICT  EGRESS        INGRESS
service/shop/front  service/shop/api  TCP/80    partial  not isolated  not the same for all backends
  pod/shop/web                        TCP/80    partial  not isolated  not the same for all backends
                      pod/shop/new    TCP/9090  deny     not isolated  isolated by shop/p, no rule matched
                      pod/shop/old    TCP/8080  allow    not isolated  allowed by NetworkPolicy shop/p: spec.ingress[0]
"
    );
}

/// What one flow may ask is bounded.
#[test]
fn too_many_ways_between_services_are_an_error() {
    let many = |count: usize| {
        let pod = |n: usize| {
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{namespace: shop, name: m{n}, labels: {{app: many}}}}, \
                 spec: {{containers: []}}, status: {{podIP: 10.1.{}.{}}}}}",
                n / 200,
                n % 200 + 1
            )
        };
        let service = service("many", "selector: {app: many}, ports: [{port: 80}]");
        (0..count).map(pod).chain([service]).collect::<Vec<_>>().join("\n---\n")
    };
    let asked = json!([from_service("shop/many", to_service("shop/web", "shop/many", "TCP/80"))]);
    let few = check(&many(3), &asked).answers().remove(0);
    assert_eq!(few["verdict"], "allow", "{few}");
    assert_eq!(
        check(&many(101), &asked).answers(),
        [
            json!({"error": "from service/shop/many to service/shop/many there are more than 10000 ways: name one of the pods"})
        ]
    );
}

#[test]
fn a_pipeline_can_fail_on_some_backends() {
    let folder = manifests(&[("all.yaml", &shop(&[&selecting(), &policy("{ports: [{port: 8080}]}")]))]);
    let path = folder.path().to_str().expect("UTF-8");
    let flows = json!([from_web("TCP/80")]).to_string();
    let code = |more: &[&str]| run(&[&["-f", path, "--flows", "-"], more].concat(), &flows).code;
    assert_eq!(code(&[]), 0);
    assert_eq!(code(&["--fail-on", "deny"]), 0, "some backends can be reached");
    assert_eq!(code(&["--fail-on", "partial"]), 3);
    assert_eq!(code(&["--fail-on", "deny,partial"]), 3);
}

#[test]
fn people_see_each_backend_below_its_service() {
    let folder = manifests(&[("all.yaml", &shop(&[&selecting(), &policy("{ports: [{port: 8080}]}")]))]);
    let path = folder.path().to_str().expect("UTF-8");
    let flows = json!([from_web("TCP/80"), flow("shop/web", "shop/old", "TCP/8080")]).to_string();
    let run = |format: &str| run(&["-f", path, "--flows", "-", "-o", format], &flows).out;
    assert_eq!(
        run("table"),
        "\
SRC           DST               PROTOCOL  VERDICT  EGRESS        INGRESS
pod/shop/web  service/shop/api  TCP/80    partial  not isolated  not the same for all backends
                pod/shop/new    TCP/9090  deny     not isolated  isolated by shop/p, no rule matched
                pod/shop/old    TCP/8080  allow    not isolated  allowed by NetworkPolicy shop/p: spec.ingress[0]
pod/shop/web  pod/shop/old      TCP/8080  allow    not isolated  allowed by NetworkPolicy shop/p: spec.ingress[0]
"
    );
    assert_eq!(run("name"), "partial\nallow\n");
}

/// Items of a typed list carry no kind of their own; what their selectors say is read all the same.
#[test]
fn services_of_a_typed_list_count() {
    let item = "metadata: {namespace: shop, name: api}, spec: {selector: {app: api}, ports: [{port: 80, targetPort: 8080}]}";
    let list = format!("{{apiVersion: v1, kind: ServiceList, items: [{{{item}}}]}}");
    let answer = answer(&shop(&[&list]), &from_web("TCP/80"));
    assert_eq!(backends(&answer), ["shop/new 8080 allow", "shop/old 8080 allow"]);
}

/// What a node judges there is where the port leads, which is not the node.
#[test]
fn a_port_of_a_node_that_leads_elsewhere_is_not_the_nodes() {
    let node = |name: &str, host: u8| {
        format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}, status: {{addresses: [{{type: InternalIP, \
             address: 192.168.0.{host}}}, {{type: InternalIP, address: \"fd00:9::{host}\"}}]}}}}"
        )
    };
    let hosting = |name: &str, more: &str, place: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{namespace: shop, name: {name}}}, spec: {{{place}containers: \
             [{{name: c, ports: [{{containerPort: 9, {more}}}]}}]}}, status: {{podIP: 10.0.1.{}}}}}",
            more.len()
        )
    };
    let objects = shop(&[
        &node("n1", 1),
        &node("n2", 2),
        &service(
            "api",
            "type: NodePort, selector: {app: api}, ports: [{port: 80, nodePort: 30080, targetPort: http}]",
        ),
        &hosting("edge", "hostPort: 8443", "nodeName: n1, "),
        &hosting("bound", "hostPort: 8444, hostIP: 192.168.0.1", "nodeName: n1, "),
        // Nobody knows yet where it will run.
        &hosting("anywhere", "hostPort: 53, protocol: UDP", ""),
        &policy("{ports: [{port: http}]}"),
    ]);
    let service =
        |name: &str| format!("dst: port 30080 of node {name} is Service shop/api: ask for the service");
    let cases = [
        ("192.168.0.1", "TCP/30080", service("n1")),
        ("fd00:9::2", "TCP/30080", service("n2")),
        (
            "192.168.0.1",
            "TCP/8443",
            "dst: port 8443 of node n1 leads to Pod shop/edge: ask for the pod".to_owned(),
        ),
        (
            "192.168.0.1",
            "TCP/8444",
            "dst: port 8444 of node n1 leads to Pod shop/bound: ask for the pod".to_owned(),
        ),
        (
            "192.168.0.2",
            "UDP/53",
            "dst: port 53 of node n2 leads to Pod shop/anywhere: ask for the pod".to_owned(),
        ),
        // Other protocols, ports, nodes and addresses.
        ("192.168.0.1", "UDP/30080", "answered".to_owned()),
        ("192.168.0.1", "TCP/80", "answered".to_owned()),
        ("192.168.0.2", "TCP/8443", "answered".to_owned()),
        ("fd00:9::1", "TCP/8444", "answered".to_owned()),
        ("192.168.0.1", "ICMP", "answered".to_owned()),
        ("192.0.2.1", "TCP/30080", "answered".to_owned()),
    ];
    let asked: Vec<Value> = cases.iter().map(|(to, port, _)| flow("shop/web", to, port)).collect();
    let run = check(&objects, &json!(asked));
    let said: Vec<String> =
        run.answers().iter().map(|a| a["error"].as_str().unwrap_or("answered").to_owned()).collect();
    assert_eq!(said, cases.map(|(_, _, said)| said));
    assert_eq!(run.code, 2);
}
