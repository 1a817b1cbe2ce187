//! What says where an API server is.

use cellwall_kube::source::client;

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
