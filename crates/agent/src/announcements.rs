//! Pods that the CNI plugin announced: to the loop, and beside the socket, so that an agent that starts anew knows of
//! those whose status has no address yet. Without that it would take their interfaces for nobody's.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cellwall_datapath::links::Look;
use cellwall_policy::model::{Announced, Change, Kind, ObjectKey};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::warn;

use crate::run::Input;

/// Announced pods that wait for the loop; plugins wait when there are more.
const WAITING: usize = 256;
/// A node has some hundred pods; what is written is a few hundred bytes for each.
const LARGEST: u64 = 4 << 20;
/// Announced pods without an interface that are kept.
const NOWHERE: usize = 256;
/// The file, beside the socket.
const NAME: &str = "announced.json";

/// A pod as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    namespace: String,
    name: String,
    uid: String,
    interfaces: Vec<(u32, String)>,
    addresses: Vec<IpAddr>,
}

/// Tells the loop what an earlier agent was told, and sends what comes to the watch on interfaces, by `looks`: it looks at
/// those of the pod before it passes the word on. The Ethernet address that is known then is the pod's own for good, and
/// must not be one that a plugin before ours has replaced.
pub(crate) async fn spawn(
    socket: &Path,
    inputs: mpsc::Sender<Input>,
    looks: mpsc::Sender<Look>,
) -> mpsc::Sender<Announced> {
    let mut journal = Journal::open(&socket.with_file_name(NAME));
    for announced in journal.pods.iter().cloned() {
        // An error means that the loop has ended before it began.
        let _ = inputs.send(Input::Change(Change::Announced(announced))).await;
    }
    let (sender, mut received) = mpsc::channel::<Announced>(WAITING);
    tokio::spawn(async move {
        while let Some(announced) = received.recv().await {
            // Written first: what is enforced because of it has to be known to the next agent.
            journal.add(announced.clone());
            let interfaces = announced.interfaces.iter().map(|(ifindex, _)| *ifindex).collect();
            if looks.send(Look { interfaces, then: Change::Announced(announced) }).await.is_err() {
                return;
            }
        }
    });
    sender
}

/// What was announced and is still there.
struct Journal {
    path: PathBuf,
    /// In the order in which they were announced.
    pods: Vec<Announced>,
    failed: bool,
}

impl Journal {
    fn open(path: &Path) -> Self {
        let read = |path: &Path| -> io::Result<Vec<Written>> {
            if fs::symlink_metadata(path)?.len() > LARGEST {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(serde_json::from_slice(&fs::read(path)?)?)
        };
        let pods = read(path).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                warn!(
                    "{} is left out: {error}; pods that are just starting wait for their status",
                    path.display()
                );
            }
            Vec::new()
        });
        let pods = pods.into_iter().map(Announced::from).collect();
        let mut journal = Self { path: path.to_owned(), pods, failed: false };
        journal.forget_gone();
        journal
    }

    fn add(&mut self, announced: Announced) {
        if self.pods.contains(&announced) {
            return;
        }
        self.forget_gone();
        self.pods.retain(|earlier| earlier.pod != announced.pod);
        self.pods.push(announced);
        self.forget_old();
        if let Err(error) = self.write()
            && !std::mem::replace(&mut self.failed, true)
        {
            warn!(
                "cannot write {}: {error}; an agent that starts anew has to wait for the status of new pods",
                self.path.display()
            );
        }
    }

    /// Drops those whose interfaces are not all there any more.
    fn forget_gone(&mut self) {
        let Ok(any_socket) = socket(AddressFamily::UNIX, SocketType::DGRAM, None) else { return };
        let is_there = |(ifindex, name): &(u32, String)| {
            netdevice::index_to_name(&any_socket, *ifindex).is_ok_and(|there| there == *name)
        };
        self.pods.retain(|announced| announced.interfaces.iter().all(is_there));
    }

    /// Of those without an interface nothing tells when they are gone. All but the newest have a status by now.
    fn forget_old(&mut self) {
        let mut too_many =
            self.pods.iter().filter(|a| a.interfaces.is_empty()).count().saturating_sub(NOWHERE);
        self.pods.retain(|announced| {
            let is_old = announced.interfaces.is_empty() && too_many > 0;
            too_many -= usize::from(is_old);
            !is_old
        });
    }

    fn write(&self) -> io::Result<()> {
        let all: Vec<Written> = self.pods.iter().map(Written::from).collect();
        let fresh = self.path.with_extension("new");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        // No sync: it has to outlive this process, not the machine, whose pods are gone then, too.
        file.write_all(&serde_json::to_vec(&all)?)?;
        fs::rename(&fresh, &self.path)
    }
}

impl From<Written> for Announced {
    fn from(written: Written) -> Self {
        let Written { namespace, name, uid, interfaces, addresses } = written;
        Self { pod: ObjectKey::namespaced(Kind::Pod, &namespace, &name), uid, interfaces, addresses }
    }
}

impl From<&Announced> for Written {
    fn from(announced: &Announced) -> Self {
        let Announced { pod, uid, interfaces, addresses } = announced.clone();
        Self { namespace: pod.namespace, name: pod.name, uid, interfaces, addresses }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(name: &str, interfaces: &[(u32, &str)]) -> Announced {
        Announced {
            pod: ObjectKey::namespaced(Kind::Pod, "shop", name),
            uid: "u".to_owned(),
            interfaces: interfaces.iter().map(|(ifindex, name)| (*ifindex, (*name).to_owned())).collect(),
            addresses: vec!["10.0.0.2".parse().expect("an address"), "fd00::2".parse().expect("an address")],
        }
    }

    #[tokio::test]
    async fn what_was_announced_outlives_the_agent_as_long_as_the_interface_is_there() {
        let folder = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
        let path = folder.path().join("agent.sock");
        let pods = [announced("a", &[(1, "lo")]), announced("b", &[(1, "eth9")]), announced("c", &[])];
        let started = async || {
            let (inputs, mut received) = mpsc::channel(512);
            let (looks, looked) = mpsc::channel(1);
            let announcements = spawn(&path, inputs, looks).await;
            let mut known = Vec::new();
            while let Ok(Input::Change(Change::Announced(announced))) = received.try_recv() {
                known.push(announced);
            }
            (announcements, looked, known)
        };
        let (announcements, mut looked, known) = started().await;
        assert_eq!(known, []);
        for pod in &pods {
            announcements.send(pod.clone()).await.expect("open");
            let interfaces = pod.interfaces.iter().map(|(ifindex, _)| *ifindex).collect();
            assert_eq!(looked.recv().await, Some(Look { interfaces, then: Change::Announced(pod.clone()) }));
        }
        let (_, _, known) = started().await;
        assert_eq!(known, [pods[0].clone(), pods[2].clone()], "no interface 1 has the name eth9");

        for n in 0..300 {
            announcements.send(announced(&format!("x{n}"), &[])).await.expect("open");
            looked.recv().await.expect("open");
        }
        let (_, _, known) = started().await;
        assert_eq!((known.len(), known[0].pod.name.as_str()), (257, "a"));
        assert_eq!((known[1].pod.name.as_str(), known[256].pod.name.as_str()), ("x44", "x299"), "the newest");

        fs::write(folder.path().join(NAME), "{").expect("ours");
        let (_, _, known) = started().await;
        assert_eq!(known, [], "what cannot be read stops nobody");
    }
}
