//! Pods.

use std::net::IpAddr;

use cellwall_policy::model::{HostPort, Kind, NamedPort, ObjectKey, Phase, Pod, Problem};
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::{
    address,
    entries::{number, protocol},
    meta,
    report::{Report, quoted, unreadable},
};

/// `corev1.MirrorPodAnnotationKey`: set by the kubelet, and its value is the uid of the static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Reads and converts a Pod. Containers that cannot be read cost the pod its named ports, not its identity.
pub(super) fn from_value(key: &ObjectKey, value: Value) -> Result<(Pod, Vec<Problem>), Problem> {
    let value = trim(value);
    let error = match v1::Pod::deserialize(&value) {
        Ok(object) => return Ok(pod(&object)),
        Err(error) => error,
    };
    let object = v1::Pod::deserialize(without_containers(value)).map_err(|error| unreadable(key, &error))?;
    let (pod, mut problems) = pod(&object);
    problems.push(Problem {
        object: key.clone(),
        field: "spec.containers".to_owned(),
        message: format!(
            "cannot be read: {}; no named port and no host port of this pod is known",
            quoted(error)
        ),
    });
    Ok((pod, problems))
}

/// Leaves only the fields that the model needs: environments, arguments and volumes may hold secrets, and a node
/// keeps every pod of its cluster.
fn trim(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        keep(object, &["apiVersion", "kind", "metadata", "spec", "status"]);
    }
    if let Some(meta) = object_at(&mut value, "metadata") {
        meta.retain(|field, _| field != "managedFields" && field != "ownerReferences");
    }
    if let Some(status) = object_at(&mut value, "status") {
        keep(status, &["phase", "podIP", "podIPs"]);
    }
    if let Some(spec) = object_at(&mut value, "spec") {
        keep(spec, &["nodeName", "hostNetwork", "containers", "initContainers"]);
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(container) = container.as_object_mut() {
                    keep(container, &["name", "ports", "restartPolicy"]);
                }
            }
        }
    }
    value
}

fn object_at<'a>(value: &'a mut Value, field: &str) -> Option<&'a mut Map<String, Value>> {
    value.get_mut(field)?.as_object_mut()
}

fn keep(object: &mut Map<String, Value>, fields: &[&str]) {
    object.retain(|field, _| fields.contains(&field.as_str()));
}

fn without_containers(mut value: Value) -> Value {
    if let Some(spec) = object_at(&mut value, "spec") {
        keep(spec, &["nodeName", "hostNetwork"]);
        spec.insert("containers".to_owned(), Value::Array(Vec::new()));
    }
    value
}

/// Converts a Pod.
#[must_use]
pub fn pod(object: &v1::Pod) -> (Pod, Vec<Problem>) {
    let meta = &object.metadata;
    let key = meta::key_from(Kind::Pod, meta);
    let (namespace, name) = (key.namespace.clone(), key.name.clone());
    let mut report = Report::new(key);
    let spec = object.spec.as_ref();
    let status = object.status.as_ref();
    let pod = Pod {
        namespace,
        name,
        uid: uid(meta),
        labels: meta.labels.clone().unwrap_or_default(),
        addresses: status.map(|s| addresses(s, &mut report)).unwrap_or_default(),
        node: spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
        host_network: spec.and_then(|s| s.host_network).unwrap_or(false),
        phase: phase(status.and_then(|s| s.phase.as_deref())),
        deleting: meta.deletion_timestamp.is_some(),
        created_s: meta.creation_timestamp.as_ref().map_or(0, |t| t.0.as_second()),
        ports: spec.map(|s| named_ports(s, &mut report)).unwrap_or_default(),
        host_ports: spec.map(|s| host_ports(s, &mut report)).unwrap_or_default(),
        audit: meta::audit(meta, &mut report),
    };
    (pod, report.finish())
}

/// The uid that the runtime is told. That of a static pod is its own; the object that stands for it in the API has
/// another and names it.
fn uid(meta: &ObjectMeta) -> String {
    let mirrored = meta.annotations.as_ref().and_then(|annotations| annotations.get(MIRROR));
    mirrored.or(meta.uid.as_ref()).cloned().unwrap_or_default()
}

fn phase(name: Option<&str>) -> Phase {
    match name {
        Some("Succeeded" | "Failed") => Phase::Terminal,
        Some("Running") => Phase::Running,
        _ => Phase::Pending,
    }
}

fn addresses(status: &v1::PodStatus, report: &mut Report) -> Vec<IpAddr> {
    // "If this field (podIPs) is specified, the 0th entry must match the podIP field."
    let single = status.pod_ip.as_deref();
    let listed = status.pod_ips.iter().flatten().map(|entry| entry.ip.as_str());
    let mut addresses = Vec::new();
    for text in single.into_iter().chain(listed).filter(|text| !text.is_empty()) {
        match address(text) {
            Some(ip) if addresses.contains(&ip) => {}
            Some(ip) => addresses.push(ip),
            None => {
                report.add("status.podIPs", format_args!("`{text}` is not an IP address; it is left out"));
            }
        }
    }
    addresses
}

/// Containers, then native sidecars, as `podutil.FindPort` looks for them (S47), each with the list that it is in.
fn long_running(spec: &v1::PodSpec) -> impl Iterator<Item = (&'static str, &v1::Container)> {
    let containers = spec.containers.iter().map(|c| ("containers", c));
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    containers.chain(sidecars.map(|c| ("initContainers", c)))
}

/// Of one name and protocol the first.
fn named_ports(spec: &v1::PodSpec, report: &mut Report) -> Vec<NamedPort> {
    let mut ports: Vec<NamedPort> = Vec::new();
    for (list, container) in long_running(spec) {
        for port in container.ports.iter().flatten() {
            let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) else { continue };
            let transport = port.protocol.as_deref().unwrap_or("TCP");
            let (Some(protocol), Some(number)) = (protocol(transport), number(port.container_port)) else {
                report.add(
                    format_args!("spec.{list}[{}].ports[{name}]", container.name),
                    format_args!("{transport} {} is no port; the name is left out", port.container_port),
                );
                continue;
            };
            if !ports.iter().any(|p| p.name == name && p.protocol == protocol) {
                ports.push(NamedPort { name: name.to_owned(), protocol, number });
            }
        }
    }
    ports
}

/// Those of a pod in its node's network are the pod's own ports, and nothing is translated.
fn host_ports(spec: &v1::PodSpec, report: &mut Report) -> Vec<HostPort> {
    let mut ports = Vec::new();
    for (list, container) in long_running(spec).filter(|_| spec.host_network != Some(true)) {
        for port in container.ports.iter().flatten() {
            let Some(host_port) = port.host_port.filter(|number| *number != 0) else { continue };
            let text = port.host_ip.as_deref().filter(|text| !text.is_empty());
            let found =
                (protocol(port.protocol.as_deref().unwrap_or("TCP")), number(host_port), text.map(address));
            if let (Some(protocol), Some(number), None | Some(Some(_))) = found {
                ports.push(HostPort { address: found.2.flatten(), protocol, number });
            } else {
                report.add(
                    format_args!("spec.{list}[{}].ports[hostPort {host_port}]", container.name),
                    "its address, protocol or number cannot be read; it is judged as an address of the node",
                );
            }
        }
    }
    ports
}
