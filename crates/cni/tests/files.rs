//! Our entry in a real folder of configurations.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use cellwall_cni::entry::Entry;
use cellwall_cni::files::{FilesError, Installed, install, installed_file, uninstall};
use tempfile::TempDir;

const LIST: &str = "{\"cniVersion\": \"0.3.1\", \"name\": \"pods\",\n \"plugins\": [\n  {\"type\": \"ptp\", \"mtu\": 1.5e3}\n ]}\n";

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("cellwall-").tempdir().expect("a temporary folder")
}

fn put(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).expect("the folder is ours");
    path
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("it is there")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("it is there");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("readable").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn an_install_and_an_uninstall_leave_every_byte_as_it_was() {
    let folder = folder();
    let list = put(folder.path(), "10-pods.conflist", LIST);
    let second = put(folder.path(), "20-other.conflist", LIST);
    fs::set_permissions(&list, fs::Permissions::from_mode(0o640)).expect("ours");
    let entry = Entry { installed_file: Some(installed_file(folder.path())), ..Entry::default() };

    let installed = install(folder.path(), &entry).expect("a list");
    assert_eq!(installed, Installed { path: list.clone(), changed: true });
    assert!(text(&list).contains(&entry.to_json()), "{}", text(&list));
    assert_eq!(fs::metadata(&list).expect("there").mode() & 0o7777, 0o640, "same mode");
    assert_eq!(text(&second), LIST, "a runtime reads the first one alone");
    assert_eq!(names(folder.path()), ["10-pods.conflist", "20-other.conflist", "cellwall.installed"]);

    let inode = |path: &Path| fs::metadata(path).expect("there").ino();
    let before = inode(&list);
    assert_eq!(
        install(folder.path(), &entry).expect("a list"),
        Installed { path: list.clone(), changed: false }
    );
    assert_eq!(inode(&list), before, "what is right is not written");

    assert_eq!(uninstall(folder.path()).expect("ours"), std::slice::from_ref(&list));
    assert_eq!(text(&list), LIST);
    assert_eq!(fs::metadata(&list).expect("there").mode() & 0o7777, 0o640);
    assert_eq!(names(folder.path()), ["10-pods.conflist", "20-other.conflist"], "nothing is left");
    assert!(uninstall(folder.path()).expect("twice is fine").is_empty());
}

#[test]
fn the_first_that_can_be_parsed_is_the_one_and_uninstall_looks_at_all() {
    let folder = folder();
    put(folder.path(), "00-half.conflist", "{\"plugins\": [");
    put(folder.path(), "01-notes.txt", LIST);
    fs::create_dir(folder.path().join("02-folder.conflist")).expect("ours");
    let second = put(folder.path(), "20-pods.conflist", LIST);
    let entry = Entry::default();
    assert_eq!(install(folder.path(), &entry).expect("a list").path, second);
    // Another tool puts its own before it; runtimes move there, and so do we.
    let first = put(folder.path(), "05-new.conflist", LIST);
    assert_eq!(install(folder.path(), &entry).expect("a list").path, first);
    let mut changed = uninstall(folder.path()).expect("ours");
    changed.sort();
    assert_eq!(changed, [first.clone(), second.clone()]);
    assert_eq!((text(&first), text(&second)), (LIST.to_owned(), LIST.to_owned()));
}

#[test]
fn what_cannot_be_changed_is_named_and_left_alone() {
    let entry = Entry::default();
    let empty = folder();
    let error = install(empty.path(), &entry).expect_err("there is none");
    assert!(matches!(error, FilesError::Nothing { .. }), "{error}");
    assert!(installed_file(empty.path()).exists(), "from the first moment on");

    let single = folder();
    let path = put(single.path(), "10-bridge.conf", "{\"cniVersion\": \"0.3.1\", \"type\": \"bridge\"}");
    let error = install(single.path(), &entry).expect_err("no list").to_string();
    assert!(error.contains("10-bridge.conf") && error.contains("make it a list"), "{error}");
    assert_eq!(text(&path), "{\"cniVersion\": \"0.3.1\", \"type\": \"bridge\"}");

    let linked = folder();
    let elsewhere = put(empty.path(), "list", LIST);
    symlink(&elsewhere, linked.path().join("10-pods.conflist")).expect("ours");
    let error = install(linked.path(), &entry).expect_err("a link").to_string();
    assert!(error.contains("is a link"), "{error}");
    assert_eq!(text(&elsewhere), LIST);

    let error = install(Path::new("/nonexistent/net.d"), &entry).expect_err("no folder").to_string();
    assert!(error.contains("/nonexistent"), "{error}");
}

/// An agent that is told to let go puts nothing back meanwhile.
#[test]
fn on_a_disabled_node_nothing_is_put_in() {
    let folder = folder();
    let list = put(folder.path(), "10-pods.conflist", LIST);
    put(folder.path(), "cellwall.disabled", "");
    let error = install(folder.path(), &Entry::default()).expect_err("disabled");
    assert!(matches!(error, FilesError::Disabled), "{error}");
    assert_eq!(text(&list), LIST);
    assert_eq!(names(folder.path()), ["10-pods.conflist", "cellwall.disabled"]);
}

#[test]
fn what_a_crash_has_left_is_in_nobodys_way() {
    let folder = folder();
    let list = put(folder.path(), "10-pods.conflist", LIST);
    let target = put(folder.path(), "precious", "precious");
    symlink(&target, folder.path().join(".10-pods.conflist.cellwall-new")).expect("ours");
    assert!(install(folder.path(), &Entry::default()).expect("a list").changed);
    assert_eq!(text(&target), "precious", "a link is not followed");
    assert!(text(&list).contains("cellwall-cni"));
    assert_eq!(names(folder.path()), ["10-pods.conflist", "cellwall.installed", "precious"]);
}
