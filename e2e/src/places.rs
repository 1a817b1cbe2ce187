//! Where things lie.

use std::path::{Path, PathBuf};

/// Folder of everything that clusters need and leave: binaries, images, and one folder for each running cluster.
pub fn root() -> PathBuf {
    workspace().join("target/cluster")
}

/// Folder of the workspace.
pub fn workspace() -> PathBuf {
    let e2e = Path::new(env!("CARGO_MANIFEST_DIR"));
    e2e.parent().expect("e2e lies in the workspace").to_owned()
}

/// A binary that was built for clusters.
pub fn binary(name: &str) -> PathBuf {
    root().join("bin").join(name)
}

/// The archive of container images.
pub fn images() -> PathBuf {
    root().join("images.tar")
}

/// Folder of one cluster. It exists as long as the cluster: removing it ends the cluster.
pub fn of(cluster: &str) -> PathBuf {
    root().join("up").join(cluster)
}
