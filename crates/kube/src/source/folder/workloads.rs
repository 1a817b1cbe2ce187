//! Pods of workloads, for when there is no cluster that makes them: what a folder of a repository has are templates.
//!
//! A workload counts as one pod of its own name, with the labels and ports of its template. One that a pod in the
//! folder comes from, or that comes from another one in the folder, does not count: its pods are there.

use std::collections::{BTreeMap, BTreeSet};

use cellwall_policy::model::{Change, Kind, ObjectKey};
use serde_json::{Value, json};

use crate::convert::{Decoded, decode_as};

/// What has a template of pods: group, kind, and where the template is.
const WORKLOADS: [(&str, &str, &str); 7] = [
    ("apps", "Deployment", "/spec/template"),
    ("apps", "StatefulSet", "/spec/template"),
    ("apps", "DaemonSet", "/spec/template"),
    ("apps", "ReplicaSet", "/spec/template"),
    ("", "ReplicationController", "/spec/template"),
    ("batch", "Job", "/spec/template"),
    ("batch", "CronJob", "/spec/jobTemplate/spec/template"),
];

/// Kind, namespace and name.
type Name = (String, String, String);

/// The workloads of a folder.
#[derive(Debug, Default)]
pub(super) struct Workloads {
    templates: Vec<Template>,
    /// Whom each object comes from that comes from a workload.
    owners: BTreeMap<Name, Vec<Name>>,
}

#[derive(Debug)]
struct Template {
    workload: Name,
    /// File that it is in.
    file: String,
    pod: Value,
}

/// A pod that a workload stands for.
#[derive(Debug)]
pub(super) struct Stand {
    /// File that the workload is in.
    pub(super) file: String,
    /// Kind of the workload.
    pub(super) kind: String,
    pub(super) key: ObjectKey,
    pub(super) changes: Vec<Change>,
}

impl Workloads {
    /// Remembers a workload; true when `value` is one. Of a pod it remembers whom it comes from.
    pub(super) fn take(&mut self, value: &Value, file: &str) -> bool {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (group, kind) =
            (text("/apiVersion").rsplit_once('/').map_or("", |(group, _)| group), text("/kind"));
        let found = WORKLOADS.iter().find(|(g, k, _)| (*g, *k) == (group, kind));
        if found.is_none() && (group, kind) != ("", "Pod") {
            return false;
        }
        let namespace = Some(text("/metadata/namespace")).filter(|n| !n.is_empty()).unwrap_or("default");
        let named = |kind: &str, name: &str| (kind.to_owned(), namespace.to_owned(), name.to_owned());
        let this = named(kind, text("/metadata/name"));
        let owners = value.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        let owner = |owner: &Value| {
            let text = |field: &str| owner.get(field).and_then(Value::as_str);
            Some(named(text("kind")?, text("name")?))
        };
        self.owners.insert(this.clone(), owners.into_iter().flatten().filter_map(owner).collect());
        let Some((.., template)) = found else { return false };
        // Scaled to nothing, it has no pods.
        if value.pointer("/spec/replicas").and_then(Value::as_i64) != Some(0) {
            let pod = pod_of(value.pointer(template), &this);
            self.templates.push(Template { workload: this, file: file.to_owned(), pod });
        }
        true
    }

    /// The pods that workloads stand for.
    pub(super) fn stands(self) -> Vec<Stand> {
        let known: BTreeSet<&Name> = self.templates.iter().map(|template| &template.workload).collect();
        let mut present: BTreeSet<&Name> = BTreeSet::new();
        let mut next: Vec<&Name> = self.owners.keys().filter(|(kind, ..)| kind == "Pod").collect();
        while let Some(name) = next.pop() {
            let owners = self.owners.get(name).into_iter().flatten();
            next.extend(owners.filter(|owner| present.insert(owner)));
        }
        let comes_from_another =
            |name: &Name| self.owners.get(name).into_iter().flatten().any(|owner| known.contains(owner));
        let counts = |name: &Name| !present.contains(name) && !comes_from_another(name);
        let stand = |template: &Template| match decode_as(Kind::Pod, template.pod.clone()) {
            Decoded::Object(key, changes) if counts(&template.workload) => {
                let (kind, ..) = &template.workload;
                Some(Stand { file: template.file.clone(), kind: kind.clone(), key, changes })
            }
            _ => None,
        };
        self.templates.iter().filter_map(stand).collect()
    }
}

/// The pod of a template, under the name of its workload.
fn pod_of(template: Option<&Value>, (_, namespace, name): &Name) -> Value {
    let part = |field: &str| template.and_then(|t| t.pointer(field)).cloned().unwrap_or_default();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": namespace,
            "name": name,
            "labels": part("/metadata/labels"),
            "annotations": part("/metadata/annotations"),
        },
        "spec": part("/spec"),
    })
}
