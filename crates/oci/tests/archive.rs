//! Archives of small images.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use cellwall_oci::{Compression, Image, Layer, Process, Variant, write};
use serde_json::Value;

/// A folder with one program, a link to it, and a text.
fn root(folder: &Path) {
    fs::create_dir(folder.join("bin")).expect("a folder");
    fs::write(folder.join("bin/b"), "program").expect("a file");
    fs::set_permissions(folder.join("bin/b"), fs::Permissions::from_mode(0o4700)).expect("a mode");
    symlink("b", folder.join("bin/a")).expect("a link");
    fs::write(folder.join("text"), "words").expect("a file");
    fs::set_permissions(folder.join("text"), fs::Permissions::from_mode(0o600)).expect("a mode");
}

fn image(folder: &Path, architectures: &[&str]) -> Image {
    let variant = |architecture: &&str| {
        let mut layer = Layer::new(Compression::Gzip, 86_400);
        layer.tree(folder).expect("readable files");
        let process = Process { entrypoint: vec!["/bin/b".to_owned()], ..Process::default() };
        Variant { architecture: (*architecture).to_owned(), layer, process }
    };
    let variants = architectures.iter().map(variant).collect();
    Image { name: "example.org/a:1".to_owned(), created_s: 86_400, variants }
}

/// The files of an archive.
fn read(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("its content");
        files.insert(name, content);
    }
    files
}

fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().expect("a digest");
    let blob = &files[&format!("blobs/{}", digest.replace(':', "/"))];
    assert_eq!(descriptor["size"], blob.len());
    blob
}

fn document(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

fn packed(architectures: &[&str]) -> (Vec<String>, Vec<u8>) {
    let folder = tempfile::tempdir().expect("a folder");
    root(folder.path());
    let to = tempfile::tempdir().expect("a folder");
    let digests = write(&to.path().join("image.tar"), vec![image(folder.path(), architectures)]);
    (digests.expect("an archive"), fs::read(to.path().join("image.tar")).expect("a file"))
}

#[test]
fn the_same_files_make_the_same_archive() {
    assert_eq!(packed(&["amd64"]), packed(&["amd64"]));
}

#[test]
fn an_image_of_one_architecture_is_a_manifest() {
    let (digests, archive) = packed(&["amd64"]);
    let files = read(&archive);
    let index = document(&files["index.json"]);
    let root = &index["manifests"][0];
    assert_eq!(root["digest"], *digests[0]);
    assert_eq!(root["platform"]["architecture"], "amd64");
    assert_eq!(root["annotations"]["io.containerd.image.name"], "example.org/a:1");
    assert_eq!(root["annotations"]["org.opencontainers.image.ref.name"], "1");
    let manifest = document(blob(&files, root));
    let config = document(blob(&files, &manifest["config"]));
    assert_eq!(config["created"], "1970-01-02T00:00:00Z");
    assert_eq!(config["config"]["Entrypoint"][0], "/bin/b");

    let mut layer = Vec::new();
    let packed = blob(&files, &manifest["layers"][0]);
    flate2::read::GzDecoder::new(packed).read_to_end(&mut layer).expect("gzip");
    let mut entries = Vec::new();
    for entry in tar::Archive::new(&layer[..]).entries().expect("an archive") {
        let entry = entry.expect("an entry");
        let header = entry.header();
        assert_eq!(
            (header.uid().ok(), header.gid().ok(), header.mtime().ok()),
            (Some(0), Some(0), Some(86_400))
        );
        entries.push((entry.path().expect("a name").display().to_string(), header.mode().expect("a mode")));
    }
    let entries: Vec<(&str, u32)> = entries.iter().map(|(name, mode)| (name.as_str(), *mode)).collect();
    // By name; nothing runs with more rights than who runs it.
    assert_eq!(entries, [("bin/", 0o755), ("bin/a", 0o777), ("bin/b", 0o755), ("text", 0o644)]);
}

#[test]
fn an_image_of_two_is_an_index() {
    let (digests, archive) = packed(&["amd64", "arm64"]);
    let files = read(&archive);
    let root = &document(&files["index.json"])["manifests"][0];
    assert_eq!(root["digest"], *digests[0]);
    let index = document(blob(&files, root));
    let architectures: Vec<&Value> =
        index["manifests"].as_array().expect("two").iter().map(|m| &m["platform"]["architecture"]).collect();
    assert_eq!(architectures, ["amd64", "arm64"]);
    // The layers are the same here, so there is one, beside two of every document and the index.
    assert_eq!(files.keys().filter(|name| name.starts_with("blobs/")).count(), 1 + 2 + 2 + 1);
}
