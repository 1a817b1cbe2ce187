//! Starts what a node and its control plane consist of, each when what it needs is there.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::config::CONTAINERD;
use super::layout::{FIRST, Node};
use super::others::Other;
use super::{ADDRESS, ADDRESS6, SERVICES, say};
use crate::flavour::Flavour;
use crate::places;

/// How long one step may take. Machines are shared: the limit is for what hangs, not for what is slow.
const PATIENCE: Duration = Duration::from_mins(3);
const PERIOD: Duration = Duration::from_millis(100);

struct Services<'a> {
    node: Node,
    flavour: Flavour,
    folder: PathBuf,
    orphaned: &'a AtomicBool,
    running: Vec<(String, Child)>,
    /// The other nodes, of the first one.
    others: &'a mut [Other],
}

/// Starts everything of the first node and returns when pods can be made on all. What was started goes on.
pub(super) fn start(
    flavour: Flavour,
    folder: &Path,
    orphaned: &AtomicBool,
    others: &mut [Other],
) -> Result<()> {
    let mut services = Services::new(FIRST, flavour, folder, orphaned, others)?;
    services.runtime()?;
    services.control_plane()?;
    services.kubelet()?;
    Node::all(flavour.nodes).try_for_each(|node| services.until_ready(node))?;
    let kubectl = services.kubectl();
    services.until("pods may be made", || kubectl(&["get", "serviceaccount", "default"]).is_some())
}

/// Starts what another node needs, and returns when it runs; the first one sees whether it is ready.
pub(super) fn join(node: Node, flavour: Flavour, folder: &Path, orphaned: &AtomicBool) -> Result<()> {
    let mut services = Services::new(node, flavour, folder, orphaned, &mut [])?;
    services.runtime()?;
    services.kubelet()
}

impl<'a> Services<'a> {
    fn new(
        node: Node,
        flavour: Flavour,
        folder: &Path,
        orphaned: &'a AtomicBool,
        others: &'a mut [Other],
    ) -> Result<Self> {
        let folder = folder.to_owned();
        let services = Self { node, flavour, folder, orphaned, running: Vec::new(), others };
        fs::create_dir_all(services.logs()).context("cannot make the folder of logs")?;
        Ok(services)
    }

    fn runtime(&mut self) -> Result<()> {
        say("starting containerd and loading the images");
        self.spawn("containerd", Command::new("containerd").args(["-c", "/run/containerd.toml"]))?;
        self.until("containerd answers", || UnixStream::connect(CONTAINERD).is_ok())?;
        let mut import = Command::new("ctr");
        import.args(["-a", CONTAINERD, "-n", "k8s.io", "images", "import"]).arg(places::images());
        let output = import.output().context("cannot run ctr")?;
        ensure!(output.status.success(), "loading images: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn control_plane(&mut self) -> Result<()> {
        say("starting the control plane");
        let etcd = "--data-dir=/var/lib/etcd/data --unsafe-no-fsync \
                    --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379";
        self.spawn("etcd", kubernetes("etcd").args(etcd.split_whitespace()))?;
        let client = SocketAddr::from(([127, 0, 0, 1], 2379));
        self.until("etcd answers", || TcpStream::connect(client).is_ok())?;

        let arguments = self.apiserver();
        self.spawn("kube-apiserver", kubernetes("kube-apiserver").args(arguments))?;
        let kubectl = self.kubectl();
        self.until("the API server is ready", || kubectl(&["get", "--raw", "/readyz"]).is_some())?;

        let kubeconfig = format!("--kubeconfig={}", self.folder.join("kubeconfig").display());
        let key = format!("--service-account-private-key-file={}", self.pki("tokens.key"));
        let root = format!("--root-ca-file={}", self.pki("ca.crt"));
        let controllers = [&kubeconfig, &key, &root, "--leader-elect=false", "--allocate-node-cidrs=false"];
        self.spawn("kube-controller-manager", kubernetes("kube-controller-manager").args(controllers))?;
        self.spawn("kube-scheduler", kubernetes("kube-scheduler").args([&kubeconfig, "--leader-elect=false"]))
    }

    fn apiserver(&self) -> Vec<String> {
        let services = self.flavour.families.of(&SERVICES).join(",");
        let address = self.flavour.families.of(&[ADDRESS, ADDRESS6])[0];
        let mut arguments: Vec<String> = [
            "--etcd-servers=http://127.0.0.1:2379",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--kubelet-preferred-address-types=InternalIP",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--secure-port=6443",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.push(format!("--service-cluster-ip-range={services}"));
        arguments.push(format!("--advertise-address={address}"));
        for (flag, file) in [
            ("service-account-key-file", "tokens.pub"),
            ("service-account-signing-key-file", "tokens.key"),
            ("tls-cert-file", "apiserver.crt"),
            ("tls-private-key-file", "apiserver.key"),
            ("client-ca-file", "ca.crt"),
            ("kubelet-client-certificate", "admin.crt"),
            ("kubelet-client-key", "admin.key"),
        ] {
            arguments.push(format!("--{flag}={}", self.pki(file)));
        }
        arguments
    }

    fn kubelet(&mut self) -> Result<()> {
        say("starting the kubelet");
        let name = self.node.name();
        let kubeconfig = format!("--kubeconfig={}", self.pki(&format!("{name}.kubeconfig")));
        let name = format!("--hostname-override={name}");
        let addresses = format!("--node-ip={}", self.flavour.families.of(&self.node.addresses()).join(","));
        let arguments = ["--config=/run/kubelet.yaml", &kubeconfig, &name, &addresses];
        self.spawn("kubelet", kubernetes("kubelet").args(arguments))?;
        self.spawn("kube-proxy", kubernetes("kube-proxy").arg("--config=/run/proxy.yaml"))
    }

    fn until_ready(&mut self, node: Node) -> Result<()> {
        let kubectl = self.kubectl();
        let name = node.name();
        let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        self.until(&format!("{name} is ready"), || {
            kubectl(&["get", "node", &name, "-o", ready]).is_some_and(|status| status == "True")
        })?;
        // The controllers would have taken these ranges from a larger one and given them to the node.
        let ranges = self.flavour.families.of(&node.pods());
        let ranges = serde_json::json!({"spec": {"podCIDR": ranges[0], "podCIDRs": ranges}}).to_string();
        let patched = kubectl(&["patch", "node", &name, "--type=merge", "-p", &ranges]);
        patched.context("cannot give the node its ranges of pod addresses")?;
        Ok(())
    }

    fn pki(&self, file: &str) -> String {
        self.folder.join("pki").join(file).display().to_string()
    }

    /// Runs kubectl; what it printed when it succeeded.
    fn kubectl(&self) -> impl Fn(&[&str]) -> Option<String> + use<> {
        let kubeconfig = self.folder.join("kubeconfig");
        move |arguments| {
            let mut command = kubernetes("kubectl");
            let output = command.arg("--kubeconfig").arg(&kubeconfig).args(arguments).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        }
    }

    fn spawn(&mut self, name: &str, command: &mut Command) -> Result<()> {
        let log = File::create(self.log(name)).context("cannot make a log")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        self.running.push((name.to_owned(), child));
        Ok(())
    }

    /// Those of the first node are the cluster's.
    fn logs(&self) -> PathBuf {
        let logs = self.folder.join("log");
        if self.node == FIRST { logs } else { logs.join(self.node.name()) }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// Waits for `done`; an error when something that runs has ended, or nobody wants the cluster any more.
    fn until(&mut self, what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
        let start = Instant::now();
        let logs = self.logs();
        while !done() {
            ensure!(!self.orphaned.load(Ordering::Relaxed), "nobody waits for the cluster any more");
            for (name, child) in &mut self.running {
                if let Some(status) = child.try_wait().context("cannot wait for a child")? {
                    let log = logs.join(format!("{name}.log"));
                    bail!("{name} ended ({status}); the end of {}:\n{}", log.display(), tail(&log));
                }
            }
            for other in &mut *self.others {
                let ended = other.parent.try_wait().context("cannot wait for a node")?;
                ensure!(ended.is_none(), "{} ended; it said why above", other.node.name());
            }
            if start.elapsed() > PATIENCE {
                let (name, _) =
                    self.running.last().expect("something was started before anything is waited for");
                let log = self.log(name);
                bail!("not within {PATIENCE:?}: {what}; the end of {}:\n{}", log.display(), tail(&log));
            }
            thread::sleep(PERIOD);
        }
        Ok(())
    }
}

fn kubernetes(binary: &str) -> Command {
    Command::new(places::binary(binary))
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
