//! The source over a real API server, where there is one: what it says is printed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use cellwall_kube::source::{SourceEvent, api, client};
use cellwall_policy::model::{Change, Kind};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::common::line;

/// A list of a large cluster takes a while.
const LONG: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_lists_every_kind() {
    let Some(kubeconfig) = std::env::var_os("CELLWALL_KUBECONFIG") else {
        println!("skipped: CELLWALL_KUBECONFIG names no kubeconfig of a cluster to read");
        return;
    };
    let client = client(Some(Path::new(&kubeconfig)), None).await.expect("the kubeconfig is usable");
    let (sender, mut events) = mpsc::channel(64);
    let source = tokio::spawn(api(client, sender));
    let mut missing = BTreeSet::from(Kind::ALL);
    let mut namespaces = BTreeSet::new();
    while !missing.is_empty() {
        let event = timeout(LONG, events.recv()).await.expect("it answers").expect("it never ends by itself");
        println!("{}", line(&event));
        match event {
            SourceEvent::Change(Change::Listed(kind, _)) | SourceEvent::NotServed(kind) => {
                missing.remove(&kind);
            }
            SourceEvent::Change(Change::Namespace(namespace)) => {
                namespaces.insert(namespace.name);
            }
            SourceEvent::Failed(..) => panic!("{}", line(&event)),
            _ => {}
        }
    }
    assert!(namespaces.contains("kube-system"), "{namespaces:?}");
    source.abort();
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_is_named() {
    let folder = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
    let path = folder.path().join("config");
    let error = client(Some(&path), None).await.err().expect("it is not there").to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
    std::fs::write(&path, "apiVersion: v1\nkind: Config\ncurrent-context: x\n").expect("the folder is ours");
    let error = client(Some(&path), Some("y")).await.err().expect("there is no such context").to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
}
