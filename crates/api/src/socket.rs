//! The unix socket: who may reach it, and how it comes to its path without a moment in between.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// The socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Others could put their own socket into the folder.
    #[error(
        "the folder {} can be written by others (mode {mode:o}): they could answer in our place; use a folder of \
         its own, or: chmod 700 {}",
        .folder.display(), .folder.display()
    )]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Something that is not a socket stands at the path.
    #[error("{} is there and is not a socket; it was left alone, choose another path", .path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The path names no file.
    #[error("{} is not a path of a file in a folder", .path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// A step failed.
    #[error("cannot {step} {}", .path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A listening socket at its path. Dropping it removes the file, unless another agent has put its own there.
#[derive(Debug)]
pub struct Socket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    /// Device and inode of our file.
    identity: (u64, u64),
}

impl Socket {
    /// Listens at `path`, readable and writable by this user only. A socket that somebody left there is replaced
    /// in one step: whoever connects reaches the old one or the new one.
    ///
    /// Must be called inside a tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let no_file = || BindError::Path { path: path.to_owned() };
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).ok_or_else(no_file)?;
        let name = path.file_name().ok_or_else(no_file)?.to_string_lossy();
        prepare(folder)?;
        if let Ok(there) = fs::symlink_metadata(path)
            && !there.file_type().is_socket()
        {
            return Err(BindError::NotASocket { path: path.to_owned() });
        }

        let fresh = folder.join(format!(".{name}.{}", std::process::id()));
        // A container's agent has the same process id each time, so a crash can have left this file.
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &fresh)(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&fresh).map_err(failed("listen on", &fresh))?;
        fs::set_permissions(&fresh, Permissions::from_mode(0o600)).map_err(failed("protect", &fresh))?;
        let identity = identity(&fresh).map_err(failed("look at", &fresh))?;
        fs::rename(&fresh, path).map_err(failed("put a socket at", path))?;
        Ok(Self { listener, path: path.to_owned(), identity })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|there| there == self.identity) {
            // Nothing is lost when it stays: the next agent replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn prepare(folder: &Path) -> Result<(), BindError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("make", folder))?;
    let mode = fs::metadata(folder).map_err(failed("look at", folder))?.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(BindError::Folder { folder: folder.to_owned(), mode });
    }
    Ok(())
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BindError {
    let path = path.to_owned();
    move |source| BindError::Io { step, path, source }
}
