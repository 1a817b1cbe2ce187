//! The demo comes to its end, or Ctrl-C or SIGTERM do it: whatever it has made by then is gone when it is.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

/// What it prints, early and late, when there is something to leave behind.
const MOMENTS: [&str; 3] = ["Four pods on one node", "No policy: everybody", "A policy is edited"];

/// Processes that descend from one, and the network namespaces that they are in beside ours.
fn made_by(root: u32) -> (BTreeSet<u32>, BTreeSet<String>) {
    let mut found = BTreeSet::from([root]);
    // Parents may come after their children in the list.
    while let Some(more) =
        processes().into_iter().find(|pid| !found.contains(pid) && found.contains(&parent(*pid)))
    {
        found.insert(more);
    }
    let own = network(std::process::id());
    let networks =
        found.iter().map(|pid| network(*pid)).filter(|network| !network.is_empty() && *network != own);
    let networks = networks.collect();
    (found, networks)
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("it is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// 0 for a process that is gone.
fn parent(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may have blanks in it.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().nth(1);
    fields.and_then(|pid| pid.parse().ok()).unwrap_or_default()
}

/// Empty for a process that is gone.
fn network(pid: u32) -> String {
    fs::read_link(format!("/proc/{pid}/ns/net")).map(|link| link.display().to_string()).unwrap_or_default()
}

fn links() -> BTreeSet<String> {
    let entries = fs::read_dir("/sys/class/net").expect("it is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// What has the demo's name where its namespaces, pins and files would be, were they not its own.
fn names() -> BTreeSet<PathBuf> {
    let folders = ["/run", "/run/netns", "/sys/fs/bpf", "/dev/shm"].map(PathBuf::from);
    let entries =
        folders.into_iter().chain([std::env::temp_dir()]).filter_map(|folder| fs::read_dir(folder).ok());
    let paths = entries.flatten().filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.to_string_lossy().contains("cellwall-demo")).collect()
}

/// What is mounted where, as a process sees it; nothing for one that is gone.
fn mounts(pid: u32) -> BTreeSet<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    // Numbers of mounts are given away again, and options of one that stays may change.
    let place = |line: &str| line.split(' ').skip(2).take(3).collect::<Vec<_>>().join(" ");
    table.lines().map(place).collect()
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: the demo needs root");
        return;
    }
    for moment in MOMENTS {
        leaves_nothing(moment, Some((Signal::INT, 130)));
    }
    leaves_nothing(MOMENTS[1], Some((Signal::TERM, 143)));
}

#[test]
fn a_demo_that_comes_to_its_end_leaves_nothing() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: the demo needs root");
        return;
    }
    // All that it makes is there, and it goes on for a while.
    leaves_nothing(MOMENTS[2], None);
}

/// Runs the demo until it says so much, and ends it by a signal, which gives a code, or lets it come to its end.
fn leaves_nothing(moment: &str, end: Option<(Signal, i32)>) {
    let own = std::process::id();
    let (links_before, mounts_before, names_before) = (links(), mounts(own), names());
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"))
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it was built");
    let mut lines = BufReader::new(demo.stdout.take().expect("it is piped")).lines();
    let reached = lines.by_ref().map_while(Result::ok).any(|line| line.contains(moment));
    assert!(reached, "it ended before `{moment}`");
    let (processes, networks) = made_by(demo.id());
    assert!(processes.len() > 1, "unshare and the demo: {processes:?}");
    // What others mount meanwhile is not the demo's.
    let mut mounted: BTreeSet<_> = processes.iter().flat_map(|pid| mounts(*pid)).collect();
    mounted.retain(|mount| !mounts_before.contains(mount));
    assert!(!mounted.is_empty(), "a /proc of its own, at the least");
    // Pins last as long as the file system that they are in.
    assert!(end.is_some() || mounted.iter().any(|mount| mount.ends_with(" /run/bpf")), "{mounted:?}");

    let (code, last) = match end {
        Some((signal, code)) => {
            let group = Pid::from_raw(demo.id().cast_signed()).expect("a process");
            kill_process_group(group, signal).expect("it runs");
            (code, "interrupted; nothing is left behind")
        }
        None => (0, "Done. Everything it made is gone."),
    };
    let rest: String = lines.map_while(Result::ok).collect();
    let status = demo.wait().expect("it is ours");
    assert_eq!(status.code(), Some(code), "{end:?} at `{moment}`: {rest}");
    assert!(rest.contains(last), "{end:?} at `{moment}`: {rest}");

    let alive: Vec<_> = processes.iter().filter(|pid| parent(**pid) != 0).collect();
    assert!(alive.is_empty(), "{end:?} at `{moment}`: {alive:?}");
    let inhabited = self::processes().into_iter().map(network).filter(|network| networks.contains(network));
    assert_eq!(inhabited.count(), 0, "{end:?} at `{moment}`");
    assert_eq!(links(), links_before, "{end:?} at `{moment}`");
    let left: Vec<_> = mounts(own).into_iter().filter(|mount| mounted.contains(mount)).collect();
    assert!(left.is_empty(), "{end:?} at `{moment}`: {left:?}");
    assert_eq!(names(), names_before, "{end:?} at `{moment}`");
}
