//! Services and EndpointSlices.

use std::net::IpAddr;

use cellwall_policy::flow::Protocol;
use cellwall_policy::model::{BackendPort, Change, EndpointSlice, HostPort, Problem, Service, ServicePort};

use crate::common::changes;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn service(yaml: &str) -> (Service, Option<Problem>) {
    let mut changes = changes(&format!("apiVersion: v1\nkind: Service\n{yaml}"));
    let problem = match changes.pop() {
        Some(Change::Bad(problem)) => Some(problem),
        Some(change) => {
            changes.push(change);
            None
        }
        None => None,
    };
    match changes.pop() {
        Some(Change::Service(service)) => (service, problem),
        other => panic!("{other:?}"),
    }
}

fn slice(yaml: &str) -> Vec<Change> {
    changes(&format!("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n{yaml}"))
}

#[test]
fn a_service_of_every_kind_of_address() {
    let (service, problem) = service(
        "metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, 'fd00:96::1']
  externalIPs: [192.0.2.1]
  ports:
  - {name: http, port: 80, targetPort: web, nodePort: 30080}
  - {name: dns, port: 53, protocol: UDP}
status:
  loadBalancer:
    ingress:
    - {ip: 192.0.2.2}
    - {ip: 192.0.2.3, ipMode: VIP}
    - {ip: 192.0.2.4, ipMode: Proxy}
    - {hostname: lb.example}
",
    );
    assert_eq!(problem, None);
    let port = |name: &str, protocol, number, node_port| ServicePort {
        name: name.to_owned(),
        protocol,
        number,
        node_port,
    };
    assert_eq!(
        service,
        Service {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            cluster_addresses: vec![ip("10.96.0.1"), ip("fd00:96::1")],
            external_addresses: vec![ip("192.0.2.1"), ip("192.0.2.2"), ip("192.0.2.3")],
            ports: vec![port("http", Protocol::TCP, 80, Some(30080)), port("dns", Protocol::UDP, 53, None)],
            other_proxy: false,
        }
    );
}

#[test]
fn headless_services_and_names_have_no_address() {
    for spec in
        ["{clusterIP: None, ports: [{port: 80}]}", "{type: ExternalName, externalName: a.example}", "{}"]
    {
        let (service, problem) = service(&format!("metadata: {{name: web}}\nspec: {spec}\n"));
        assert_eq!((service.cluster_addresses, problem), (vec![], None), "{spec}");
    }
}

/// CVE-2021-25737: whoever writes a Service chooses these.
#[test]
fn addresses_of_no_one_machine_are_not_taken_for_a_service() {
    let special = [
        "127.0.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "::1",
        "fe80::1",
        "ff02::1",
        "::",
    ];
    for text in special {
        let (service, problem) = service(&format!(
            "metadata: {{name: web}}
spec: {{clusterIP: 10.96.0.1, externalIPs: ['{text}', 192.0.2.1], ports: [{{port: 80}}]}}
status: {{loadBalancer: {{ingress: [{{ip: '{text}'}}]}}}}
"
        ));
        assert_eq!(service.external_addresses, [ip("192.0.2.1")], "{text}");
        let problem = problem.unwrap_or_else(|| panic!("{text} is no problem"));
        assert_eq!(problem.field, "spec.externalIPs[0]", "{text}");
        assert!(problem.message.contains("status.loadBalancer.ingress[0].ip"), "{}", problem.message);
    }
}

#[test]
fn what_is_no_port_or_address_is_left_out_and_named() {
    let (service, problem) = service(
        "metadata: {name: web}
spec: {clusterIP: 10.96.0.1, externalIPs: [nowhere], ports: [{port: 0}, {port: 80, protocol: GRE}, {port: 81}]}
",
    );
    assert_eq!(service.external_addresses, Vec::<IpAddr>::new());
    assert_eq!(service.ports.iter().map(|port| port.number).collect::<Vec<_>>(), [81]);
    let message = problem.expect("three problems").message;
    for part in ["`nowhere` is not an IP address", "TCP 0 is no port", "GRE 80 is no port"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_service_that_kube_proxy_leaves_alone_is_marked() {
    for label in ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"] {
        let (service, _) = service(&format!("metadata: {{name: web, labels: {{{label}: x}}}}\n"));
        assert!(service.other_proxy, "{label}");
    }
}

#[test]
fn a_slice_is_all_its_addresses_whatever_their_conditions() {
    let told = slice(
        "metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
- {addresses: [10.1.0.1], conditions: {ready: true}}
- {addresses: [10.1.0.2], conditions: {ready: false, serving: false, terminating: true}}
- {addresses: [10.1.0.2], nodeName: n1, targetRef: {kind: Pod, name: x}}
ports:
- {name: http, port: 8080}
- {name: dns, port: 53, protocol: UDP}
- {name: every}
",
    );
    let port = |name: &str, protocol, number| BackendPort { name: name.to_owned(), protocol, number };
    let wanted = EndpointSlice {
        namespace: "shop".to_owned(),
        name: "web-1".to_owned(),
        service: "web".to_owned(),
        addresses: vec![ip("10.1.0.1"), ip("10.1.0.2")],
        ports: vec![port("http", Protocol::TCP, 8080), port("dns", Protocol::UDP, 53)],
    };
    assert_eq!(told, [Change::EndpointSlice(wanted)]);
}

#[test]
fn names_are_no_backends_and_what_cannot_be_read_is_named() {
    let told = slice("metadata: {name: a}\naddressType: FQDN\nendpoints: [{addresses: [a.example]}]\n");
    let [Change::EndpointSlice(slice_of_names)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((slice_of_names.addresses.len(), slice_of_names.service.as_str()), (0, ""));

    let told = slice(
        "metadata: {name: a}
addressType: IPv4
endpoints: [{addresses: [a.example, 10.1.0.1]}]
ports: [{port: 70000}]
",
    );
    let [Change::EndpointSlice(slice_read), Change::Bad(problem)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&slice_read.addresses, &slice_read.ports), (&vec![ip("10.1.0.1")], &vec![]));
    assert!(problem.message.contains("`a.example` is not an IP address"), "{problem}");
    assert!(problem.message.contains("TCP 70000 is no port"), "{problem}");

    let told = slice("metadata: {name: a}\naddressType: IPv4\nendpoints: 7\n");
    let [Change::Bad(problem)] = &told[..] else { panic!("{told:?}") };
    assert!(problem.message.contains("it has no effect, or the one that its last version had"), "{problem}");
}

#[test]
fn host_ports_of_a_pod_with_its_own_network() {
    let pod = |spec: &str| {
        let told = changes(&format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {spec}\n"));
        match told.into_iter().next() {
            Some(Change::Pod(pod)) => pod,
            other => panic!("{other:?}"),
        }
    };
    let ports = "containers: [{name: c, ports: [
        {containerPort: 80, hostPort: 8080},
        {containerPort: 53, hostPort: 53, protocol: UDP, hostIP: 192.168.0.1},
        {containerPort: 81},
        {containerPort: 82, hostPort: 8082, hostIP: here}]}]";
    let host_port = |address, protocol, number| HostPort { address, protocol, number };
    assert_eq!(
        pod(&format!("{{{ports}}}")).host_ports,
        [host_port(None, Protocol::TCP, 8080), host_port(Some(ip("192.168.0.1")), Protocol::UDP, 53)]
    );
    assert_eq!(pod(&format!("{{hostNetwork: true, {ports}}}")).host_ports, []);
}
