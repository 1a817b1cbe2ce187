//! What anybody may write into an object that anybody may make.

use cellwall_kube::convert::{Decoded, decode};
use cellwall_policy::model::Change;
use serde_json::json;

/// 256 KiB of annotations is what the API server takes; every agent of the cluster keeps what it says about it, and
/// answers it every second.
#[test]
fn what_is_said_about_an_object_is_short_whatever_the_object_says() {
    let long = "x".repeat(250 << 10);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "annotations": {"cellwall.dev/enforcement": long}},
    });
    let Decoded::Object(_, changes) = decode(pod) else { panic!("a pod") };
    let said: usize = changes
        .iter()
        .map(|change| if let Change::Bad(problem) = change { problem.message.len() } else { 0 })
        .sum();
    assert!(said < 1000, "{said} bytes");
}
