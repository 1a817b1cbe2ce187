//! A node with pods, and a BPF file system that only this test sees.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cellwall_datapath::Settings;
use cellwall_policy::plan::Capacities;
use cellwall_testkit::net::Net;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::UnshareFlags;

/// Where a test runs: on a thread in the node's network namespace.
pub(crate) struct Place {
    pub(crate) net: Net,
    pub(crate) settings: Settings,
}

impl Place {
    /// Another data path on the same node.
    pub(crate) fn other(&self) -> Settings {
        Settings { pin_name: format!("{}-other", self.settings.pin_name), ..self.settings.clone() }
    }

    /// Folder of the pins of tables, links or programs.
    pub(crate) fn pins(&self, kind: &str) -> PathBuf {
        self.settings.folder().join(kind)
    }

    /// As after an update: the programs of this object are not there yet, those of another are.
    pub(crate) fn forget_programs(&self) {
        for folder in std::fs::read_dir(self.pins("progs")).expect("a folder") {
            let folder = folder.expect("an entry").path();
            let old = folder.with_file_name("old");
            std::fs::create_dir(&old).expect("a BPF file system");
            for name in ["to_pod", "from_pod", "from_node"] {
                std::fs::rename(folder.join(name), old.join(name)).expect("a pin");
            }
            std::fs::remove_dir(folder).expect("it is empty");
        }
    }
}

/// Runs `body` in a place of its own; nothing of it is left afterwards, however it ends. Does nothing, and says so,
/// without root.
pub(crate) fn place(tag: &str, body: impl FnOnce(&mut Place) + Send) {
    if crate::skipped() {
        return;
    }
    let net = Net::new(tag).expect("a node");
    let run = || {
        net.host.enter().expect("the namespace is alive");
        own_mounts();
        mount("bpf", BPFFS, "bpf", MountFlags::empty(), None).expect("a BPF file system");
        let settings = Settings {
            bpffs: PathBuf::from(BPFFS),
            pin_name: net.name().to_owned(),
            capacities: Capacities {
                endpoints: 64,
                addresses: 8192,
                prefixes: 4096,
                policy: 8192,
                ports: 4096,
                services: 1024,
            },
            flows: 4096,
            pending: 4096,
            fragments: 1024,
            events_bytes: 1 << 16,
            // A program that another test starts has this one's lock open too, until it is executed.
            wait: Some(Duration::from_secs(10)),
            ..Settings::default()
        };
        body(&mut Place { net, settings });
    };
    std::thread::scope(|scope| match scope.spawn(run).join() {
        Ok(()) => {}
        Err(panic) => std::panic::resume_unwind(panic),
    });
}

/// Any folder does: what is mounted on it is seen by this thread alone, and ends with it.
const BPFFS: &str = "/mnt";

fn own_mounts() {
    assert!(Path::new(BPFFS).is_dir());
    // JUSTIFICATION: there is no safe call that makes a mount namespace.
    // SAFETY: only this thread's view of the file systems changes, and it holds no descriptors of its own.
    #[expect(unsafe_code, reason = "unshare(2)")]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS).expect("root");
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("root");
}
