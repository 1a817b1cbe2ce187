//! Container images as OCI archives, as `ctr images import`, `podman load` and `skopeo` take them.
//!
//! The same content makes the same bytes, wherever and whenever: files come in the order in which they are added, belong
//! to root, and have one time, which the caller chooses. No container builder is needed, and none is asked.

mod layer;
mod spec;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use ring::digest::{SHA256, digest};
use serde::Serialize;

pub use layer::{Compression, Layer};
pub use spec::Process;

use spec::{CONFIG, Config, Descriptor, INDEX, Index, MANIFEST, Manifest, Platform, RootFs};

/// An image: a name, and for each architecture what runs there.
pub struct Image {
    /// With its tag, as pods name it.
    pub name: String,
    /// When it was made, in seconds since 1970; the images of one source should have one time.
    pub created_s: i64,
    /// One for each architecture.
    pub variants: Vec<Variant>,
}

/// What an image is on one architecture.
pub struct Variant {
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// Its files.
    pub layer: Layer,
    /// What is started.
    pub process: Process,
}

/// Writes the images into one archive and returns their digests. What they have in common is in it once.
pub fn write(to: &Path, images: Vec<Image>) -> io::Result<Vec<String>> {
    let mut blobs = BTreeMap::new();
    let mut roots = Vec::new();
    for image in images {
        roots.push(put_image(&mut blobs, image)?);
    }
    let digests = roots.iter().map(|root| root.digest.clone()).collect();
    // A name of its own until it is whole, so that an interrupted run leaves no half archive.
    let unfinished = to.with_extension("unfinished");
    let mut archive = tar::Builder::new(File::create(&unfinished)?);
    add(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add(&mut archive, "index.json", &json(&Index::of(None, roots)))?;
    for (digest, blob) in blobs {
        add(&mut archive, &format!("blobs/{}", digest.replace(':', "/")), &blob)?;
    }
    archive.into_inner()?;
    fs::rename(&unfinished, to)?;
    Ok(digests)
}

/// By their digests, and so in an order that depends on nothing else.
type Blobs = BTreeMap<String, Vec<u8>>;

fn put_image(blobs: &mut Blobs, image: Image) -> io::Result<Descriptor> {
    let mut manifests = Vec::new();
    for variant in image.variants {
        let platform = Platform { architecture: variant.architecture.clone(), os: "linux" };
        let manifest = put_variant(blobs, image.created_s, variant)?;
        manifests.push(Descriptor { platform: Some(platform), ..manifest });
    }
    // Of one architecture it needs no index, and some tools take none.
    let root = match manifests.len() {
        1 => manifests.remove(0),
        _ => put(blobs, INDEX, json(&Index::of(Some(INDEX), manifests))),
    };
    // The first is for containerd, the second, which is only the tag, is the standard's.
    let tag = image.name.rsplit_once(':').map_or("latest", |(_, tag)| tag).to_owned();
    let annotations = BTreeMap::from([
        ("io.containerd.image.name", image.name),
        ("org.opencontainers.image.ref.name", tag),
    ]);
    Ok(Descriptor { annotations, ..root })
}

fn put_variant(blobs: &mut Blobs, created_s: i64, variant: Variant) -> io::Result<Descriptor> {
    let created = jiff::Timestamp::from_second(created_s).map_err(io::Error::other)?.to_string();
    let layer = variant.layer.finish()?;
    let config = Config {
        created,
        architecture: variant.architecture,
        os: "linux",
        config: variant.process,
        rootfs: RootFs { kind: "layers", diff_ids: [layer.unpacked_digest] },
    };
    let config = put(blobs, CONFIG, json(&config));
    let layers = [put(blobs, layer.media_type, layer.blob)];
    let manifest = Manifest { schema_version: 2, media_type: MANIFEST, config, layers };
    Ok(put(blobs, MANIFEST, json(&manifest)))
}

fn put(blobs: &mut Blobs, media_type: &'static str, blob: Vec<u8>) -> Descriptor {
    let descriptor = Descriptor {
        media_type,
        digest: sha256(&blob),
        size: blob.len(),
        platform: None,
        annotations: BTreeMap::new(),
    };
    blobs.insert(descriptor.digest.clone(), blob);
    descriptor
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data")
}

fn add<W: io::Write>(archive: &mut tar::Builder<W>, name: &str, content: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, name, content)
}

fn sha256(blob: &[u8]) -> String {
    let digest = digest(&SHA256, blob);
    digest.as_ref().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}
