//! From what the files say to what is told.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use cellwall_policy::model::{Change, Kind, Namespace, ObjectKey, Problem};

use super::Known;
use super::scan::Folder;
use crate::convert::{NAME_LABEL, merged as merged_problems};

/// Everything in the folder. Of an object that is there twice the first counts, by the name of the file, and both
/// are named.
pub(super) fn merged(folder: &Folder) -> Known {
    let mut known = Known::new();
    let mut origin = BTreeMap::<ObjectKey, &str>::new();
    for (name, file) in &folder.files {
        for (key, changes) in &file.objects {
            match known.entry(key.clone()) {
                Entry::Vacant(place) => {
                    place.insert(changes.clone());
                    origin.insert(key.clone(), name);
                }
                Entry::Occupied(mut place) => {
                    let first = origin[key];
                    let message = if first == name {
                        format!("is in {name} more than once; the first is in force")
                    } else {
                        format!("is in {first} and in {name}; the one in {first} is in force")
                    };
                    add(place.get_mut(), Problem { object: key.clone(), field: String::new(), message });
                }
            }
        }
    }
    imply_namespaces(&mut known);
    for (name, file) in &folder.files {
        let object = ObjectKey::cluster(Kind::NetworkPolicy, &folder.path.join(name).display().to_string());
        let problems = file.problems.iter().map(|(field, message)| Problem {
            object: object.clone(),
            field: field.clone(),
            message: message.clone(),
        });
        if let Some(problem) = merged_problems(&object, problems.collect()) {
            known.insert(object, vec![Change::Bad(problem)]);
        }
    }
    known
}

/// Adds a problem to what is told of an object.
fn add(changes: &mut Vec<Change>, problem: Problem) {
    match changes.last_mut() {
        Some(Change::Policy(_, problems)) => problems.push(problem),
        Some(Change::Bad(earlier)) => earlier.message = format!("{}; {}", earlier.message, problem.message),
        _ => changes.push(Change::Bad(problem)),
    }
}

/// A namespace exists when something is in it; without labels of its own it still has its name (S25).
fn imply_namespaces(known: &mut Known) {
    let named: Vec<String> =
        known.keys().filter(|key| !key.namespace.is_empty()).map(|key| key.namespace.clone()).collect();
    for name in named {
        let labels = [(NAME_LABEL.to_owned(), name.clone())].into();
        known.entry(ObjectKey::cluster(Kind::Namespace, &name)).or_insert_with(|| {
            vec![Change::Namespace(Namespace { name, labels, audit: false, deleting: false })]
        });
    }
}
