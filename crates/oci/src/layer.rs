//! The files of an image.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use flate2::write::GzEncoder;

use crate::sha256;
use crate::spec::{LAYER, LAYER_GZIP};

/// How a layer is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As it is: quick to make, for images that never travel.
    None,
    /// As small as gzip makes it.
    Gzip,
}

/// A layer that is being made. Everything in it is root's and has one time.
pub struct Layer {
    archive: tar::Builder<Vec<u8>>,
    compression: Compression,
    mtime_s: u64,
}

/// A layer that is made.
pub(crate) struct Finished {
    pub(crate) media_type: &'static str,
    pub(crate) blob: Vec<u8>,
    /// Of what is unpacked, compressed or not.
    pub(crate) unpacked_digest: String,
}

impl Layer {
    /// An empty layer; what is added to it was changed `mtime_s` seconds after the beginning of 1970.
    pub fn new(compression: Compression, mtime_s: u64) -> Self {
        Self { archive: tar::Builder::new(Vec::new()), compression, mtime_s }
    }

    /// Everything in `folder`, by name. Of the permissions of a file counts whether it can be run: the rest would be the
    /// umask of whoever made it.
    pub fn tree(&mut self, folder: &Path) -> io::Result<()> {
        self.below(folder, "")
    }

    fn below(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.folder(&name, 0o755)?;
                self.below(&entry.path(), &format!("{name}/"))?;
            } else if kind.is_symlink() {
                self.link(&name, &fs::read_link(entry.path())?)?;
            } else {
                let executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
                self.file(&name, if executable { 0o755 } else { 0o644 }, &fs::read(entry.path())?)?;
            }
        }
        Ok(())
    }

    /// A folder.
    pub fn folder(&mut self, name: &str, mode: u32) -> io::Result<()> {
        let mut header = self.header(tar::EntryType::Directory, mode);
        self.archive.append_data(&mut header, format!("{name}/"), io::empty())
    }

    /// A file.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let mut header = self.header(tar::EntryType::Regular, mode);
        header.set_size(content.len() as u64);
        self.archive.append_data(&mut header, name, content)
    }

    /// A symbolic link.
    pub fn link(&mut self, name: &str, target: &Path) -> io::Result<()> {
        let mut header = self.header(tar::EntryType::Symlink, 0o777);
        self.archive.append_link(&mut header, name, target)
    }

    fn header(&self, kind: tar::EntryType, mode: u32) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_mtime(self.mtime_s);
        header
    }

    pub(crate) fn finish(self) -> io::Result<Finished> {
        let unpacked = self.archive.into_inner()?;
        let unpacked_digest = sha256(&unpacked);
        let (media_type, blob) = match self.compression {
            Compression::None => (LAYER, unpacked),
            Compression::Gzip => {
                let mut packed = GzEncoder::new(Vec::new(), flate2::Compression::best());
                packed.write_all(&unpacked)?;
                (LAYER_GZIP, packed.finish()?)
            }
        };
        Ok(Finished { media_type, blob, unpacked_digest })
    }
}
