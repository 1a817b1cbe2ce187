//! From a cluster that fails to the least of it that still does.

use cellwall_oracle::{Flow, Objects};
use serde_json::Value;

/// Leaves out whatever can be left out while `fails` stays true of the rest and the flow.
///
/// Works on the objects as documents, so nothing that an object can hold is forgotten: every entry of every list and
/// map is left out once, whole objects first, until no single one can go any more. What gives an object its name, and
/// the parts that only make sense together, stay. Where nothing fails, nothing is left out.
#[must_use]
pub fn shrink(objects: &Objects, flow: &Flow, fails: impl Fn(&Objects, &Flow) -> bool) -> Objects {
    let mut least = objects.clone();
    if !fails(&least, flow) {
        return least;
    }
    loop {
        let before = least.clone();
        let mut document = least.to_document();
        let mut paths = paths(&document);
        // Lists from their end, so that the paths that are left stay right; short paths, which are whole objects, first.
        paths.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| b.cmp(a)));
        for path in paths {
            let mut smaller = document.clone();
            if !remove(&mut smaller, &path) {
                continue;
            }
            let Ok(candidate) = Objects::from_document(smaller.clone()) else { continue };
            if candidate != least && fails(&candidate, flow) {
                (document, least) = (smaller, candidate);
            }
        }
        if least == before {
            return least;
        }
    }
}

/// One step into a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Key(String),
    Index(usize),
}

const KEPT: [&str; 16] = [
    "address",
    "addressType",
    "cidr",
    "containerPort",
    "ip",
    "key",
    "kubernetes.io/service-name",
    "metadata",
    "name",
    "namespace",
    "nodeName",
    "operator",
    "phase",
    "spec",
    "status",
    "type",
];

fn paths(document: &Value) -> Vec<Vec<Step>> {
    let mut found = Vec::new();
    let mut open = vec![(Vec::new(), document)];
    while let Some((path, value)) = open.pop() {
        let children: Vec<(Step, &Value)> = match value {
            Value::Object(map) => map.iter().map(|(key, value)| (Step::Key(key.clone()), value)).collect(),
            Value::Array(list) => {
                list.iter().enumerate().map(|(index, value)| (Step::Index(index), value)).collect()
            }
            _ => continue,
        };
        for (step, child) in children {
            let kept = matches!(&step, Step::Key(key) if KEPT.contains(&key.as_str()));
            let mut below = path.clone();
            below.push(step);
            if !kept {
                found.push(below.clone());
            }
            open.push((below, child));
        }
    }
    found
}

/// False if the path is gone, together with something above it.
fn remove(document: &mut Value, path: &[Step]) -> bool {
    let (last, above) = path.split_last().expect("the whole document is no entry");
    let parent = above.iter().try_fold(document, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Index(index) => value.get_mut(index),
    });
    match (parent, last) {
        (Some(Value::Object(map)), Step::Key(key)) => map.remove(key).is_some(),
        (Some(Value::Array(list)), Step::Index(index)) if *index < list.len() => {
            list.remove(*index);
            true
        }
        _ => false,
    }
}
