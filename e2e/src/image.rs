//! The container images of the tests: two, out of one static binary.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use cellwall_oci::{Compression, Image, Layer, Process, Variant};

/// Changes when [`pack`] makes something else out of the same binary.
pub const LAYOUT: &str = "images 2";
/// Image of the programs that tests run in pods.
pub const AGNHOST: &str = "cellwall.dev/e2e/agnhost:1";
/// Image of the process that holds a pod's namespaces.
pub const PAUSE: &str = "cellwall.dev/e2e/pause:1";

/// Writes both images, which share their one layer: `/agnhost`.
pub fn pack(agnhost: &Path, to: &Path) -> Result<()> {
    let program = fs::read(agnhost).with_context(|| format!("cannot read {}", agnhost.display()))?;
    let image = |name: &str, entrypoint: &[&str]| -> Result<Image> {
        let process = Process {
            env: vec!["PATH=/".to_owned()],
            entrypoint: entrypoint.iter().map(|word| (*word).to_owned()).collect(),
            ..Process::default()
        };
        let variant = Variant { architecture: architecture().to_owned(), layer: layer(&program)?, process };
        Ok(Image { name: name.to_owned(), created_s: 0, variants: vec![variant] })
    };
    let images = vec![image(AGNHOST, &["/agnhost"])?, image(PAUSE, &["/agnhost", "pause"])?];
    cellwall_oci::write(to, images).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(())
}

/// The binary and the folders that a container needs as mount points. It never travels, so it is not compressed.
fn layer(program: &[u8]) -> Result<Layer> {
    let mut layer = Layer::new(Compression::None, 0);
    for folder in ["dev", "etc", "proc", "run", "sys", "tmp", "var"] {
        layer.folder(folder, if folder == "tmp" { 0o1777 } else { 0o755 })?;
    }
    layer.file("agnhost", 0o755, program)?;
    Ok(layer)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
