//! Our entry in a folder of CNI configurations that another tool writes to, too.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use cellwall_agent::chain::{Chained, keep};
use cellwall_agent::run::Input;
use cellwall_cni::entry::Entry;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_secs(30);
const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp"}]}"#;

/// As tools that know what they do write a file.
fn put(list: &Path) {
    let fresh = list.with_extension("fresh");
    fs::write(&fresh, LIST).expect("ours");
    fs::rename(&fresh, list).expect("ours");
}

#[tokio::test]
async fn our_entry_comes_and_comes_back_and_is_reported() {
    let folder = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
    let list = folder.path().join("10-pods.conflist");
    let (inputs, mut received) = mpsc::channel(16);
    tokio::spawn(keep(folder.path().to_owned(), Entry::default(), inputs));
    let mut until = async |wanted: &dyn Fn(&Chained) -> bool| loop {
        match timeout(SOON, received.recv()).await.expect("in time") {
            Some(Input::Chained(chained)) if wanted(&chained) => return chained,
            Some(Input::Chained(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    let out = until(&|chained| matches!(chained, Chained::Out(_))).await;
    assert!(matches!(out, Chained::Out(why) if why.contains("has no CNI configuration yet")));
    put(&list);
    until(&|chained| *chained == Chained::In(list.clone())).await;
    assert!(fs::read_to_string(&list).expect("there").contains("cellwall-cni"));

    // The first time at once, then after a while, and said.
    put(&list);
    let start = Instant::now();
    while !fs::read_to_string(&list).expect("there").contains("cellwall-cni") {
        assert!(start.elapsed() < SOON, "it comes back");
        sleep(Duration::from_millis(20)).await;
    }
    put(&list);
    let out = until(&|chained| matches!(chained, Chained::Out(_))).await;
    assert!(matches!(out, Chained::Out(why) if why.contains("another tool takes our entry out")));
    until(&|chained| *chained == Chained::In(list.clone())).await;
}
