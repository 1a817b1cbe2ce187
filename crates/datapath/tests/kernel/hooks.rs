//! Where the programs are, and how they get there.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::Command;
use std::{fs, io};

use cellwall_datapath::{Attach, Attached, Datapath, Settings};

use crate::place::{Place, place};

fn open(settings: &Settings) -> Datapath {
    Datapath::open(settings).expect("a data path")
}

/// True, and said so, where the kernel has no tcx.
fn without_tcx(datapath: &Datapath) -> bool {
    let without = !datapath.features().tcx;
    if without {
        println!("skipped: {} has no tcx", datapath.features().kernel);
    }
    without
}

/// What `tc` says of an interface.
pub(crate) fn show(place: &Place, arguments: &[&str]) -> String {
    let mut tc = Command::new("tc");
    tc.args(arguments);
    let output = place.net.host.run(|| tc.output()).expect("iproute2");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn count(place: &Place, kind: &str) -> usize {
    fs::read_dir(place.pins(kind)).expect("a folder").count()
}

#[test]
fn ours_is_first_whoever_was_there_before() {
    place("hooks", |place| {
        let pod = place.net.pod().expect("a pod");
        let theirs = open(&place.other());
        if without_tcx(&theirs) {
            return;
        }
        let ours = open(&place.settings);
        theirs.attach(pod.ifindex).expect("an interface");
        ours.attach(pod.ifindex).expect("an interface");
        assert_eq!(ours.attached().expect("links")[&pod.ifindex], Attached { kind: "tcx", first: true });
        assert_eq!(theirs.attached().expect("links")[&pod.ifindex], Attached { kind: "tcx", first: false });
        ours.detach(pod.ifindex).expect("it was attached");
        assert!(ours.attached().expect("links").is_empty());
        assert!(theirs.attached().expect("links")[&pod.ifindex].first);
        ours.detach(pod.ifindex).expect("nothing to do is fine");
    });
}

/// Somebody's XDP program that lets everything pass, on an interface until this is dropped. By `bpf(2)`:
/// `BPF_PROG_LOAD` (5) and `BPF_LINK_CREATE` (28).
fn xdp(ifindex: u32) -> OwnedFd {
    let bpf = |command: u32, attr: &[u64]| {
        // JUSTIFICATION: libc has no wrapper for bpf(2), and aya loads XDP programs out of objects only.
        // SAFETY: the kernel reads the bytes of `attr` and, of a program, the instructions and the license that it points to; all of
        // them outlive the call, and it writes nothing.
        #[expect(unsafe_code, reason = "bpf(2)")]
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of_val(attr)) };
        let fd = i32::try_from(result).ok().filter(|fd| *fd >= 0);
        let fd = fd.unwrap_or_else(|| panic!("command {command}: {}", io::Error::last_os_error()));
        // JUSTIFICATION: what the kernel returns is a number.
        // SAFETY: both commands return a new descriptor, which nobody else has.
        #[expect(unsafe_code, reason = "a descriptor of our own")]
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        owned
    };
    // r0 = XDP_PASS; exit
    let code: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let program = bpf(5, &[pair(6, 2), code.as_ptr() as u64, c"GPL".as_ptr() as u64, 0, 0, 0]);
    // As BPF_XDP, in generic mode, which every interface has.
    bpf(28, &[pair(u32::try_from(program.as_raw_fd()).expect("positive"), ifindex), pair(37, 2)])
}

#[test]
fn an_xdp_program_on_a_pods_interface_is_before_ours() {
    place("hooks", |place| {
        let [pod, other] = [(); 2].map(|()| place.net.pod().expect("a pod"));
        let datapath = open(&place.settings);
        datapath.attach(pod.ifindex).expect("an interface");
        datapath.attach(other.ifindex).expect("an interface");
        let first = || {
            let attached = datapath.attached().expect("links");
            [&pod, &other].map(|pod| attached[&pod.ifindex].first)
        };
        assert_eq!(first(), [true, true]);
        let link = xdp(pod.ifindex);
        assert_eq!(first(), [false, true]);
        drop(link);
        assert_eq!(first(), [true, true]);
    });
}

/// Why filters are taken off before their pins: without those nobody knows any more whose they are.
#[test]
fn filters_outlive_their_pins_and_are_nobodys_then() {
    place("hooks", |place| {
        place.settings.attach = Attach::Clsact;
        let pod = place.net.pod().expect("a pod");
        open(&place.settings).attach(pod.ifindex).expect("an interface");
        fs::remove_dir_all(place.settings.root()).expect("a folder of ours");
        assert!(show(place, &["filter", "show", "dev", &pod.interface, "ingress"]).contains("bpf"));
        let refused = open(&place.settings).attach(pod.ifindex).expect_err("another's filter is there");
        assert!(refused.to_string().contains("in the place of another's"), "{refused}");
    });
}

#[test]
fn a_pin_that_is_gone_is_made_again_and_nothing_is_detached() {
    place("hooks", |place| {
        let pod = place.net.pod().expect("a pod");
        let datapath = open(&place.settings);
        if without_tcx(&datapath) {
            return;
        }
        datapath.attach(pod.ifindex).expect("an interface");
        for pin in fs::read_dir(place.pins("links")).expect("a folder") {
            fs::remove_file(pin.expect("an entry").path()).expect("a pin");
        }
        let hook = Attached { kind: "tcx", first: true };
        assert_eq!(datapath.attached().expect("links")[&pod.ifindex], hook);
        assert_eq!(count(place, "links"), 2);
        // With their folder: the links go on without pins.
        let aside = place.settings.folder().join("aside");
        fs::rename(place.pins("links"), &aside).expect("a folder");
        assert_eq!(datapath.attached().expect("links")[&pod.ifindex], hook);
        fs::rename(&aside, place.pins("links")).expect("a folder");
        drop(datapath);
        assert_eq!(open(&place.settings).attached().expect("links")[&pod.ifindex], hook);
    });
}

#[test]
fn half_a_hook_is_none() {
    place("hooks", |place| {
        let pod = place.net.pod().expect("a pod");
        let datapath = open(&place.settings);
        if without_tcx(&datapath) {
            return;
        }
        datapath.attach(pod.ifindex).expect("an interface");
        drop(datapath);
        fs::remove_file(place.pins(&format!("links/{}-ingress", pod.ifindex))).expect("a pin");
        let datapath = open(&place.settings);
        assert!(datapath.attached().expect("links").is_empty());
        // The kernel may still be ending the other link.
        datapath.attach(pod.ifindex).expect("it is put there again");
        assert_eq!(datapath.attached().expect("links").len(), 1);
    });
}

/// With its links where there is tcx, its filters where there is none.
#[test]
fn an_interface_that_is_gone_leaves_nothing() {
    place("hooks", |place| {
        let pod = place.net.pod().expect("a pod");
        let ifindex = pod.ifindex;
        let datapath = open(&place.settings);
        let links = if datapath.features().tcx { 2 } else { 0 };
        assert!(datapath.attach(9_999).expect_err("no such interface").is_gone());
        assert_eq!(count(place, "links"), 0);
        datapath.attach(ifindex).expect("an interface");
        assert_eq!(count(place, "links"), links);
        place.net.remove(pod).expect("it was there");
        assert!(datapath.attached().expect("links").is_empty());
        assert_eq!(count(place, "links"), 0);

        // Another with the same index is another.
        let again = format!("link add again index {ifindex} type veth peer name there");
        place.net.host.ip(&[&again]).expect("a link");
        datapath.attach(ifindex).expect("an interface");
        place.net.host.ip(&["link delete again", &again]).expect("a link");
        assert!(datapath.attached().expect("links").is_empty());
        datapath.attach(ifindex).expect("an interface");
        assert_eq!(datapath.attached().expect("links").len(), 1);

        // While no agent runs.
        drop(datapath);
        place.net.host.ip(&["link delete again"]).expect("it was there");
        drop(open(&place.settings));
        assert_eq!(count(place, "links"), 0);
    });
}

#[test]
fn without_tcx_a_filter_does() {
    place("clsact", |place| {
        place.settings.attach = Attach::Clsact;
        let pod = place.net.pod().expect("a pod");
        let qdiscs = |place: &Place| show(place, &["qdisc", "show", "dev", &pod.interface]);
        let first = open(&place.settings);
        first.attach(pod.ifindex).expect("an interface");
        let hook = Attached { kind: "clsact", first: true };
        assert_eq!(first.attached().expect("filters")[&pod.ifindex], hook);
        assert_eq!(count(place, "links"), 0);
        assert!(first.attach(9_999).expect_err("no such interface").is_gone());
        drop(first);

        // The filter stays, and gets the programs of the next version in place.
        place.forget_programs();
        let second = open(&place.settings);
        assert_eq!(second.attached().expect("filters")[&pod.ifindex], hook);
        second.attach(pod.ifindex).expect("it is attached");
        assert!(qdiscs(place).contains("clsact"));
        second.detach(pod.ifindex).expect("it was attached");
        assert!(second.attached().expect("filters").is_empty());
        assert!(!qdiscs(place).contains("clsact"), "nothing is left");
        second.detach(pod.ifindex).expect("nothing to do is fine");
    });
}

#[test]
fn filters_of_others_stay() {
    place("clsact", |place| {
        place.settings.attach = Attach::Clsact;
        let pod = place.net.pod().expect("a pod");
        let filters = |place: &Place| show(place, &["filter", "show", "dev", &pod.interface, "ingress"]);
        let add = |place: &Place, priority: &str| {
            let dev = ["filter", "add", "dev", &pod.interface, "ingress", "protocol", "all"];
            let all = ["priority", priority, "u32", "match", "u32", "0", "0", "classid", "1:1"];
            show(place, &[&dev[..], &all].concat());
        };
        let datapath = open(&place.settings);
        datapath.attach(pod.ifindex).expect("an interface");
        add(place, "2");
        let hook = Attached { kind: "clsact", first: true };
        assert_eq!(datapath.attached().expect("filters")[&pod.ifindex], hook);
        datapath.detach(pod.ifindex).expect("it was attached");
        assert!(filters(place).contains("u32"), "{}", filters(place));
        assert!(!filters(place).contains("cellwall"), "{}", filters(place));

        // The kernel has room for one kind of filter at a priority, and there is none before the first.
        add(place, "1");
        assert!(!datapath.attach(pod.ifindex).expect_err("our place is taken").is_gone());
        assert!(datapath.attached().expect("filters").is_empty());
    });
}
