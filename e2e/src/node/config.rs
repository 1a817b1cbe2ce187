//! The files that Kubernetes is configured with. JSON is YAML to all who read them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{ADDRESS, ADDRESS6, CNI_BIN_DIR, CNI_CONF_DIR, NAME, PODS, SERVER};
use crate::flavour::{Flavour, Network, Proxy};
use crate::image;
use crate::pki::Authority;

/// Where containerd answers, inside the node.
pub(super) const CONTAINERD: &str = "/run/containerd.sock";
/// Where the machine has CNI plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// Writes what lies in the cluster's folder (keys, kubeconfigs) and what only the node sees (under /run).
pub(super) fn write(name: &str, flavour: Flavour, folder: &Path) -> Result<()> {
    keys(folder).context("cannot make certificates")?;
    // Where nodes have them by default; others come beside them.
    fs::create_dir_all(CNI_CONF_DIR).with_context(|| format!("cannot make {CNI_CONF_DIR}"))?;
    fs::create_dir_all(CNI_BIN_DIR).with_context(|| format!("cannot make {CNI_BIN_DIR}"))?;
    for plugin in fs::read_dir(PLUGINS).with_context(|| format!("cannot read {PLUGINS}"))? {
        let plugin = plugin?;
        symlink(plugin.path(), Path::new(CNI_BIN_DIR).join(plugin.file_name()))?;
    }
    put("/run/resolv.conf", "nameserver 10.96.0.10\n")?;
    put("/run/containerd.toml", &containerd())?;
    put(&format!("{CNI_CONF_DIR}/10-pods.conflist"), &network(flavour.network).to_string())?;
    put("/run/kubelet.yaml", &kubelet(name, folder).to_string())?;
    put("/run/proxy.yaml", &proxy(flavour.proxy, folder).to_string())
}

fn put(path: &str, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {path}"))
}

fn keys(folder: &Path) -> Result<()> {
    let authority = Authority::new(&folder.join("pki"))?;
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
    let addresses = [ADDRESS, ADDRESS6, "127.0.0.1", "10.96.0.1", "fd00:10:96::1"];
    authority.sign("apiserver", "kube-apiserver", None, &[&names[..], &addresses[..]].concat())?;
    authority.sign("admin", "admin", Some("system:masters"), &[])?;
    let node = format!("system:node:{NAME}");
    authority.sign("kubelet", &node, Some("system:nodes"), &[NAME, ADDRESS, ADDRESS6])?;
    authority.key_pair("tokens")?;
    authority.kubeconfig("admin", SERVER, &folder.join("kubeconfig"))?;
    authority.kubeconfig("kubelet", SERVER, &folder.join("pki/kubelet.kubeconfig"))
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
fn network(network: Network) -> Value {
    let ranges: Vec<Value> = PODS.iter().map(|range| json!([{"subnet": range}])).collect();
    let mut pods = json!({
        "type": network.plugin(),
        "ipMasq": false,
        "ipam": {
            "type": "host-local",
            "dataDir": "/run/cni-addresses",
            "ranges": ranges,
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        },
    });
    if network == Network::Bridge {
        pods["bridge"] = json!("pods0");
        pods["isGateway"] = json!(true);
        pods["hairpinMode"] = json!(true);
    }
    let host_ports = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [pods, host_ports]})
}

fn kubelet(name: &str, folder: &Path) -> Value {
    let pki = |file: &str| folder.join("pki").join(file);
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "cgroupRoot": format!("/{name}"),
        "enforceNodeAllocatable": [],
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki("ca.crt")},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "tlsCertFile": pki("kubelet.crt"),
        "tlsPrivateKeyFile": pki("kubelet.key"),
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        "resolvConf": "/run/resolv.conf",
        "failSwapOn": false,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "localStorageCapacityIsolation": false,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        // The node says what it is within a second and not after ten.
        "nodeStatusUpdateFrequency": "1s",
    })
}

fn proxy(mode: Proxy, folder: &Path) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode.name(),
        "clientConnection": {"kubeconfig": folder.join("kubeconfig")},
        "hostnameOverride": NAME,
        // Limits of the whole machine are not ours.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
}
