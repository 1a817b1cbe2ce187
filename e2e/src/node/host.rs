//! Makes namespaces look like a machine of their own.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change};

use super::layout::Node;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Host name and file systems of a node of the cluster in `folder`, and a cgroup for its pods.
pub(super) fn become_node(folder: &Path, node: Node) -> Result<()> {
    let cgroup = cgroup(folder)?;
    rustix::system::sethostname(node.name().as_bytes()).context("cannot set the host name")?;
    mount_all().context("cannot mount the node's file systems")?;
    for hierarchy in hierarchies() {
        let cgroup = hierarchy.join(&cgroup).join(node.name());
        fs::create_dir_all(&cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
    }
    Ok(())
}

fn mount_all() -> Result<()> {
    let none = MountFlags::empty();
    // Nothing that is mounted here may show outside.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("tmpfs", "/run", "tmpfs", none, None)?;

    // A new sysfs shows the new network; cgroups are not namespaced and come along.
    fs::create_dir("/run/cgroup")?;
    mount_bind_recursive(CGROUPS, "/run/cgroup")?;
    mount("sysfs", "/sys", "sysfs", none, None)?;
    mount_bind_recursive("/run/cgroup", CGROUPS)?;
    mount("bpf", "/sys/fs/bpf", "bpf", none, None)?;

    // The kubelet and containerd write to many places under /var, and who installs CNI plugins under the others; what they
    // write stays in memory.
    for folder in ["var", "etc", "opt"] {
        for part in ["", "/upper", "/work"] {
            fs::create_dir(format!("/run/{folder}{part}"))?;
        }
        let options = format!("lowerdir=/{folder},upperdir=/run/{folder}/upper,workdir=/run/{folder}/work");
        let options = CString::new(options).expect("no byte is 0");
        let place = format!("/{folder}");
        mount("overlay", place.as_str(), "overlay", none, Some(options.as_c_str())).context(place)?;
    }
    // Of the machine's own.
    for folder in ["/etc/cni", "/opt/cni"] {
        if Path::new(folder).exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot hide {folder}"))?;
        }
    }
    for folder in ["/var/lib/containerd", "/var/lib/kubelet", "/var/lib/etcd", "/var/log/pods"] {
        fs::create_dir_all(folder)?;
        // Not on the overlay: containers' own overlays cannot lie on one.
        mount("tmpfs", folder, "tmpfs", none, None).with_context(|| folder.to_owned())?;
    }
    // Volumes that the kubelet mounts show in containers.
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
    Ok(())
}

/// Lets packets through that are for others.
pub(super) fn forward() -> Result<()> {
    // The plugins wait for a pod to know that nobody else has its address, and not for the node's end of its interface: the
    // first IPv6 packets of a pod would be lost.
    let alone = ("ipv6/conf/default/accept_dad", "0");
    for (setting, value) in [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1"), alone] {
        let path = Path::new("/proc/sys/net").join(setting);
        fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The one hierarchy of cgroup v2, or those of cgroup v1.
fn hierarchies() -> Vec<PathBuf> {
    if Path::new(CGROUPS).join("cgroup.procs").exists() {
        return vec![PathBuf::from(CGROUPS)];
    }
    let Ok(entries) = fs::read_dir(CGROUPS) else { return Vec::new() };
    let folders = entries.flatten().map(|entry| entry.path());
    // Names such as cpuacct may be links to cpu,cpuacct.
    folders.filter(|path| !path.is_symlink() && path.join("cgroup.procs").exists()).collect()
}

/// Name of the cgroup of the cluster in `folder`. Clusters of several trees may have the same name.
pub(crate) fn cgroup(folder: &Path) -> Result<String> {
    let metadata = fs::metadata(folder).with_context(|| format!("cannot look at {}", folder.display()))?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!("{name}-{}", metadata.ino()))
}

/// Removes that cgroup: it outlives the processes in it.
pub(crate) fn remove_cgroups(cgroup: &str) {
    for hierarchy in hierarchies() {
        remove_cgroup(&hierarchy.join(cgroup));
    }
}

/// A cgroup is removed as a folder, without its files, when it has no children.
fn remove_cgroup(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}
