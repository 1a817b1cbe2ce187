//! A node with pods whose objects are manifests in a folder, and the agent that enforces them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cellwall_api::client::{Client, ClientError};
use cellwall_api::v1alpha1::NodeStatus;
use cellwall_testkit::bpffs;
use cellwall_testkit::net::{Net, Pod, Process, is_root};
use tempfile::TempDir;

/// Longer than anything takes on a busy machine: loading the programs alone can take a minute there.
pub(crate) const SOON: Duration = Duration::from_mins(3);

/// Tables that are made in no time.
const SMALL: [(&str, &str); 7] = [
    ("CELLWALL_CAPACITY_ENDPOINTS", "64"),
    ("CELLWALL_CAPACITY_ADDRESSES", "1024"),
    ("CELLWALL_CAPACITY_PREFIXES", "1024"),
    ("CELLWALL_CAPACITY_POLICY", "4096"),
    ("CELLWALL_CAPACITY_PORTS", "1024"),
    ("CELLWALL_CAPACITY_FLOWS", "8192"),
    ("CELLWALL_CAPACITY_PENDING", "8192"),
];

const CLUSTER: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1}}
";

/// A node, its folder of manifests and its BPF file system.
pub(crate) struct World {
    pub(crate) net: Net,
    folder: TempDir,
    bpffs: PathBuf,
}

impl World {
    /// `None`, and a word on why, without root.
    pub(crate) fn new(tag: &str) -> Option<Self> {
        if !is_root() {
            println!("skipped: needs root");
            return None;
        }
        let net = Net::new(tag).expect("a node");
        let folder = tempfile::Builder::new().prefix(net.name()).tempdir().expect("a folder");
        fs::create_dir(folder.path().join("manifests")).expect("the folder is ours");
        // The thread of this test, and the agents that it starts, see a file system of their own.
        let world = Self { net, folder, bpffs: bpffs::private() };
        world.write("cluster", CLUSTER);
        Some(world)
    }

    /// A pod with the label `app: <name>`, and its object.
    pub(crate) fn pod(&mut self, name: &str) -> Pod {
        let pod = self.net.pod().expect("a pod");
        self.tell(name, &pod, name);
        pod
    }

    /// Writes the object of a pod.
    pub(crate) fn tell(&self, name: &str, pod: &Pod, app: &str) {
        let Pod { v4, v6, .. } = pod;
        self.write(
            name,
            &format!(
                "apiVersion: v1\nkind: Pod\n\
                 metadata: {{name: {name}, namespace: shop, uid: uid-{name}, labels: {{app: {app}}}}}\n\
                 spec: {{nodeName: n1}}\n\
                 status: {{phase: Running, podIP: {v4}, podIPs: [{{ip: {v4}}}, {{ip: '{v6}'}}]}}\n"
            ),
        );
    }

    /// Writes a NetworkPolicy for the pods `app: <subject>`; `rest` is what follows the selector in its spec.
    pub(crate) fn policy(&self, name: &str, subject: &str, rest: &str) {
        self.write(
            name,
            &format!(
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
                 metadata: {{name: {name}, namespace: shop}}\n\
                 spec: {{podSelector: {{matchLabels: {{app: {subject}}}}}, {rest}}}\n"
            ),
        );
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.folder.path().join("manifests").join(name).with_extension("yaml")
    }

    /// Puts a manifest into the folder, whole at once.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let beside = self.folder.path().join(name);
        fs::write(&beside, text).expect("the folder is ours");
        fs::rename(&beside, self.manifest(name)).expect("the folder is ours");
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.manifest(name)).expect("it was written");
    }

    /// Starts the agent. The last of two equal flags counts, so `more` goes last.
    pub(crate) fn agent(&self, more: &[&str]) -> Process {
        let log = OpenOptions::new().create(true).append(true).open(self.log_file()).expect("ours");
        let manifests = self.folder.path().join("manifests");
        let mut command = Command::new(env!("CARGO_BIN_EXE_cellwall-agent"));
        command
            .envs(SMALL)
            .env("CELLWALL_NODE_NAME", "n1")
            .env("CELLWALL_SOURCE", format!("dir:{}", manifests.display()))
            .env("CELLWALL_PIN_NAME", "cellwall-test")
            .env("CELLWALL_BPFFS", &self.bpffs)
            .env("CELLWALL_SOCKET", self.socket())
            .args(more)
            .stdout(Stdio::null())
            .stderr(log);
        self.net.host.spawn(&mut command).expect("it is built")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub(crate) fn log(&self) -> String {
        let mut text = String::new();
        let _ = File::open(self.log_file()).and_then(|mut file| file.read_to_string(&mut text));
        text
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    /// What the agent says about itself.
    pub(crate) fn ask(&self) -> Result<NodeStatus, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { Client::connect(&self.socket()).await?.status().await })
    }

    /// Waits until the status is as `wanted`.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
        let start = Instant::now();
        loop {
            let answer = self.ask();
            match answer {
                Ok(status) if wanted(&status) => return status,
                answer if start.elapsed() > SOON => panic!("not {what}: {answer:?}\n{}", self.log()),
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// One value of the metrics.
    pub(crate) fn metric(&self, name: &str) -> String {
        let text = self.metrics(name);
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
    }

    /// The metrics whose names, with their labels, begin like this, as they are written.
    pub(crate) fn metrics(&self, name: &str) -> String {
        let text = self.net.host.run(|| {
            let mut stream = TcpStream::connect(("127.0.0.1", 9964)).expect("it listens");
            let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).expect("it reads");
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("it answers");
            text
        });
        text.lines().filter(|line| line.starts_with(name)).fold(String::new(), |all, line| all + line + "\n")
    }

    /// Every pin and its inode: a pin that was replaced has another one.
    pub(crate) fn pins(&self) -> BTreeMap<PathBuf, u64> {
        let mut found = BTreeMap::new();
        walk(&self.bpffs, &mut found);
        found
    }
}

fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, u64>) {
    for entry in fs::read_dir(folder).expect("it is mounted") {
        let path = entry.expect("it is there").path();
        let about = fs::symlink_metadata(&path).expect("it is there");
        if about.is_dir() {
            walk(&path, found);
        } else {
            found.insert(path, about.ino());
        }
    }
}
