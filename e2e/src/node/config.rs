//! The files that Kubernetes is configured with. JSON is YAML to all who read them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::layout::Node;
use super::{ADDRESS, ADDRESS6, API_SERVICE, CNI_BIN_DIR, CNI_CONF_DIR, DNS_SERVICE, cgroup};
use crate::flavour::{Families, Flavour, Network, Proxy};
use crate::image;
use crate::pki::Authority;

/// Where containerd answers, inside the node.
pub(super) const CONTAINERD: &str = "/run/containerd.sock";
/// Where the machine has CNI plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// Writes what only the node sees, under /run and where CNI has its own.
pub(super) fn write(node: Node, flavour: Flavour, folder: &Path) -> Result<()> {
    // Where nodes have them by default; others come beside them.
    fs::create_dir_all(CNI_CONF_DIR).with_context(|| format!("cannot make {CNI_CONF_DIR}"))?;
    fs::create_dir_all(CNI_BIN_DIR).with_context(|| format!("cannot make {CNI_BIN_DIR}"))?;
    for plugin in fs::read_dir(PLUGINS).with_context(|| format!("cannot read {PLUGINS}"))? {
        let plugin = plugin?;
        symlink(plugin.path(), Path::new(CNI_BIN_DIR).join(plugin.file_name()))?;
    }
    put("/run/resolv.conf", &format!("nameserver {}\n", flavour.families.of(&DNS_SERVICE)[0]))?;
    put("/run/containerd.toml", &containerd())?;
    put(&format!("{CNI_CONF_DIR}/10-pods.conflist"), &network(node, flavour).to_string())?;
    put("/run/kubelet.yaml", &kubelet(node, flavour, folder)?.to_string())?;
    put("/run/proxy.yaml", &proxy(node, flavour.proxy, folder).to_string())
}

fn put(path: &str, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {path}"))
}

/// Where the API server answers, inside the nodes' network.
pub(super) fn server(families: Families) -> String {
    families.of(&[format!("https://{ADDRESS}:6443"), format!("https://[{ADDRESS6}]:6443")]).remove(0)
}

/// Keys and kubeconfigs of all nodes and of the control plane, in the cluster's folder.
pub(super) fn keys(flavour: Flavour, folder: &Path) -> Result<()> {
    let authority = Authority::new(&folder.join("pki"))?;
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
    let addresses = [&[ADDRESS, ADDRESS6, "127.0.0.1"][..], &API_SERVICE].concat();
    authority.sign("apiserver", "kube-apiserver", None, &[&names[..], &addresses].concat())?;
    authority.sign("admin", "admin", Some("system:masters"), &[])?;
    authority.key_pair("tokens")?;
    let server = server(flavour.families);
    authority.kubeconfig("admin", &server, &folder.join("kubeconfig"))?;
    for node in Node::all(flavour.nodes) {
        let (name, [four, six]) = (node.name(), node.addresses());
        let user = format!("system:node:{name}");
        authority.sign(&name, &user, Some("system:nodes"), &[&name, &four, &six])?;
        authority.kubeconfig(&name, &server, &folder.join(format!("pki/{name}.kubeconfig")))?;
    }
    Ok(())
}

fn containerd() -> String {
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_BIN_DIR}"
conf_dir = "{CNI_CONF_DIR}"
"#,
        pause = image::PAUSE
    )
}

/// A veth pair for each pod, in both families, routed or on a bridge, and host ports.
fn network(node: Node, flavour: Flavour) -> Value {
    let ranges = flavour.families.of(&node.pods()).into_iter().map(|range| json!([{"subnet": range}]));
    let routes = flavour.families.of(&["0.0.0.0/0", "::/0"]).into_iter().map(|range| json!({"dst": range}));
    let mut pods = json!({
        "type": flavour.network.plugin(),
        "ipMasq": false,
        "ipam": {
            "type": "host-local",
            "dataDir": "/run/cni-addresses",
            "ranges": ranges.collect::<Vec<Value>>(),
            "routes": routes.collect::<Vec<Value>>(),
        },
    });
    if flavour.network == Network::Bridge {
        pods["bridge"] = json!("pods0");
        pods["isGateway"] = json!(true);
        pods["hairpinMode"] = json!(true);
    }
    let host_ports = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [pods, host_ports]})
}

fn kubelet(node: Node, flavour: Flavour, folder: &Path) -> Result<Value> {
    let pki = |file: &str| folder.join("pki").join(file);
    let name = node.name();
    Ok(json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "cgroupRoot": format!("/{}/{name}", cgroup(folder)?),
        "enforceNodeAllocatable": [],
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki("ca.crt")},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "tlsCertFile": pki(&format!("{name}.crt")),
        "tlsPrivateKeyFile": pki(&format!("{name}.key")),
        "clusterDNS": flavour.families.of(&DNS_SERVICE),
        "clusterDomain": "cluster.local",
        "resolvConf": "/run/resolv.conf",
        "failSwapOn": false,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "localStorageCapacityIsolation": false,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        // The node says what it is within a second and not after ten.
        "nodeStatusUpdateFrequency": "1s",
    }))
}

fn proxy(node: Node, mode: Proxy, folder: &Path) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode.name(),
        "clientConnection": {"kubeconfig": folder.join("kubeconfig")},
        "hostnameOverride": node.name(),
        // Limits of the whole machine are not ours.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
}
