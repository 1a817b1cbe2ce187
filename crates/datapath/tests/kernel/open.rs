//! What is pinned is taken over, or refused by name.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cellwall_datapath::{Datapath, OpenError, Settings, remove};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::place::place;

const SHIPPED: [CapabilitySet; 3] = [CapabilitySet::BPF, CapabilitySet::NET_ADMIN, CapabilitySet::PERFMON];

/// Leaves this thread nothing but `rights`.
fn keep_only(rights: CapabilitySet) {
    let sets = CapabilitySets { effective: rights, permitted: rights, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).expect("rights can be given away");
}

fn shipped() -> CapabilitySet {
    SHIPPED.into_iter().fold(CapabilitySet::empty(), |all, one| all | one)
}

fn open(settings: &Settings) -> Datapath {
    Datapath::open(settings)
        .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
}

/// Every pin with the number of its file: one that was made anew has another.
fn files(folder: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let data = fs::symlink_metadata(&path).expect("it is there");
        if data.is_dir() {
            files.extend(self::files(&path));
        }
        files.insert(path, (data.ino(), data.ctime(), data.ctime_nsec()));
    }
    files
}

#[test]
fn the_shipped_rights_are_enough() {
    place("rights", |place| {
        let pod = place.net.pod().expect("a pod");
        keep_only(shipped());
        let mut datapath = open(&place.settings);
        datapath.attach(pod.ifindex).expect("an interface");
        assert!(datapath.attached().expect("links")[&pod.ifindex].first);
        datapath.observe().expect("tables");
        datapath.counters().expect("counters");
        datapath.usage().expect("tables");
        datapath.sweep().expect("connections");
        drop(datapath);
        open(&place.settings).detach(pod.ifindex).expect("it was attached");
    });
}

#[test]
fn a_missing_right_is_named() {
    for (right, name) in SHIPPED.into_iter().zip(["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]) {
        place("rights", move |place| {
            keep_only(shipped() - right);
            match Datapath::open(&place.settings) {
                Err(OpenError::Capabilities { missing }) => assert_eq!(missing, [name]),
                other => panic!("{other:?}"),
            }
        });
    }
}

#[test]
fn what_is_pinned_is_taken_over_without_a_write() {
    place("adopt", |place| {
        let pod = place.net.pod().expect("a pod");
        let first = open(&place.settings);
        first.attach(pod.ifindex).expect("an interface");
        let (programs, secret) = (first.program_ids(), first.secret());
        let tables = first.observe().expect("tables");
        let pins = files(&place.settings.root());
        assert_ne!(secret, [0; 2]);
        drop(first);

        let second = open(&place.settings);
        second.attach(pod.ifindex).expect("it is attached");
        assert_eq!((second.program_ids(), second.secret()), (programs, secret));
        assert_eq!(second.observe().expect("tables"), tables);
        assert_eq!(files(&place.settings.root()), pins);
        assert!(second.attached().expect("links")[&pod.ifindex].first);

        let other = open(&place.other());
        assert_ne!(other.secret(), secret, "two data paths share nothing");
    });
}

#[test]
fn a_new_program_takes_the_place_of_the_old_in_its_link() {
    place("replace", |place| {
        let pod = place.net.pod().expect("a pod");
        let first = open(&place.settings);
        first.attach(pod.ifindex).expect("an interface");
        let (programs, secret) = (first.program_ids(), first.secret());
        let links = files(&place.pins("links"));
        assert_eq!(links.len(), if first.features().tcx { 2 } else { 0 });
        drop(first);
        place.forget_programs();
        let second = open(&place.settings);
        assert_ne!(second.program_ids(), programs);
        assert_eq!(second.secret(), secret);
        assert!(second.attached().expect("links")[&pod.ifindex].first, "the new programs run");
        assert_eq!(files(&place.pins("links")), links, "the links are the same");
        assert!(!place.pins("progs/old").exists(), "nobody runs the old programs");
    });
}

#[test]
fn a_table_that_does_not_fit_is_named() {
    place("tables", |place| {
        let pod = place.net.pod().expect("a pod");
        let first = open(&place.settings);
        first.attach(pod.ifindex).expect("an interface");
        drop(first);
        let mut larger = place.settings.clone();
        larger.capacities.policy = 16_384;
        match Datapath::open(&larger) {
            Err(error @ OpenError::Table { .. }) => {
                let text = error.to_string();
                assert!(text.contains("POLICY has capacity 8192 and 16384 is needed"), "{text}");
                let folder = place.settings.root();
                assert!(
                    text.contains(&format!("`cellwall node cleanup` for {}", folder.display())),
                    "{text}"
                );
                remove(&place.settings).expect("nobody uses it");
            }
            other => panic!("{other:?}"),
        }
        let renewed = open(&larger);
        assert!(renewed.attached().expect("links").is_empty());
        renewed.attach(pod.ifindex).expect("an interface");
    });
}

#[test]
fn a_table_of_another_kind_is_named() {
    place("tables", |place| {
        place.settings.capacities.endpoints = place.settings.capacities.addresses;
        drop(open(&place.settings));
        // Two tables that differ in nothing but their flags.
        let (one, two, aside) =
            (place.pins("maps/ENDPOINTS"), place.pins("maps/ADDRESSES4"), place.pins("maps/aside"));
        fs::rename(&one, &aside).expect("a pin");
        fs::rename(&two, &one).expect("a pin");
        fs::rename(&aside, &two).expect("a pin");
        match Datapath::open(&place.settings) {
            Err(OpenError::Table { table, field, .. }) => {
                assert_eq!((table.as_str(), field), ("ADDRESSES4", "flags"));
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn only_one_acts_and_only_on_a_bpf_file_system() {
    place("lock", |place| {
        let first = open(&place.settings);
        let impatient = Settings { wait: None, ..place.settings.clone() };
        assert!(matches!(Datapath::open(&impatient), Err(OpenError::Locked { .. })));
        drop(first);
        drop(open(&place.settings));
        let elsewhere = Settings { bpffs: std::env::temp_dir(), ..place.settings.clone() };
        assert!(matches!(Datapath::open(&elsewhere), Err(OpenError::NotBpffs { .. })));
        for name in ["", "..", "a/b", "a.b"] {
            let named = Settings { pin_name: name.to_owned(), ..place.settings.clone() };
            assert!(matches!(Datapath::open(&named), Err(OpenError::PinName { .. })), "{name:?}");
        }
        // Somebody else's folder.
        let theirs = Settings { pin_name: "theirs".to_owned(), ..place.settings.clone() };
        fs::create_dir(theirs.root()).expect("a BPF file system");
        std::os::unix::fs::chown(theirs.root(), Some(12_345), None).expect("root");
        match Datapath::open(&theirs) {
            Err(OpenError::Foreign { owner, .. }) => assert_eq!(owner, 12_345),
            other => panic!("{other:?}"),
        }
    });
}

/// The kernel follows at most this many instructions of a program.
const VERIFIER_LIMIT: u32 = 1_000_000;

#[test]
fn the_verifier_has_room() {
    place("verifier", |place| {
        drop(open(&place.settings));
        for (path, _) in files(&place.pins("progs")) {
            let Ok(info) = aya::programs::ProgramInfo::from_pin(&path) else { continue };
            let followed = info.verified_instruction_count().expect("the kernel says");
            println!("{}: {followed} instructions followed", path.display());
            assert!(
                followed < VERIFIER_LIMIT / 100 * 76,
                "{}: {followed} leave no room for other kernels",
                path.display()
            );
        }
    });
}
