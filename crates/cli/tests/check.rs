//! `cellwall check`: folders and flows, and what is said about them.

mod folder;

use std::fs;
use std::path::Path;

use folder::{Run, check, flow, manifests, run};
use serde_json::{Value, json};

/// Pods with a label, a name for their port, and an address of each family.
fn pod(name: &str, host: u8, port: u16) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{namespace: shop, name: {name}, labels: {{app: {name}}}}}, \
         spec: {{nodeName: n1, containers: [{{name: c, ports: [{{name: http, containerPort: {port}}}]}}]}}, \
         status: {{podIPs: [{{ip: 10.0.0.{host}}}, {{ip: \"fd00::{host}\"}}]}}}}"
    )
}

/// Policy `p` of namespace `shop` about pods with the label `app: web`.
fn policy(spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{namespace: shop, name: p}}, \
         spec: {{podSelector: {{matchLabels: {{app: web}}}}, {spec}}}}}"
    )
}

/// Pods web (port http is 80) and api (port http is 81), and one policy about web.
fn shop(spec: &str) -> String {
    [pod("web", 1, 80), pod("api", 2, 81), policy(spec)].join("\n---\n")
}

/// Source, destination, protocol with port, and the verdict.
type Case = (&'static str, &'static str, &'static str, &'static str);

#[test]
fn rules_decide() {
    let (web, api) = ("shop/web", "shop/api");
    let cases: &[(&str, &[Case])] = &[
        // Nothing, everything, and what is in between (S30, S31, S32).
        ("ingress: []", &[(api, web, "TCP/80", "deny"), (web, api, "TCP/80", "allow")]),
        ("ingress: [{}]", &[(api, web, "TCP/80", "allow"), (api, web, "ICMP", "allow")]),
        ("ingress: [{from: []}]", &[(api, web, "SCTP/1", "allow"), ("192.0.2.1", web, "UDP/1", "allow")]),
        ("policyTypes: [Egress]", &[(api, web, "TCP/80", "allow"), (web, api, "TCP/80", "deny")]),
        (
            "ingress: [{from: [{podSelector: {}}]}]",
            &[
                (api, web, "TCP/80", "allow"),
                ("192.0.2.1", web, "TCP/80", "deny"),
                ("2001:db8::1", web, "TCP/80", "deny"),
            ],
        ),
        // Names of ports are those of the destination (S43).
        (
            "ingress: [{ports: [{port: http}]}]",
            &[(api, web, "TCP/80", "allow"), (api, web, "TCP/81", "deny"), (api, web, "UDP/80", "deny")],
        ),
        (
            "policyTypes: [Egress], egress: [{ports: [{port: http}]}]",
            &[
                (web, api, "TCP/81", "allow"),
                (web, api, "TCP/80", "deny"),
                (web, "192.0.2.1", "TCP/81", "deny"),
            ],
        ),
        (
            "ingress: [{ports: [{port: 8000, endPort: 8010}]}]",
            &[
                (api, web, "TCP/7999", "deny"),
                (api, web, "TCP/8000", "allow"),
                (api, web, "TCP/8010", "allow"),
                (api, web, "TCP/8011", "deny"),
            ],
        ),
        (
            "ingress: [{ports: [{protocol: SCTP, port: 80}]}]",
            &[
                (api, web, "SCTP/80", "allow"),
                (api, web, "TCP/80", "deny"),
                // No rule with ports means what has none (S73).
                (api, web, "ICMP", "deny"),
            ],
        ),
        (
            "ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}]}]",
            &[
                ("192.0.2.127", web, "TCP/80", "allow"),
                ("192.0.2.128", web, "TCP/80", "deny"),
                ("2001:db8::1", web, "TCP/80", "deny"),
            ],
        ),
        (
            "ingress: [{from: [{ipBlock: {cidr: 'fd00::/64', except: ['fd00::2/128']}}]}]",
            &[
                ("fd00::9", web, "ICMP", "allow"),
                // This one is the pod api, asked about by its address.
                ("fd00::2", web, "TCP/80", "deny"),
                ("10.0.0.2", web, "TCP/80", "deny"),
            ],
        ),
        // Nobody forbids a pod to reach itself (S63, S64).
        ("policyTypes: [Ingress, Egress]", &[(web, web, "TCP/80", "allow"), (web, web, "ICMP", "allow")]),
    ];
    for (spec, flows) in cases {
        let asked: Vec<Value> = flows.iter().map(|(src, dst, port, _)| flow(src, dst, port)).collect();
        let answers = check(&shop(spec), &json!(asked)).answers();
        for ((src, dst, port, expected), answer) in flows.iter().zip(&answers) {
            assert_eq!(answer["verdict"], *expected, "{spec}: {src} to {dst}, {port}: {answer}");
        }
        assert_eq!(answers.len(), flows.len());
    }
}

#[test]
fn both_sides_say_why() {
    let spec = "policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 9}]}, {from: [{podSelector: {}}]}]";
    let asked = json!([flow("shop/api", "shop/web", "TCP/80"), flow("shop/web", "192.0.2.1", "UDP/53")]);
    let expected = json!([
        {
            "verdict": "allow",
            "egress": {"verdict": "allow", "reason": "not isolated"},
            "ingress": {
                "verdict": "allow",
                "reason": "allowed by NetworkPolicy shop/p: spec.ingress[1]",
                "isolatedBy": ["shop/p"],
                "policy": "shop/p",
                "rule": 1,
            },
        },
        {
            "verdict": "deny",
            "egress": {
                "verdict": "deny",
                "reason": "isolated by shop/p, no rule matched",
                "isolatedBy": ["shop/p"],
            },
            "ingress": {"verdict": "allow", "reason": "not a pod"},
        },
    ]);
    let run = check(&shop(spec), &asked);
    assert_eq!(json!(run.answers()), expected);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
}

#[test]
fn a_rule_of_egress_is_named_by_its_place_in_egress() {
    let spec = "policyTypes: [Ingress, Egress], ingress: [{}], \
                egress: [{ports: [{port: 9}]}, {to: [{podSelector: {}}]}, {ports: [{port: 80}]}]";
    let asked = json!([flow("shop/web", "shop/api", "TCP/80"), flow("shop/web", "192.0.2.1", "TCP/80")]);
    let by = |rule: u32| {
        json!({
            "verdict": "allow",
            "egress": {
                "verdict": "allow",
                "reason": format!("allowed by NetworkPolicy shop/p: spec.egress[{rule}]"),
                "isolatedBy": ["shop/p"],
                "policy": "shop/p",
                "rule": rule,
            },
        })
    };
    for (answer, mut expected, ingress) in [
        // Two of its rules allow it: the first is named.
        (0, by(1), "not isolated"),
        (1, by(2), "not a pod"),
    ] {
        expected["ingress"] = json!({"verdict": "allow", "reason": ingress});
        assert_eq!(check(&shop(spec), &asked).answers()[answer], expected);
    }
}

/// The page that says how it works shows what happens.
#[test]
fn the_example_in_the_documentation_is_true() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/check.md")).expect("it is there");
    let blocks: Vec<&str> =
        page.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [flows, answers] = blocks[..] else { panic!("{} examples", blocks.len()) };
    let run =
        run(&["-f", root.join("examples").to_str().expect("UTF-8"), "--flows", "-", "-o", "json"], flows);
    let expected: Value = serde_json::from_str(answers).expect("JSON");
    assert_eq!(json!(run.answers()), expected);
    assert_eq!((run.code, run.err.as_str()), (2, ""));
}

#[test]
fn families() {
    let single = pod("four", 3, 80).replace(", {ip: \"fd00::3\"}", "");
    let objects = [shop("ingress: [{from: [{ipBlock: {cidr: '::/0'}}]}]"), single].join("\n---\n");
    let cases = [
        // Both have both: IPv4, which the rule does not mean.
        ("shop/api", "shop/web", Some("deny")),
        ("2001:db8::1", "shop/web", Some("allow")),
        ("192.0.2.1", "shop/web", Some("deny")),
        ("shop/four", "shop/web", Some("deny")),
        ("2001:db8::1", "shop/four", None),
    ];
    let asked: Vec<Value> = cases.iter().map(|(src, dst, _)| flow(src, dst, "ICMP")).collect();
    let run = check(&objects, &json!(asked));
    for ((src, dst, expected), answer) in cases.iter().zip(run.answers()) {
        match expected {
            Some(verdict) => assert_eq!(answer["verdict"], *verdict, "{src} {dst} {answer}"),
            None => assert_eq!(
                answer,
                json!({"error": "2001:db8::1 and pod/shop/four have no addresses of the same family"})
            ),
        }
    }
    assert_eq!(run.code, 2);
}

#[test]
fn nodes_and_their_network() {
    let node = |name: &str, host: u8| {
        format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}, \
             status: {{addresses: [{{type: InternalIP, address: 192.168.0.{host}}}]}}}}"
        )
    };
    let host = |name: &str, node: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{namespace: shop, name: {name}, labels: {{app: web}}}}, \
             spec: {{nodeName: {node}, hostNetwork: true, containers: []}}}}"
        )
    };
    let objects = [
        shop("policyTypes: [Ingress, Egress]"),
        node("n1", 1),
        node("n2", 2),
        host("h1", "n1"),
        host("h2", "n2"),
    ];
    let cases = [
        // From its own node, whoever says so (S59); not from another one, and not to it (S62).
        ("192.168.0.1", "shop/web", "allow"),
        ("shop/h1", "shop/web", "allow"),
        ("192.168.0.2", "shop/web", "deny"),
        ("shop/h2", "shop/web", "deny"),
        ("shop/web", "192.168.0.1", "deny"),
        // No policy is about a pod with its node's network (S60).
        ("shop/h1", "shop/h2", "allow"),
        ("192.0.2.1", "192.0.2.2", "allow"),
    ];
    let asked: Vec<Value> = cases.iter().map(|(src, dst, _)| flow(src, dst, "TCP/80")).collect();
    let run = check(&objects.join("\n---\n"), &json!(asked));
    for ((src, dst, expected), answer) in cases.iter().zip(run.answers()) {
        assert_eq!(answer["verdict"], *expected, "{src} {dst} {answer}");
    }
    assert_eq!((run.code, run.err.as_str()), (0, ""));
}

#[test]
fn what_cannot_be_asked_is_said_at_its_place() {
    let ended = pod("done", 4, 80).replace("status: {", "status: {phase: Succeeded, ");
    let objects = [shop("ingress: []"), ended, pod("twin", 2, 80)].join("\n---\n");
    let mut asked = vec![
        flow("shop/nobody", "shop/web", "TCP/80"),
        flow("shop/web", "shop/done", "TCP/80"),
        flow("127.0.0.1", "shop/web", "TCP/80"),
        flow("10.0.0.2", "shop/web", "TCP/80"),
        flow("shop/web", "shop/web", "TCP/0"),
        flow("shop/web", "shop/web", "ICMP"),
    ];
    asked[5]["port"] = json!(8);
    asked.push(json!({"src": {"pod": "web"}, "dst": {"ip": "10.0.0.999"}, "protocol": "TCP", "port": 80}));
    asked.push(flow("shop/web", "192.0.2.1", "TCP/80"));
    let run = check(&objects, &json!(asked));
    let errors: Vec<String> =
        run.answers().iter().map(|a| a["error"].as_str().unwrap_or("answered").to_owned()).collect();
    assert_eq!(
        errors,
        [
            "src: there is no Pod shop/nobody",
            "dst: Pod shop/done has ended: it has no address any more",
            "src: 127.0.0.1 is an address that no packet on a wire has",
            "src: Pod shop/api and Pod shop/twin both have 10.0.0.2: name the one that is meant",
            "port: 0 is not between 1 and 65535",
            "port: ICMP has no ports",
            "src: `web` is no name of a Pod: that is NAMESPACE/NAME",
            "answered",
        ]
    );
    assert_eq!(run.code, 2);
}

/// One flow that nobody can answer takes nothing from the others.
#[test]
fn a_flow_that_is_unclear_is_an_error_at_its_place() {
    let with = |field: &str, value: Value| {
        let mut flow = flow("shop/api", "shop/web", "TCP/80");
        flow[field] = value;
        flow.to_string()
    };
    let twice = with("dst", json!({"pod": "?"}))
        .replace("\"pod\":\"?\"", "\"pod\":\"shop/web\",\"pod\":\"shop/api\"");
    let cases = [
        (with("protocol", json!("tcp")), "protocol: `tcp` is none of TCP, UDP, SCTP and ICMP"),
        (
            with("dst", json!({"ip": "10.0.0.1", "pod": "shop/web"})),
            "dst: ip and pod are named together: that takes one of pod, service and ip",
        ),
        (twice, "dst: pod and pod are named together: that takes one of pod, service and ip"),
        (with("src", json!({"name": "shop/web"})), "src: `name` is none of pod, service and ip"),
        (with("src", json!({})), "src: nobody is named: that takes one of pod, service and ip"),
        (with("port", json!(80)), "answered"),
    ];
    let flows: Vec<&str> = cases.iter().map(|(flow, _)| flow.as_str()).collect();
    let folder = manifests(&[("all.yaml", &shop("ingress: []"))]);
    let args = ["-f", folder.path().to_str().expect("UTF-8"), "--flows", "-", "-o"];
    let flows = format!("[{}]", flows.join(","));
    let run = |format: &str| run(&[&args[..], &[format]].concat(), &flows);
    let json = run("json");
    let errors: Vec<String> =
        json.answers().iter().map(|a| a["error"].as_str().unwrap_or("answered").to_owned()).collect();
    assert_eq!(errors, cases.map(|(_, error)| error));
    assert_eq!((json.code, json.err.as_str()), (2, ""));
    let table = run("table").out;
    assert!(table.contains("{ip, pod}") && table.contains("tcp/80"), "{table}");
}

/// Whose interface it is cannot be said: it is closed on a node, and here.
#[test]
fn an_address_of_two_pods_is_closed() {
    let objects = [shop("egress: [{}]"), pod("twin", 1, 80)].join("\n---\n");
    let run = check(&objects, &json!([flow("shop/api", "shop/twin", "TCP/80")]));
    let [answer] = &run.answers()[..] else { panic!("{run:?}") };
    assert_eq!(answer["ingress"]["verdict"], "deny");
    let reason = "closed: another pod has the address of Pod shop/twin, and neither is newer";
    assert_eq!(answer["ingress"]["reason"], reason);
    assert!(run.err.contains("10.0.0.1 is also claimed by Pod shop/web"), "{}", run.err);
}

#[test]
fn audit_does_not_change_what_policies_say() {
    let audited = shop("ingress: []").replacen(
        "name: web,",
        "name: web, annotations: {cellwall.dev/enforcement: audit},",
        1,
    );
    let [answer] = &check(&audited, &json!([flow("shop/api", "shop/web", "TCP/80")])).answers()[..] else {
        panic!("one flow")
    };
    assert_eq!((&answer["verdict"], &answer["ingress"]["audit"]), (&json!("deny"), &json!(true)));
}

#[test]
fn exit_codes_for_pipelines() {
    let folder = manifests(&[("all.yaml", &shop("ingress: []"))]);
    let path = folder.path().to_str().expect("UTF-8");
    let denied = json!([flow("shop/api", "shop/web", "TCP/80")]).to_string();
    let allowed = json!([flow("shop/web", "shop/api", "TCP/80")]).to_string();
    let code = |more: &[&str], flows: &str| {
        let Run { code, .. } = run(&[&["-f", path, "--flows", "-"], more].concat(), flows);
        code
    };
    assert_eq!(code(&[], &denied), 0, "a denied flow is no error");
    assert_eq!(code(&["--fail-on", "deny"], &denied), 3);
    assert_eq!(code(&["--fail-on", "deny,partial"], &allowed), 0);
    assert_eq!(code(&["--fail-on", "allow"], &allowed), 3);
    assert_eq!(code(&[], "[]"), 0);
    assert_eq!(code(&["--fail-on", "nothing"], &allowed), 2);
    assert_eq!(code(&["-f", "/nonexistent"], &allowed), 2, "-f twice");
    let run = run(&["-f", "-", "--flows", "-"], "");
    assert_eq!(run.code, 1);
    assert!(run.err.contains("cannot both be read from standard input"), "{}", run.err);
}

#[test]
fn flows_that_are_none_are_refused_with_line_and_field() {
    let good = flow("shop/api", "shop/web", "TCP/80");
    let with = |field: &str, value: Value| {
        let mut flow = good.clone();
        flow[field] = value;
        format!("[{good},\n{flow}]")
    };
    let cases = [
        (String::new(), "the list of flows: EOF", "line 1"),
        ("{}".to_owned(), "the list of flows: invalid type: map", "line 1"),
        ("[{}]".to_owned(), "[0]: missing field `src`", "line 1"),
        ("[] x".to_owned(), "after the list of flows: trailing characters", "line 1"),
        (with("port", json!("80")), "[1].port: invalid type: string \"80\"", "line 2"),
        (with("ports", json!(80)), "unknown field `ports`", "line 2"),
        (with("protocol", json!(6)), "[1].protocol: invalid type: integer `6`", "line 2"),
        (with("src", json!("shop/web")), "[1].src: ", "line 2"),
        (with("dst", json!({"pod": 7})), "[1].dst.pod: invalid type: integer `7`", "line 2"),
        (format!("[{good},\n{good}"), "EOF", "line 2"),
    ];
    for (flows, what, line) in cases {
        let run = run(&["-f", "/nonexistent", "--flows", "-"], &flows);
        assert_eq!((run.code, run.out.as_str()), (1, ""), "{flows}");
        assert!(run.err.contains(what) && run.err.contains(line), "{flows}: {}", run.err);
        assert_eq!(run.err.matches(line).count(), 1, "said once: {}", run.err);
    }
}

#[test]
fn output_for_people_and_for_programs() {
    let folder = manifests(&[("all.yaml", &shop("ingress: []"))]);
    let path = folder.path().to_str().expect("UTF-8");
    let flows =
        json!([flow("shop/api", "shop/web", "TCP/80"), flow("shop/x", "shop/web", "ICMP")]).to_string();
    let run = |format: &str| run(&["-f", path, "--flows", "-", "-o", format], &flows).out;
    assert_eq!(
        run("table"),
        "\
SRC           DST           PROTOCOL  VERDICT  EGRESS                       INGRESS
pod/shop/api  pod/shop/web  TCP/80    deny     not isolated                 isolated by shop/p, no rule matched
pod/shop/x    pod/shop/web  ICMP      error    src: there is no Pod shop/x
"
    );
    assert_eq!(run("name"), "deny\nerror\n");
    assert!(run("yaml").starts_with("- verdict: deny\n  egress:\n    verdict: allow\n"), "{}", run("yaml"));
    assert!(serde_json::from_str::<Vec<Value>>(&run("json")).is_ok());
}
