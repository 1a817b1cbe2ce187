//! Packs container images out of one static binary: an OCI archive, as `ctr images import` takes it.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

/// Changes when [`pack`] makes something else out of the same binary.
pub const LAYOUT: &str = "images 1";
/// Image of the programs that tests run in pods.
pub const AGNHOST: &str = "cellwall.dev/e2e/agnhost:1";
/// Image of the process that holds a pod's namespaces.
pub const PAUSE: &str = "cellwall.dev/e2e/pause:1";

/// Writes both images, which share their one layer: `/agnhost`.
pub fn pack(agnhost: &Path, to: &Path) -> Result<()> {
    let layer = layer(agnhost).with_context(|| format!("cannot pack {}", agnhost.display()))?;
    let mut blobs = Vec::new();
    let mut manifests = Vec::new();
    for (name, entrypoint) in [(AGNHOST, json!(["/agnhost"])), (PAUSE, json!(["/agnhost", "pause"]))] {
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Entrypoint": entrypoint, "Env": ["PATH=/"]},
            "rootfs": {"type": "layers", "diff_ids": [sha256(&layer)]},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["annotations"] = json!({"io.containerd.image.name": name});
        manifests.push(entry);
        blobs.extend([config, manifest]);
    }
    let index = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
    write(to, &index, &[blobs, vec![layer]].concat())
        .with_context(|| format!("cannot write {}", to.display()))
}

fn write(to: &Path, index: &str, blobs: &[Vec<u8>]) -> Result<()> {
    // A name of its own until it is whole, so that an interrupted run leaves no half archive.
    let unfinished = to.with_extension("unfinished");
    let mut archive = tar::Builder::new(File::create(&unfinished)?);
    add(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add(&mut archive, "index.json", index.as_bytes())?;
    for blob in blobs {
        add(&mut archive, &format!("blobs/{}", sha256(blob).replace(':', "/")), blob)?;
    }
    archive.into_inner()?;
    fs::rename(&unfinished, to)?;
    Ok(())
}

/// The binary and the folders that a container needs as mount points.
fn layer(agnhost: &Path) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for folder in ["dev", "etc", "proc", "run", "sys", "tmp", "var"] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(if folder == "tmp" { 0o1777 } else { 0o755 });
        header.set_size(0);
        archive.append_data(&mut header, folder, std::io::empty())?;
    }
    add(&mut archive, "agnhost", &fs::read(agnhost)?)?;
    Ok(archive.into_inner()?)
}

fn add<W: Write>(archive: &mut tar::Builder<W>, name: &str, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o755);
    header.set_size(content.len() as u64);
    Ok(archive.append_data(&mut header, name, content)?)
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(blob), "size": blob.len()})
}

fn sha256(blob: &[u8]) -> String {
    let digest = digest(&SHA256, blob);
    digest.as_ref().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
