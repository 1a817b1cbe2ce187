//! The files of the folder, and what each of them last said.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cellwall_policy::model::{Change, ObjectKey};

use super::manifest;

/// The largest file that is read, in bytes: an API server takes objects of up to 1.5 MB.
const FILE_MAX: u64 = 4 << 20;
/// The most files that are read.
const FILES_MAX: usize = 10_000;
/// A file that was changed less than this ago may be half written.
pub(super) const SETTLE: Duration = Duration::from_millis(100);
/// For how many passes a file that is written all the time is waited for.
const PATIENCE: u32 = 20;

/// One file.
#[derive(Debug, Default)]
pub(super) struct Manifest {
    /// Of its last content, whether that could be used or not.
    hash: Option<u64>,
    /// Objects of the last content that could be used, in order.
    pub(super) objects: Vec<(ObjectKey, Vec<Change>)>,
    /// What is wrong with the present content: where (or empty), and what.
    pub(super) problems: Vec<(String, String)>,
    /// Some content of it could be used, if only one without objects.
    was_used: bool,
    /// It was not there in the last pass. Editors move a file away before they write the new one.
    missing: bool,
}

/// The folder.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// By name.
    pub(super) files: BTreeMap<String, Manifest>,
    /// Passes in which something was perhaps half written.
    unsettled: u32,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), files: BTreeMap::new(), unsettled: 0 }
    }

    /// False when something may be half written, and the folder should be read again before it is believed.
    pub(super) const fn is_settled(&self) -> bool {
        self.unsettled == 0
    }

    /// Why there may be objects that nobody knows of: for what was never read there is no last version to keep.
    pub(super) fn missing(&self) -> Option<String> {
        if self.files.is_empty() {
            return Some(format!("the folder {} has no manifest", self.path.display()));
        }
        let unread: Vec<String> = self
            .files
            .iter()
            .filter(|(_, file)| !file.was_used)
            .filter_map(|(name, file)| file.problems.first().map(|(_, why)| format!("{name}: {why}")))
            .collect();
        (!unread.is_empty()).then(|| format!("in {} {}", self.path.display(), unread.join("; ")))
    }

    /// Reads what has changed. An error is about the folder as a whole, and leaves everything as it was.
    pub(super) fn read(&mut self) -> io::Result<()> {
        let names = names(&self.path)?;
        let mut settled = true;
        self.files.retain(|name, file| {
            let first_time = !std::mem::replace(&mut file.missing, !names.contains(name));
            settled &= !(file.missing && first_time);
            !file.missing || first_time
        });
        for name in names {
            let path = self.path.join(&name);
            let file = self.files.get(&name);
            match content(&path, FILE_MAX) {
                Ok(Content { young: true, hash, .. })
                    if self.unsettled < PATIENCE && file.is_none_or(|file| file.hash != Some(hash)) =>
                {
                    settled = false;
                }
                Ok(content) => self.files.entry(name).or_default().take(&content, &path),
                // Gone since the folder was listed: the next pass does not see it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let file = self.files.entry(name).or_default();
                    file.hash = None;
                    file.refuse(String::new(), &error.to_string());
                }
            }
        }
        self.unsettled = if settled { 0 } else { self.unsettled + 1 };
        Ok(())
    }
}

/// Names of the manifests in a folder.
pub(super) fn names(folder: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let extension = Path::new(&name).extension().and_then(|extension| extension.to_str());
        if !name.starts_with('.') && matches!(extension, Some("yaml" | "yml" | "json")) {
            names.insert(name);
        }
    }
    if names.len() > FILES_MAX {
        return Err(io::Error::other(format!("it has more than {FILES_MAX} manifests")));
    }
    Ok(names)
}

impl Manifest {
    /// What a file says at the only time it is read.
    pub(super) fn once(objects: Vec<(ObjectKey, Vec<Change>)>, problems: Vec<(String, String)>) -> Self {
        Self { objects, problems, ..Self::default() }
    }

    /// Takes a content that is not the last one.
    fn take(&mut self, content: &Content, path: &Path) {
        if self.hash == Some(content.hash) {
            return;
        }
        self.hash = Some(content.hash);
        self.problems.clear();
        if content.text.trim().is_empty() && !self.objects.is_empty() {
            // Editors that write in place empty a file first: to believe it would lift its policies for that time.
            self.refuse(String::new(), "it is empty; remove the file to remove its objects");
            return;
        }
        match manifest::parse(&content.text, path) {
            Ok(parsed) => {
                self.was_used = true;
                self.objects = parsed.objects;
                self.problems = parsed.problems;
            }
            Err((at, why)) => self.refuse(at, &why),
        }
    }

    /// Keeps what was, and says why.
    fn refuse(&mut self, at: String, why: &str) {
        let message = if self.objects.is_empty() {
            format!("{why}; nothing in this file has an effect")
        } else {
            format!("{why}; its last version stays in force")
        };
        self.problems = vec![(at, message)];
    }
}

/// What was read of a file.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) text: String,
    hash: u64,
    /// Changed within [`SETTLE`].
    young: bool,
}

/// Reads a file of at most `max` bytes.
pub(super) fn content(path: &Path, max: u64) -> io::Result<Content> {
    let meta = fs::metadata(path)?;
    if !meta.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let text = text(File::open(path)?, max)?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let age = SystemTime::now().duration_since(meta.modified()?);
    Ok(Content { text, hash: hasher.finish(), young: age.is_ok_and(|age| age < SETTLE) })
}

/// Reads text of at most `max` bytes.
pub(super) fn text(from: impl Read, max: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::other(format!("it is larger than {} MiB", max >> 20)));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: a}}";

    /// Writes a file that has been there for a while, or is just being written.
    fn write(folder: &Folder, name: &str, text: &str, age: Duration) {
        let path = folder.path.join(name);
        fs::write(&path, text).expect("the folder is ours");
        let file = File::options().write(true).open(&path).expect("it is there");
        file.set_modified(SystemTime::now() - age).expect("the file is ours");
    }

    const OLD: Duration = Duration::from_mins(1);
    const NEW: Duration = Duration::ZERO;

    fn objects(folder: &mut Folder) -> usize {
        folder.read().expect("it is there");
        folder.files.values().map(|file| file.objects.len()).sum()
    }

    #[test]
    fn a_file_that_is_just_being_written_is_not_believed_for_a_while() {
        let root = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
        let mut folder = Folder::new(root.path());
        write(&folder, "a.yaml", &format!("{OBJECT}\n---\n{}", OBJECT.replace("name: a", "name: b")), OLD);
        assert_eq!(objects(&mut folder), 2);
        assert!(folder.is_settled());
        // The first half of it is a manifest, too.
        let mut passes = 0;
        loop {
            write(&folder, "a.yaml", OBJECT, NEW);
            let count = objects(&mut folder);
            if folder.is_settled() {
                break;
            }
            assert_eq!(count, 2, "after {passes} passes");
            passes += 1;
        }
        assert!(passes <= PATIENCE, "one that is written all the time is believed at last");
        write(&folder, "a.yaml", OBJECT, OLD);
        assert_eq!(objects(&mut folder), 1);
    }

    #[test]
    fn a_file_that_is_away_for_one_pass_stays() {
        let root = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
        let mut folder = Folder::new(root.path());
        for _ in 0..2 {
            write(&folder, "a.yaml", OBJECT, OLD);
            assert_eq!(objects(&mut folder), 1);
            assert!(folder.is_settled());
            fs::remove_file(root.path().join("a.yaml")).expect("it is there");
            assert_eq!(objects(&mut folder), 1);
            assert!(!folder.is_settled(), "it is read again before it is believed");
        }
        assert_eq!(objects(&mut folder), 0);
        assert!(folder.is_settled());
    }

    #[test]
    fn what_could_not_be_opened_is_read_when_it_can() {
        let root = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
        let mut folder = Folder::new(root.path());
        write(&folder, "a.yaml", OBJECT, OLD);
        assert_eq!(objects(&mut folder), 1);
        fs::rename(root.path().join("a.yaml"), root.path().join("aside")).expect("it is there");
        fs::create_dir(root.path().join("a.yaml")).expect("the folder is ours");
        assert_eq!(objects(&mut folder), 1);
        assert_eq!(folder.files["a.yaml"].problems.len(), 1);
        fs::remove_dir(root.path().join("a.yaml")).expect("it is empty");
        fs::rename(root.path().join("aside"), root.path().join("a.yaml")).expect("it is there");
        assert_eq!(objects(&mut folder), 1);
        assert!(folder.files["a.yaml"].problems.is_empty());
    }
}
