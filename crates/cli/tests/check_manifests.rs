//! `cellwall check`: what counts of a folder, and what is said about the rest.

mod folder;

use folder::{check, flow, manifests, run};
use serde_json::{Value, json};

const DENY_ALL: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: deny}, \
                        spec: {podSelector: {}}}";

/// A workload with a template, as a repository has it.
fn workload(api: &str, kind: &str, name: &str, more: &str) -> String {
    format!(
        "{{apiVersion: {api}, kind: {kind}, metadata: {{namespace: shop, name: {name}}}, spec: {{{more}template: \
         {{metadata: {{labels: {{app: {name}}}}}, spec: {{containers: [{{name: c, ports: [{{name: http, \
         containerPort: 8080}}]}}]}}}}}}}}"
    )
}

fn allow(app: &str, from: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{namespace: shop, name: {app}}}, spec: \
         {{podSelector: {{matchLabels: {{app: {app}}}}}, ingress: [{{from: [{from}], ports: [{{port: http}}]}}]}}}}"
    )
}

#[test]
fn workloads_count_as_a_pod_of_their_name() {
    let kinds = [
        ("apps/v1", "Deployment", "deployment"),
        ("apps/v1", "StatefulSet", "statefulset"),
        ("apps/v1", "DaemonSet", "daemonset"),
        ("apps/v1", "ReplicaSet", "replicaset"),
        ("v1", "ReplicationController", "controller"),
        ("batch/v1", "Job", "job"),
    ];
    let mut objects: Vec<String> = kinds.map(|(api, kind, name)| workload(api, kind, name, "")).into();
    objects.push(
        workload("batch/v1", "CronJob", "cron", "")
            .replace("spec: {template", "spec: {jobTemplate: {spec: {template")
            + "}}",
    );
    objects.push(allow("deployment", "{podSelector: {matchLabels: {app: cron}}}"));
    let mut asked: Vec<Value> =
        kinds.iter().map(|(.., name)| flow(&format!("shop/{name}"), "shop/deployment", "TCP/8080")).collect();
    asked.push(flow("shop/cron", "shop/deployment", "TCP/8080"));
    asked.push(flow("shop/cron", "shop/deployment", "TCP/8081"));
    asked.push(flow("shop/deployment", "shop/statefulset", "SCTP/1"));
    let run = check(&objects.join("\n---\n"), &json!(asked));
    let verdicts: Vec<Value> = run.answers().iter().map(|answer| answer["verdict"].clone()).collect();
    // A pod reaches itself.
    assert_eq!(verdicts, ["allow", "deny", "deny", "deny", "deny", "deny", "allow", "deny", "allow"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
}

/// An export of a cluster has the Deployment, its ReplicaSets old and new, and the pods.
#[test]
fn workloads_whose_pods_are_there_do_not_count() {
    let owned = |object: String, kind: &str, owner: &str| {
        object.replacen(
            "namespace: shop,",
            &format!("namespace: shop, ownerReferences: [{{kind: {kind}, name: {owner}}}],"),
            1,
        )
    };
    let objects = [
        workload("apps/v1", "Deployment", "web", ""),
        owned(workload("apps/v1", "ReplicaSet", "web-1", ""), "Deployment", "web"),
        owned(workload("apps/v1", "ReplicaSet", "web-2", "replicas: 0, "), "Deployment", "web"),
        owned(
            "{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web-1-a}, spec: {containers: []}}"
                .to_owned(),
            "ReplicaSet",
            "web-1",
        ),
        workload("apps/v1", "Deployment", "none", "replicas: 0, "),
        // Its ReplicaSet is there and its pods are not.
        workload("apps/v1", "Deployment", "api", ""),
        owned(workload("apps/v1", "ReplicaSet", "api-1", ""), "Deployment", "api"),
    ];
    let names = ["web", "web-1", "web-2", "web-1-a", "none", "api", "api-1"];
    let asked: Vec<Value> =
        names.iter().map(|name| flow("192.0.2.1", &format!("shop/{name}"), "TCP/80")).collect();
    let answers = check(&objects.join("\n---\n"), &json!(asked)).answers();
    let there: Vec<&str> = names
        .into_iter()
        .zip(&answers)
        .filter(|(_, answer)| answer["error"].is_null())
        .map(|(n, _)| n)
        .collect();
    assert_eq!(there, ["web-1-a", "api"]);
}

#[test]
fn pods_without_an_address_get_one() {
    let block = |cidr: &str| {
        [
            workload("apps/v1", "Deployment", "web", ""),
            workload("apps/v1", "Deployment", "api", ""),
            allow("web", &format!("{{ipBlock: {{cidr: {cidr}}}}}")),
        ]
        .join("\n---\n")
    };
    let asked = json!([flow("shop/api", "shop/web", "TCP/8080"), flow("10.1.0.200", "shop/web", "TCP/8080")]);
    let verdicts = |cidr: &str, more: &[&str]| {
        let folder = manifests(&[("all.yaml", &block(cidr))]);
        let path = folder.path().to_str().expect("UTF-8");
        let run = run(&[&["-f", path, "--flows", "-", "-o", "name"], more].concat(), &asked.to_string());
        (run.out, run.err)
    };
    let (out, err) = verdicts("10.1.0.0/16", &[]);
    assert_eq!(out, "deny\nallow\n");
    assert!(err.contains("--pod-cidr says which the cluster has"), "{err}");
    // In a known range, what no pod has is an unknown pod (S84).
    assert_eq!(
        verdicts("10.1.0.0/16", &["--pod-cidr", "10.1.0.0/24"]),
        ("allow\ndeny\n".to_owned(), String::new())
    );
    assert_eq!(
        verdicts("10.1.0.0/16", &["--pod-cidr", "10.2.0.0/24"]),
        ("deny\nallow\n".to_owned(), String::new())
    );
    let (out, err) = verdicts("10.1.0.0/16", &["--pod-cidr", "10.2.0.1/32"]);
    assert_eq!(out, "error\nerror\n");
    assert!(err.contains("--pod-cidr has none left"), "{err}");
}

/// Name and text.
type File<'a> = (&'a str, &'a str);

#[test]
fn what_has_no_effect_is_an_error_and_what_has_less_is_a_warning() {
    let pod = "{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web}, spec: {containers: []}}";
    let half = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: half}, \
                spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]}}";
    let none = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: none}, \
                spec: {podSelector: all}}";
    let asked = json!([flow("192.0.2.1", "shop/web", "TCP/80")]).to_string();
    let cases: [(&[File], i32, &str); 7] = [
        (
            &[("half.yaml", half)],
            0,
            "warning: NetworkPolicy shop/half: spec.ingress[0].from[0].ipBlock.cidr: ",
        ),
        (&[("none.yaml", none)], 0, "warning: NetworkPolicy shop/none: spec.podSelector: "),
        (&[("bad.yaml", "a: [")], 2, "bad.yaml: line 1: cannot be parsed: "),
        (&[("bad.json", "{")], 2, "bad.json: line 1: cannot be parsed: "),
        (
            &[("unnamed.yaml", "{apiVersion: v1, kind: Pod}")],
            2,
            "this Pod has no metadata.name, or a metadata.namespace that is no text; it has no effect",
        ),
        (
            &[("a.yaml", DENY_ALL), ("b.yaml", DENY_ALL)],
            0,
            "is in a.yaml and in b.yaml; the one in a.yaml is in force",
        ),
        (
            &[("others.yaml", "{kind: ConfigMap}\n---\n{kind: Ingress}\n---\n{kind: ConfigMap}")],
            0,
            "warning: of kinds that decide nothing: 2 ConfigMap, 1 Ingress",
        ),
    ];
    for (files, code, message) in cases {
        let folder = manifests(&[&[("pod.yaml", pod)], files].concat());
        let run = run(&["-f", folder.path().to_str().expect("UTF-8"), "--flows", "-", "-o", "json"], &asked);
        assert_eq!(run.answers().len(), 1);
        assert_eq!(run.code, code, "{files:?}: {}", run.err);
        assert!(run.err.contains(message), "{files:?}: {}", run.err);
        assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    }
}

#[test]
fn a_file_or_standard_input_will_do() {
    let objects = [
        DENY_ALL,
        "{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web}, spec: {containers: []}}",
    ];
    let list = objects.map(|object| format!("- {object}\n")).concat();
    let list = format!("apiVersion: v1\nkind: List\nitems:\n{list}");
    let asked = json!([flow("192.0.2.1", "shop/web", "TCP/80")]).to_string();
    let folder = manifests(&[("list.txt", &list), ("asked", &asked)]);
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (file, flows) = (path("list.txt"), path("asked"));
    assert_eq!(run(&["-f", &file, "--flows", &flows, "-o", "name"], "").out, "deny\n");
    assert_eq!(run(&["-f", "-", "--flows", &flows, "-o", "name"], &list).out, "deny\n");
    for (objects, flows) in [("nowhere", "asked"), ("list.txt", "nowhere")] {
        let run = run(&["-f", &path(objects), "--flows", &path(flows)], "");
        assert_eq!((run.code, run.out.as_str()), (1, ""));
        assert!(run.err.starts_with("error: cannot read "), "{}", run.err);
    }
}

/// A line break in a name begins no line of its own.
#[test]
fn names_cannot_move_the_cursor() {
    let evil = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: \"a\\nb\\e[2J\"}, \
                spec: {podSelector: all}}";
    let run = check(evil, &json!([]));
    assert!(run.err.contains("shop/a\\nb\\u{1b}[2J"), "{:?}", run.err);
    assert_eq!(run.err.lines().count(), 1);
}
