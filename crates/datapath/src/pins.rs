//! The folder of the pins: whose it is, who may act, what is in it.
//!
//! ```text
//! <bpffs>/<pin name>/            locked by the agent that acts
//!     abi<version>/maps/<table>
//!     abi<version>/links/<ifindex>-{ingress,egress}
//!     abi<version>/progs/<digest of the object>/{to_pod,from_pod}
//! ```
//!
//! Folders of other versions are left alone until their programs are replaced, and removed then.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use crate::error::OpenError;
use crate::settings::Settings;

const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The folders, and the lock that makes us the only one to act on them.
#[derive(Debug)]
pub(crate) struct Pins {
    pub(crate) maps: PathBuf,
    pub(crate) links: PathBuf,
    pub(crate) programs: PathBuf,
    /// Folders of other ABI versions, until nothing in them is needed any more.
    pub(crate) others: Vec<PathBuf>,
    _lock: File,
}

impl Pins {
    /// Makes what is missing and takes the lock.
    pub(crate) fn open(settings: &Settings) -> Result<Self, OpenError> {
        let root = checked_root(settings)?;
        make(&root)?;
        let lock = lock(&root, settings.wait)?;
        let folder = settings.folder();
        let mut others = folders(&root)?;
        let is_one = |name: &OsStr| name.as_encoded_bytes().starts_with(b"abi");
        others.retain(|other| *other != folder && other.file_name().is_some_and(is_one));
        let pins = Self {
            maps: folder.join("maps"),
            links: folder.join("links"),
            programs: folder.join("progs"),
            others,
            _lock: lock,
        };
        for path in [&folder, &pins.maps, &pins.links, &pins.programs] {
            make(path)?;
        }
        Ok(pins)
    }
}

/// Our folder, whose name is one and which is, or would be, on a BPF file system.
pub(crate) fn checked_root(settings: &Settings) -> Result<PathBuf, OpenError> {
    let name = &settings.pin_name;
    // The kernel refuses dots in names on a BPF file system.
    if name.is_empty() || name.contains(['/', '.', '\0']) {
        return Err(OpenError::PinName { name: name.clone() });
    }
    let status = rustix::fs::statfs(&settings.bpffs).map_err(file("look at", &settings.bpffs))?;
    if u64::try_from(status.f_type).ok().map(|t| t & 0xffff_ffff) != Some(BPF_FS_MAGIC) {
        return Err(OpenError::NotBpffs { path: settings.bpffs.clone() });
    }
    Ok(settings.root())
}

/// An error of a step on a path, from whatever the step answers.
pub(crate) fn file<E: Into<io::Error>>(
    step: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> OpenError + use<E> {
    let path = path.to_owned();
    move |source| OpenError::File { step, path, source: source.into() }
}

fn make(path: &Path) -> Result<(), OpenError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let owner = fs::symlink_metadata(path).map_err(file("look at", path))?.uid();
            if owner == rustix::process::geteuid().as_raw() {
                Ok(())
            } else {
                Err(OpenError::Foreign { path: path.to_owned(), owner })
            }
        }
        Err(error) => Err(file("make", path)(error)),
    }
}

/// A BPF file system holds no files to lock, but its folders can be locked.
pub(crate) fn lock(root: &Path, wait: Option<Duration>) -> Result<File, OpenError> {
    let folder = File::open(root).map_err(file("open", root))?;
    let until = wait.map(|wait| Instant::now() + wait);
    loop {
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(folder),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                if until.is_none_or(|until| Instant::now() >= until) {
                    return Err(OpenError::Locked { path: root.to_owned() });
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(file("lock", root)(error)),
        }
    }
}

/// Names in a folder, in no order; names that are not UTF-8 are not ours.
pub(crate) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

/// The folders in a folder; none where it is gone.
pub(crate) fn folders(folder: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let names = match names(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        names => names.map_err(file("list", folder))?,
    };
    Ok(names.into_iter().map(|name| folder.join(name)).filter(|path| path.is_dir()).collect())
}

/// Removes a pin or an empty folder; one that is gone already is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
    removed.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}
