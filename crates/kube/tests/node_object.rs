//! The resource that the chart installs is the one that the agent writes. `UPDATE_EXPECT=1 cargo test --test node_object`
//! writes it.

use std::fs;
use std::path::Path;

use cellwall_kube::kube::CustomResourceExt;
use cellwall_kube::node_object::CellwallNode;

#[test]
fn the_charts_resource_is_the_agents() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/helm/cellwall/files/cellwallnodes.yaml");
    let body = serde_saphyr::to_string(&CellwallNode::crd()).expect("plain values");
    let fresh = format!(
        "# Of crates/kube/src/node_object.rs; written by its test: UPDATE_EXPECT=1 cargo test --test node_object\n{body}"
    );
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &fresh).expect("the source tree can be written");
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), fresh);
}
