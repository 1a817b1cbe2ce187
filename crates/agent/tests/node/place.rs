//! Where an agent of a test runs: a node and a pod that are network namespaces, a BPF file system and a folder of
//! manifests, all of this test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cellwall_api::client::Client;
use cellwall_api::v1alpha1::NodeStatus;
use cellwall_testkit::child;
use tempfile::TempDir;

/// Far longer than anything takes; only a broken agent waits for it.
const SOON: Duration = Duration::from_mins(1);

/// Tables that are made quickly.
const SMALL: [(&str, &str); 6] = [
    ("CELLWALL_CAPACITY_FLOWS", "1024"),
    ("CELLWALL_CAPACITY_PENDING", "1024"),
    ("CELLWALL_CAPACITY_POLICY", "4096"),
    ("CELLWALL_CAPACITY_ADDRESSES", "1024"),
    ("CELLWALL_CAPACITY_PREFIXES", "1024"),
    ("CELLWALL_CAPACITY_PORTS", "1024"),
];

/// Two namespaces, a veth between them, a folder of manifests, and names that no other run has.
pub(crate) struct Place {
    folder: TempDir,
    /// Name of the node's namespace and of the pins; the pod's namespace has a `p` behind it.
    pub(crate) name: String,
}

impl Place {
    /// `None`, and a word on why, where there cannot be one.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can load programs and make network namespaces");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
        let name =
            folder.path().file_name().expect("it has one").to_string_lossy().to_lowercase().replace('.', "");
        let place = Self { folder, name };
        let (node, pod) = (&place.name, place.pod());
        for command in [
            format!("netns add {node}"),
            format!("netns add {pod}"),
            format!("-n {node} link set lo up"),
            format!("-n {node} link add veth0 type veth peer name eth0 netns {pod}"),
            format!("-n {node} link set veth0 up"),
            format!("-n {node} address add 10.9.0.1/32 dev veth0"),
            format!("-n {node} route add 10.9.0.2 dev veth0"),
            format!("-n {pod} address add 10.9.0.2/32 dev eth0"),
            format!("-n {pod} link set eth0 up"),
            format!("-n {pod} route add 10.9.0.1 dev eth0"),
        ] {
            ip(&command);
        }
        fs::create_dir(place.bpffs()).expect("a new folder");
        let mount = Command::new("mount").args(["-t", "bpf", &place.name]).arg(place.bpffs()).status();
        assert!(mount.expect("mount is installed").success(), "a BPF file system can be mounted");
        fs::create_dir(place.manifests()).expect("a new folder");
        place.write("objects.yaml", OBJECTS);
        Some(place)
    }

    fn pod(&self) -> String {
        format!("{}p", self.name)
    }

    /// A folder of this test's own.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    /// A kubeconfig of an API server that is not there.
    pub(crate) fn dead_api(&self) -> String {
        let path = self.folder.path().join("kubeconfig");
        fs::write(&path, DEAD_API).expect("the folder is ours");
        path.display().to_string()
    }

    /// Writes a manifest as an editor does: the folder never holds half of it.
    pub(crate) fn write(&self, file: &str, text: &str) {
        let fresh = self.folder.path().join("fresh");
        fs::write(&fresh, text).expect("the folder is ours");
        fs::rename(&fresh, self.manifests().join(file)).expect("the folder is ours");
    }

    /// An agent of this node; flags in `more` override what all agents of these tests have in their environment.
    pub(crate) fn agent(&self, more: &[&str]) -> Agent {
        self.start(&[], more)
    }

    /// An agent that can never have a capability; `None`, and a word on why, where that cannot be arranged.
    pub(crate) fn agent_without(&self, capability: &str) -> Option<Agent> {
        if Command::new("setpriv").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("skipped: without setpriv nothing can be started with fewer rights");
            return None;
        }
        Some(self.start(&["setpriv", "--bounding-set", &format!("-{capability}")], &[]))
    }

    /// An agent that another program starts.
    pub(crate) fn start(&self, under: &[&str], more: &[&str]) -> Agent {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .expect("the folder is ours");
        let text = |path: PathBuf| path.display().to_string();
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name])
            .args(under)
            .arg(env!("CARGO_BIN_EXE_cellwall-agent"))
            .envs([
                ("CELLWALL_NODE_NAME", "n1".to_owned()),
                ("CELLWALL_SOURCE", format!("dir:{}", text(self.manifests()))),
                ("CELLWALL_PIN_NAME", self.name.clone()),
                ("CELLWALL_SOCKET", text(self.socket())),
                ("CELLWALL_BPFFS", text(self.bpffs())),
                ("CELLWALL_WAIT", "0".to_owned()),
            ])
            .envs(SMALL)
            .args(more)
            .stderr(Stdio::from(log));
        Agent(child::spawn(&mut command).expect("iproute2 is installed"))
    }

    /// A BPF file system of this test's own: `ip netns exec` gives its command another /sys.
    pub(crate) fn bpffs(&self) -> PathBuf {
        self.folder.path().join("bpf")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until the status is as `wanted`.
    pub(crate) async fn status(&self, what: &str, wanted: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
        let mut last = String::new();
        let deadline = tokio::time::Instant::now() + SOON;
        while tokio::time::Instant::now() < deadline {
            match ask(&self.socket()).await {
                Ok(status) if wanted(&status) => return status,
                Ok(status) => last = format!("{status:?}"),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not {what}: {last}\n{}", self.log());
    }

    /// Waits until a file is gone.
    pub(crate) fn gone(&self, path: &Path) {
        let deadline = std::time::Instant::now() + SOON;
        while path.exists() {
            assert!(std::time::Instant::now() < deadline, "{} stays\n{}", path.display(), self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// True when a packet from the node's side reaches the pod: nobody listens there, and it says so.
    pub(crate) fn reaches(&self) -> bool {
        refuses(&self.name, "10.9.0.2")
    }

    /// True when a packet of the pod reaches the node.
    pub(crate) fn sends(&self) -> bool {
        refuses(&self.pod(), "10.9.0.1")
    }
}

/// True when a host answers that nobody listens there.
fn refuses(namespace: &str, address: &str) -> bool {
    let device = format!(": > /dev/tcp/{address}/80");
    let connect = ["netns", "exec", namespace, "timeout", "2", "bash", "-c", &device];
    let done = Command::new("ip").args(connect).output().expect("iproute2 is installed");
    String::from_utf8_lossy(&done.stderr).contains("Connection refused")
}

impl Drop for Place {
    fn drop(&mut self) {
        for name in [self.pod(), self.name.clone()] {
            let _ = Command::new("ip").args(["netns", "delete", &name]).status();
        }
        let _ = Command::new("umount").arg(self.bpffs()).status();
    }
}

/// Killed when dropped.
pub(crate) struct Agent(Child);

impl Agent {
    /// Waits until it ends by itself: its exit code.
    pub(crate) fn ends(mut self) -> Option<i32> {
        let deadline = std::time::Instant::now() + SOON;
        while std::time::Instant::now() < deadline {
            if let Some(status) = self.0.try_wait().expect("it is ours") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not end");
    }

    pub(crate) fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is ours");
        assert_eq!(self.0.wait().expect("it is ours").code(), Some(0), "SIGTERM is no error");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn ask(socket: &Path) -> Result<NodeStatus, cellwall_api::client::ClientError> {
    Client::connect(socket).await?.status().await
}

pub(crate) fn ip(command: &str) {
    let done = Command::new("ip").args(command.split(' ')).status().expect("iproute2 is installed");
    assert!(done.success(), "ip {command}");
}

pub(crate) const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, uid: 5b3c, labels: {app: web}}
spec: {nodeName: n1}
status: {phase: Running, podIP: 10.9.0.2, podIPs: [{ip: 10.9.0.2}]}
";

const DEAD_API: &str = "
apiVersion: v1
kind: Config
current-context: x
contexts: [{name: x, context: {cluster: x, user: x}}]
clusters: [{name: x, cluster: {server: 'http://127.0.0.1:1'}}]
users: [{name: x, user: {}}]
";
