//! The node of the demo: a copy of `examples/`, a namespace for each pod in it, and a server on each of its ports.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cellwall_testkit::net::{Namespace, Net, Pod};
use rustix::mount::{MountFlags, mount};
use serde_json::Value;

use crate::{heartbeat, places};

/// The node itself, as one that connects.
pub(super) const NODE: &str = "the node itself";
/// Somebody who is not of the cluster.
pub(super) const OUTSIDE: &str = "outside the cluster";
/// Everything that the demo writes; a file system in memory that only the demo sees.
pub(super) const SCRATCH: &str = "/run";
const OPEN_FOR: Duration = Duration::from_millis(600);

pub(super) struct World {
    pub(super) net: Net,
    pub(super) parties: Vec<Party>,
    pub(super) folder: PathBuf,
}

/// One that connects, and that others connect to if it has ports.
pub(super) struct Party {
    pub(super) name: String,
    pub(super) ports: Vec<(String, u16)>,
    /// None: the node.
    pod: Option<Pod>,
}

impl World {
    pub(super) fn new() -> Result<Self> {
        mount("tmpfs", SCRATCH, "tmpfs", MountFlags::empty(), None).context("cannot mount a tmpfs")?;
        let folder = Path::new(SCRATCH).join("objects");
        fs::create_dir(&folder)?;
        for file in ["node.yaml", "pods.yaml"] {
            fs::copy(examples().join(file), folder.join(file)).with_context(|| format!("examples/{file}"))?;
        }

        let mut net = Net::new("demo").context("cannot make a network namespace")?;
        let mut parties = Vec::new();
        for pod in read_pods(&folder.join("pods.yaml"))? {
            let interface = format!("veth-{}", pod.name.rsplit('/').next().unwrap_or_default());
            let interface: String = interface.chars().take(15).collect();
            let behind = net.connect(&interface, pod.v4, pod.v6).with_context(|| pod.name.clone())?;
            parties.push(Party { name: pod.name, ports: pod.ports, pod: Some(behind) });
        }
        let outside = net.outside()?;
        parties.push(Party { name: OUTSIDE.to_owned(), ports: Vec::new(), pod: Some(outside) });
        parties.push(Party { name: NODE.to_owned(), ports: Vec::new(), pod: None });
        let world = Self { net, parties, folder };
        world.serve()?;
        Ok(world)
    }

    /// A server on each port that answers each byte with the same byte.
    fn serve(&self) -> Result<()> {
        for (party, port) in self.targets() {
            let namespace = self.namespace(party);
            let listener = namespace.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)));
            let listener = listener.with_context(|| format!("cannot listen on {}:{port}", party.name))?;
            heartbeat::echo(listener);
        }
        Ok(())
    }

    /// Each port that can be connected to.
    pub(super) fn targets(&self) -> impl Iterator<Item = (&Party, u16)> {
        self.parties.iter().flat_map(|party| party.ports.iter().map(move |(_, port)| (party, *port)))
    }

    pub(super) fn namespace<'a>(&'a self, party: &'a Party) -> &'a Namespace {
        party.pod.as_ref().map_or(&self.net.host, |pod| &pod.namespace)
    }

    /// A connection to the named port.
    pub(super) fn connect(&self, from: &str, to: &str, port: &str) -> Result<TcpStream> {
        let [address, _] = self.address(to, port)?;
        let stream = self.namespace(self.party(from)?).run(|| TcpStream::connect_timeout(&address, OPEN_FOR));
        stream.with_context(|| format!("{from} cannot connect to {to}"))
    }

    /// Both addresses of the named port.
    fn address(&self, name: &str, port: &str) -> Result<[SocketAddr; 2]> {
        let party = self.party(name)?;
        let found = party.ports.iter().find(|(known, _)| known == port);
        let (_, number) = found.with_context(|| format!("{name} has no port {port}"))?;
        Ok(party.addresses(*number).expect("parties with ports are pods"))
    }

    fn party(&self, name: &str) -> Result<&Party> {
        let found = self.parties.iter().find(|party| party.name == name);
        found.with_context(|| format!("examples/pods.yaml has no {name}"))
    }

    /// Puts the policies into the folder; the names of their files, with the first line of each.
    pub(super) fn copy_policies(&self) -> Result<Vec<(String, String)>> {
        let mut copied = Vec::new();
        for entry in fs::read_dir(examples()).context("cannot read examples/")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("policy-") {
                let text = fs::read_to_string(entry.path())?;
                let says = text.lines().next().unwrap_or_default().trim_start_matches("# ").to_owned();
                self.save(&name, &text)?;
                copied.push((name, says));
            }
        }
        copied.sort();
        Ok(copied)
    }

    /// Changes a file; when it was saved.
    pub(super) fn edit(&self, file: &str, old: &str, new: &str) -> Result<Instant> {
        let text = fs::read_to_string(self.folder.join(file))?;
        ensure!(text.matches(old).count() == 1, "examples/{file} does not have {old} once");
        self.save(file, &text.replace(old, new))
    }

    /// As editors do: the folder never holds half a file.
    fn save(&self, file: &str, text: &str) -> Result<Instant> {
        let fresh = Path::new(SCRATCH).join("fresh");
        fs::write(&fresh, text)?;
        fs::rename(&fresh, self.folder.join(file)).with_context(|| format!("cannot save {file}"))?;
        Ok(Instant::now())
    }

    /// Connects again and again; how long after `start` it first succeeded.
    pub(super) fn connects_after(
        &self,
        start: Instant,
        from: &str,
        to: &str,
        port: &str,
        patience: Duration,
    ) -> Result<Duration> {
        let [address, _] = self.address(to, port)?;
        self.namespace(self.party(from)?).run(|| {
            while start.elapsed() < patience {
                if TcpStream::connect_timeout(&address, Duration::from_millis(20)).is_ok() {
                    return Ok(start.elapsed());
                }
            }
            bail!("{from} could not connect to {to} within {patience:?}")
        })
    }
}

impl Party {
    /// True when this and `other` are one.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.name == other.name
    }

    /// Where a port of it can be reached; none for the node.
    pub(super) fn addresses(&self, port: u16) -> Option<[SocketAddr; 2]> {
        self.pod.as_ref().map(|pod| pod.addresses().map(|address| SocketAddr::new(address, port)))
    }
}

/// True when a connection comes about.
pub(super) fn connects(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, OPEN_FOR).is_ok()
}

fn examples() -> PathBuf {
    places::workspace().join("examples")
}

struct PodObject {
    name: String,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    ports: Vec<(String, u16)>,
}

fn read_pods(path: &Path) -> Result<Vec<PodObject>> {
    let text = fs::read_to_string(path)?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).context("examples/pods.yaml")?;
    documents.iter().map(|pod| read_pod(pod).with_context(|| format!("examples/pods.yaml: {pod}"))).collect()
}

fn read_pod(pod: &Value) -> Option<PodObject> {
    let name = format!("{}/{}", pod["metadata"]["namespace"].as_str()?, pod["metadata"]["name"].as_str()?);
    let addresses = pod["status"]["podIPs"].as_array()?.iter();
    let addresses: Vec<IpAddr> = addresses.filter_map(|entry| entry["ip"].as_str()?.parse().ok()).collect();
    let [IpAddr::V4(v4), IpAddr::V6(v6)] = addresses[..] else { return None };
    let containers = pod["spec"]["containers"].as_array()?;
    let ports = containers.iter().filter_map(|container| container["ports"].as_array()).flatten();
    let port = |entry: &Value| {
        let number = u16::try_from(entry["containerPort"].as_u64()?).ok()?;
        Some((entry["name"].as_str()?.to_owned(), number))
    };
    Some(PodObject { name, v4, v6, ports: ports.map(port).collect::<Option<_>>()? })
}
