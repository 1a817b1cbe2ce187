//! The generated code is checked in, so that building needs no compiler of protocol buffers; here it is generated
//! again and compared. `UPDATE_EXPECT=1 cargo test -p cellwall-api --test generated` writes it.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;

const FILES: [&str; 6] = ["agent", "endpoint", "object", "plugin", "policy", "status"];
const PACKAGE: &str = ".cellwall.v1alpha1";

#[test]
fn generated_code_is_what_the_contract_generates() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let proto = crate_dir.join("../../proto");
    let fresh = tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder");
    generate(&proto, fresh.path());

    let stored = crate_dir.join("src/generated");
    for name in ["cellwall.v1alpha1.rs", "cellwall.v1alpha1.serde.rs", "descriptor.bin"] {
        let new = fs::read(fresh.path().join(name)).expect("just generated");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(stored.join(name), &new).expect("the source tree can be written");
        }
        let old = fs::read(stored.join(name)).unwrap_or_default();
        assert!(
            old == new,
            "{name} is not what proto/ generates; run: UPDATE_EXPECT=1 cargo test -p cellwall-api --test generated"
        );
    }
}

#[test]
fn every_file_of_the_contract_is_generated_from() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/cellwall/v1alpha1");
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("the contract is there")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    assert_eq!(names, FILES.map(|file| format!("{file}.proto")));
}

fn generate(proto: &Path, out: &Path) {
    let files: Vec<PathBuf> =
        FILES.iter().map(|file| proto.join(format!("cellwall/v1alpha1/{file}.proto"))).collect();
    let set = protox::Compiler::new([proto])
        .expect("the folder is there")
        .include_imports(true)
        .include_source_info(true)
        .open_files(&files)
        .expect("the contract compiles")
        .file_descriptor_set();

    tonic_prost_build::configure()
        .out_dir(out)
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::pbjson_types")
        .build_transport(false)
        .compile_fds(set.clone())
        .expect("code is generated");

    let mut bare = set;
    for file in &mut bare.file {
        file.source_code_info = None;
    }
    let bare = bare.encode_to_vec();
    pbjson_build::Builder::new()
        .register_descriptors(&bare)
        .expect("descriptors are readable")
        .out_dir(out)
        .emit_fields()
        .build(&[PACKAGE])
        .expect("code is generated");
    fs::write(out.join("descriptor.bin"), bare).expect("the temporary folder can be written");
}
