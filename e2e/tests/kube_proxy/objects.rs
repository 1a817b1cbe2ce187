//! What is put into the cluster.

use std::net::IpAddr;

use cellwall_e2e::image::AGNHOST;
use cellwall_e2e::node::OUTSIDE;
use serde_json::{Value, json};

/// Port of the echo outside the cluster, and of that in the network of the first allowed pod.
pub(crate) const ECHO: u16 = 7;

/// Pods, their labels beside `app: <name>`, their ports, and more of their `spec`.
pub(crate) fn pods() -> Vec<(&'static str, Value, u16, Value)> {
    vec![
        ("client", json!({"in": "itself"}), 8080, json!({})),
        ("good", json!({"may": "yes", "in": "mixed"}), 8080, json!({})),
        // Its port `web` is another one, which the client may not ask.
        ("other-port", json!({"may": "yes", "in": "mixed"}), 9090, json!({})),
        ("bad", json!({"in": "mixed"}), 8080, json!({})),
        // The client may ask it, and it lets nobody in.
        ("deaf", json!({"may": "yes", "in": "mixed"}), 8080, json!({})),
        ("on-host", json!({"in": "host"}), 8090, json!({"hostNetwork": true})),
    ]
}

pub(crate) fn pod(name: &str, labels: &Value, port: u16, more: &Value) -> Value {
    let mut labels = labels.clone();
    labels["app"] = json!(name);
    let mut web = json!({"name": "web", "containerPort": port});
    if matches!(name, "good" | "bad") {
        web["hostPort"] = json!(if name == "good" { 8101 } else { 8102 });
    }
    let arguments = json!(["netexec", format!("--http-port={port}"), "--udp-port=8081"]);
    let mut spec = json!({"terminationGracePeriodSeconds": 0, "containers": [
        {"name": "main", "image": AGNHOST, "args": arguments, "ports": [web]}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec})
}

/// The client may ask pods with `may: yes` at 8080 and 8081, and the echo outside.
pub(crate) fn policy() -> Value {
    let outside: Vec<Value> = [format!("{}/32", OUTSIDE[0]), format!("{}/128", OUTSIDE[1])]
        .map(|cidr| json!({"ipBlock": {"cidr": cidr}}))
        .into();
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "client"}, "spec": {
        "podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"], "egress": [
            {"to": [{"podSelector": {"matchLabels": {"may": "yes"}}}],
             "ports": [{"port": 8080}, {"port": 8081, "protocol": "UDP"}]},
            {"to": outside, "ports": [{"port": ECHO}]}]}})
}

/// Who lets in nobody: the client, so that every answer is told from a question, and the backend that is deaf. Whom a backend
/// lets in by name is not tried here: by way of the node's ports it is the node that comes.
pub(crate) fn doors() -> [Value; 2] {
    ["client", "deaf"].map(|app| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": format!("into-{app}")}, "spec": {
                "podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"], "ingress": []}})
    })
}

/// A Service of both families. `more` is put over its `spec`.
pub(crate) fn service(name: &str, more: &Value) -> Value {
    let mut spec = json!({"ipFamilyPolicy": "RequireDualStack", "ports": [
        {"name": "web", "port": 80, "targetPort": "web"},
        {"name": "udp", "port": 81, "protocol": "UDP", "targetPort": 8081},
        {"name": "fixed", "port": 82, "targetPort": 8080}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

/// A hand-written slice of the Service `written`.
pub(crate) fn slice(name: &str, addresses: &[IpAddr], port: u16) -> Value {
    let family = if addresses[0].is_ipv4() { "IPv4" } else { "IPv6" };
    let endpoints: Vec<Value> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "written"}},
        "ports": [{"name": "web", "port": port}], "endpoints": endpoints})
}
