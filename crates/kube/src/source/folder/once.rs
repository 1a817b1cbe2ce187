//! A folder read once, for a question about it: nothing was known before, and nothing is followed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::Path;

use cellwall_policy::model::{Change, ObjectKey, Problem, ServiceSelector};
use k8s_openapi::api::core::v1::Service;
use serde::Deserialize as _;
use serde_json::Value;

use super::manifest::{self, Parsed};
use super::scan::{self, Folder, Manifest};
use super::workloads::Workloads;
use super::{Known, merge};
use crate::convert::service_selector;

/// The largest file that is read, in bytes: an export of all pods of a large cluster.
const FILE_MAX: u64 = 64 << 20;
/// The most bytes of all files together.
const ALL_MAX: u64 = 512 << 20;
/// The most nodes of a YAML file once its aliases are written out.
const NODES_MAX: usize = 10_000_000;

/// What manifests say.
#[derive(Debug, Default)]
pub struct Manifests {
    /// What the model should be told. Namespaces that are only named are among it.
    pub changes: Vec<Change>,
    /// Whom Services mean.
    pub selectors: Vec<ServiceSelector>,
    /// Files and objects that have no effect at all, because they cannot be read.
    pub unread: Vec<Problem>,
    /// Things that a person should know and that change nothing, as sentences.
    pub notes: Vec<String>,
}

/// Reads manifests: the files directly in a folder that [`folder`](super::folder) would take, or one file.
///
/// Deployments and what else makes pods count as one pod of their name each, unless the pods that they made are in
/// the folder, too.
pub fn read(path: &Path) -> io::Result<Manifests> {
    let mut reader = Reader::default();
    let (folder, names) = if path.is_dir() {
        (path, scan::names(path)?)
    } else {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Only a folder is looked into for what can be read: a file that is named must be.
        scan::content(path, FILE_MAX)?;
        (path.parent().unwrap_or(path), BTreeSet::from([name]))
    };
    let mut bytes = 0;
    for name in names {
        let path = folder.join(&name);
        match scan::content(&path, FILE_MAX) {
            Ok(content) => {
                bytes += content.text.len() as u64;
                if bytes > ALL_MAX {
                    return Err(io::Error::other(format!("it has more than {} MiB", ALL_MAX >> 20)));
                }
                reader.file(&name, &content.text, &path);
            }
            Err(error) => reader.refuse(&name, String::new(), &error.to_string()),
        }
    }
    Ok(reader.finish(folder))
}

/// Reads manifests in YAML or JSON from a stream.
pub fn read_stream(stream: impl Read) -> io::Result<Manifests> {
    const NAME: &str = "standard input";
    let text = scan::text(stream, FILE_MAX)?;
    let mut reader = Reader::default();
    reader.file(NAME, &text, Path::new(NAME));
    Ok(reader.finish(Path::new("")))
}

#[derive(Default)]
struct Reader {
    files: BTreeMap<String, Parsed>,
    workloads: Workloads,
    selectors: Vec<ServiceSelector>,
    /// How many there are of kinds that decide nothing.
    others: BTreeMap<String, usize>,
}

impl Reader {
    fn file(&mut self, name: &str, text: &str, path: &Path) {
        let mut parsed = Parsed::default();
        match manifest::objects(text, path, NODES_MAX) {
            Ok(objects) => {
                for object in objects {
                    self.selectors.extend(selector(&object.value));
                    if !self.workloads.take(&object.value, name)
                        && let Some(kind) = parsed.take(object, path)
                    {
                        *self.others.entry(kind).or_default() += 1;
                    }
                }
                self.files.insert(name.to_owned(), parsed);
            }
            Err((at, why)) => self.refuse(name, at, &why),
        }
    }

    fn refuse(&mut self, name: &str, at: String, why: &str) {
        let parsed = self.files.entry(name.to_owned()).or_default();
        parsed.problems.push((at, format!("{why}; nothing in this file has an effect")));
    }

    fn finish(mut self, path: &Path) -> Manifests {
        let mut notes = Vec::new();
        let pods: BTreeSet<ObjectKey> =
            self.files.values().flat_map(|file| &file.objects).map(|(key, _)| key.clone()).collect();
        for stand in std::mem::take(&mut self.workloads).stands() {
            if pods.contains(&stand.key) {
                notes.push(format!(
                    "{} {}/{} does not count: there is a Pod of its name",
                    stand.kind, stand.key.namespace, stand.key.name
                ));
            } else if let Some(file) = self.files.get_mut(&stand.file) {
                file.objects.push((stand.key, stand.changes));
            }
        }
        if !self.others.is_empty() {
            let others: Vec<String> =
                self.others.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            notes.push(format!("of kinds that decide nothing: {}", others.join(", ")));
        }
        let files = self.files.into_iter();
        let files =
            files.map(|(name, parsed)| (name, Manifest::once(parsed.objects, parsed.problems))).collect();
        let mut folder = Folder::new(path);
        folder.files = files;
        let known = merge::merged(&folder);
        let unread = unread(&known);
        Manifests {
            changes: known.into_values().flatten().collect(),
            selectors: self.selectors,
            unread,
            notes,
        }
    }
}

/// Whom a Service means. What is wrong with one is told where it is read as what it is.
fn selector(value: &Value) -> Option<ServiceSelector> {
    let is = |field: &str, text: &str| value.get(field).and_then(Value::as_str) == Some(text);
    if !is("apiVersion", "v1") || !is("kind", "Service") {
        return None;
    }
    Service::deserialize(value).ok().map(|object| service_selector(&object))
}

/// Objects of which nothing is in force.
fn unread(known: &Known) -> Vec<Problem> {
    let problem = |changes: &Vec<Change>| match &changes[..] {
        [Change::Bad(problem)] => Some(problem.clone()),
        _ => None,
    };
    known.values().filter_map(problem).collect()
}
