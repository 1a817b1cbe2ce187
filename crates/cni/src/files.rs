//! The folder with a runtime's CNI configurations: which one it reads, and how ours is kept in it.
//!
//! Beside the list lies a file that says that we are installed. It is there before our entry is and gone after it is.
//! A plugin that reaches no agent lets pods start when the file is gone, and only then: a socket that is not there is
//! no sign, since /run is empty after every start of the machine, and pods that start before the agent would not be
//! enforced. The file lies where the list lies, so it is lost only with the list. What is left after an uninstall, such
//! as an entry that another tool has copied into a list of its own, then stands in nobody's way.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::conflist::{ConflistError, with_entry, without_entry};
use crate::entry::Entry;

/// What a configuration may take; those that are in use have some kilobytes.
const LARGEST: u64 = 1 << 20;
/// Files that libcni's `ConfFiles` is asked for by containerd and CRI-O.
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];
/// The file that says that we are installed. No runtime reads a file with this ending.
const INSTALLED: &str = "cellwall.installed";
/// The file that says that the node is disabled. It has to outlive a start of the machine, as the list does.
const DISABLED: &str = "cellwall.disabled";
/// Where runtimes have their configurations unless they are told otherwise.
pub const FOLDER: &str = "/etc/cni/net.d";

/// Our entry could not be put in or taken out.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// No configuration is there yet.
    #[error("{} has no CNI configuration yet; our entry comes when another plugin's is there", .folder.display())]
    Nothing {
        /// The folder.
        folder: PathBuf,
    },
    /// The node is disabled: who switched it off is taking our entry out.
    #[error("this node is disabled; `cellwall node enable` ends that")]
    Disabled,
    /// The configuration that a runtime reads cannot have our entry.
    #[error("our entry cannot be put into {}: {why}", .path.display())]
    Conflist {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: ConflistError,
    },
    /// The configuration is not a plain file.
    #[error(
        "{} is a link: replacing it would leave what it leads to; put the file itself there, or add our entry to it by \
         hand", .path.display()
    )]
    Link {
        /// The file.
        path: PathBuf,
    },
    /// A step failed.
    #[error("cannot {step} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What [`install`] or [`find`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The configuration that a runtime reads.
    pub path: PathBuf,
    /// Our entry was not in it as it should be.
    pub changed: bool,
}

/// The file in `folder` that says that we are installed.
pub fn installed_file(folder: &Path) -> PathBuf {
    folder.join(INSTALLED)
}

/// The file in `folder` that says that the node is disabled.
pub fn disabled_file(folder: &Path) -> PathBuf {
    folder.join(DISABLED)
}

/// True when the file is known not to be there. When that cannot be found out, it is not known.
pub(crate) fn is_gone(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Puts our entry into the first configuration of `folder`, by name, that can be parsed: the one that runtimes read.
pub fn install(folder: &Path, entry: &Entry) -> Result<Installed, FilesError> {
    if disabled_file(folder).exists() {
        return Err(FilesError::Disabled);
    }
    let marker = installed_file(folder);
    if is_gone(&marker) {
        let text =
            "Made by cellwall-agent. While this file is here, pods wait until their policies are in force.\n";
        replace(&marker, text, None)?;
    }
    let (path, wanted) = target(folder, entry)?;
    let Some((text, old)) = wanted else { return Ok(Installed { path, changed: false }) };
    replace(&path, &text, Some(&old))?;
    Ok(Installed { path, changed: true })
}

/// As [`install`], but nothing is written: `changed` says whether something would be.
pub fn find(folder: &Path, entry: &Entry) -> Result<Installed, FilesError> {
    target(folder, entry).map(|(path, wanted)| Installed { path, changed: wanted.is_some() })
}

/// A text to be written, and the metadata of the file before.
type Wanted = (String, fs::Metadata);

/// The configuration that runtimes read, and what has to be written to it.
fn target(folder: &Path, entry: &Entry) -> Result<(PathBuf, Option<Wanted>), FilesError> {
    for path in configurations(folder)? {
        let Some((text, old)) = read(&path)? else { continue };
        match with_entry(&text, &entry.to_json()) {
            Ok(None) => return Ok((path, None)),
            Ok(Some(_)) if is_link(&path) => return Err(FilesError::Link { path }),
            Ok(Some(text)) => return Ok((path, Some((text, old)))),
            Err(ConflistError::NotJson(_)) => {}
            Err(why) => return Err(FilesError::Conflist { path, why }),
        }
    }
    Err(FilesError::Nothing { folder: folder.to_owned() })
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.is_symlink())
}

/// Takes our entry out of every configuration of `folder`, then says that we are not installed; which were changed.
/// One that cannot be changed does not keep the others from it; the first such error is returned, and the plugin then
/// waits for nobody all the same.
pub fn uninstall(folder: &Path) -> Result<Vec<PathBuf>, FilesError> {
    let (mut changed, mut failed) = (Vec::new(), None);
    for path in configurations(folder)? {
        match take_out(&path) {
            Ok(true) => changed.push(path),
            Ok(false) => {}
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
    let marker = installed_file(folder);
    match fs::remove_file(&marker) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed_to("remove", &marker)(error));
        }
        _ => {}
    }
    failed.map_or(Ok(changed), Err)
}

fn take_out(path: &Path) -> Result<bool, FilesError> {
    let Some((text, old)) = read(path)? else { return Ok(false) };
    let Ok(Some(mut text)) = without_entry(&text) else { return Ok(false) };
    if cellwall_abi::planted("an-uninstall-prints-the-list-anew") {
        text.retain(|letter| letter != ' ');
    }
    if is_link(path) {
        return Err(FilesError::Link { path: path.to_owned() });
    }
    replace(path, &text, Some(&old)).map(|()| true)
}

/// The configurations in the order in which a runtime looks at them.
fn configurations(folder: &Path) -> Result<Vec<PathBuf>, FilesError> {
    let failed = failed_to("read the folder", folder);
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut paths: Vec<PathBuf> = entries.map_err(failed)?.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().and_then(|e| e.to_str()).is_some_and(|e| ENDINGS.contains(&e)));
    paths.sort();
    Ok(paths)
}

/// Text and metadata of a file; `None` when it is gone, is no file, is too large or is not text: no runtime reads it.
fn read(path: &Path) -> Result<Option<(String, fs::Metadata)>, FilesError> {
    let opened = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed_to("open", path)(error)),
    };
    let metadata = file.metadata().map_err(failed_to("look at", path))?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).map_err(failed_to("read", path))?;
    Ok(String::from_utf8(bytes).ok().map(|text| (text, metadata)))
}

/// `O_NONBLOCK`: a pipe under the name of a configuration must not hold us up.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// Replaces a file in one step, with the mode and owner of the old one: whoever reads it reads the old or the new one.
fn replace(path: &Path, text: &str, old: Option<&fs::Metadata>) -> Result<(), FilesError> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    // Not an ending that a runtime reads, and never there twice: the one who writes here is this process.
    let fresh = folder.join(format!(".{}.cellwall-new", name.to_string_lossy()));
    let written = write(&fresh, text, old).and_then(|()| fs::rename(&fresh, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&fresh);
        return Err(failed_to("write", path)(error));
    }
    // The name is on the disk before anybody relies on it.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed_to("write", folder))
}

fn write(path: &Path, text: &str, old: Option<&fs::Metadata>) -> io::Result<()> {
    // One that a crash has left may be a link by now.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    if let Some(old) = old {
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
    }
    let mode = old.map_or(0o644, |old| old.mode() & 0o777);
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

fn failed_to(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FilesError + use<> {
    let path = path.to_owned();
    move |source| FilesError::Io { step, path, source }
}
